"""What a source fitted before training and its run keeps: files in the workdir's data/, known by the sha256 in `data.stats`."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from causal_gen.data.base import Source
from causal_gen.types import DataError, WorkdirError


def store(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write `files` into `folder`, each whole or not at all.

    Raises `WorkdirError` where one is there with another content: a run goes on with what its checkpoints were trained with, or not.
    """
    for name, content in files.items():
        path = folder / name
        try:
            if path.exists():
                if path.read_bytes() != content:
                    raise WorkdirError(f"{path} differs from what this corpus gives: take the old corpus, or give another --workdir")
                continue
            folder.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{name}.{os.getpid()}")
            temporary.write_bytes(content)
            temporary.rename(path)
        except OSError as error:
            raise WorkdirError(
                f"cannot write {path} ({error.strerror or error}): free space or rights, or give another --workdir"
            ) from error


def load(folder: Path, name: str, sha256: str) -> bytes:
    """The content of a kept file. Raises `DataError` where it is missing or not the one that the run was trained with."""
    path = folder / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror or error}); copy the workdir again, with its folder data") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DataError(f"{path} is not the one that this run was trained with (its sha256 differs); copy the workdir again")
    return content


class Deferred:
    """A source that is opened when it is first touched, so that a run restores where its dataset is gone.

    One that fitted something before training (its config has `reopen`) takes it from the folder where its run kept it, and one whose
    entries are told by its data (`entries_of`) from the statistics.
    """

    def __init__(self, config: Any, folder: Path, stats: Mapping[str, Any] | None):
        again = hasattr(config, "reopen") and stats is not None
        self._make = functools.partial(config.reopen, folder, stats) if again else config.make
        told = hasattr(config, "entries_of") and stats is not None
        self.entries = config.entries_of(stats) if told else config.entries

    @functools.cached_property
    def _source(self) -> Source:
        return self._make()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)
