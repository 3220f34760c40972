"""Built datasets on disk: made once by a TFDS builder, checked on every reuse.

A set lives in FOLDER/name/variant/version, where FOLDER is the first of config.data.root, $CAUSAL_GEN_DATA and the per-user cache
($XDG_CACHE_HOME or ~/.cache)/causal_gen/datasets that holds it or, to build it, can be written. In it are

    *.array_record, dataset_info.json, features.json    what TFDS writes: tfds.builder_from_directory(path).as_data_source("train")
    columns/SPLIT.NAME.npy                              the same rows as read back, a file a column: parsing 70,000 records takes 8 s
    checksums.json                                      sha256 of every file, written last

so a set without checksums.json was interrupted and is built again, and a file whose hash differs is an error.
One process builds while others wait for its lock. Only building imports tensorflow_datasets (without TensorFlow: array_record
is the one format that needs none).
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import gzip
import hashlib
import io
import json
import os
import shutil
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from causal_gen.types import DataError

CHECKSUMS = "checksums.json"
Columns = dict[str, np.ndarray]  # every column of a split, rows first
Fetch = Callable[[dict[str, str]], dict[str, Path]]  # {name: address} -> {name: file}, by the builder's download manager


@dataclasses.dataclass(frozen=True)
class Column:
    """One feature of a row: shape, dtype, and what it is, with its unit."""

    shape: tuple[int, ...]
    dtype: str
    text: str


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a built set is. `variant` names everything that its content depends on; `version` the code that makes it."""

    name: str
    variant: str
    version: str
    description: str
    citation: str
    columns: Mapping[str, Column]
    sizes: Mapping[str, int]


def folders(root: str | None) -> list[Path]:
    """Where data may lie, best first: `root`, $CAUSAL_GEN_DATA, the per-user cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "causal_gen" / "datasets"
    return [Path(place).expanduser() for place in (root, os.environ.get("CAUSAL_GEN_DATA"), cache) if place]


def unpacked(path: Path, kind: str) -> bytes:
    """A user's file, gzipped or not. Raises `DataError`, which begins with `kind`, where it cannot be read or is damaged."""
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{kind}: {path} is cut short or damaged ({error}); copy it again") from None
    except OSError as error:
        raise DataError(f"{kind}: cannot read {path} ({error.strerror or error}); check the path and its permissions") from None


def load(recipe: Recipe, produce: Callable[[str, Fetch], Columns], root: str | None) -> dict[str, Columns]:
    """The set's columns by split, built first where no folder holds it; `produce(split, fetch)` makes a split's rows.

    Raises `DataError` for a damaged file, or where nothing can be written.
    """
    place = Path(recipe.name) / recipe.variant / recipe.version
    for folder in folders(root):
        if (folder / place / CHECKSUMS).is_file():
            return _read(recipe, folder / place)
    refusals = []
    for folder in folders(root):
        if not _writable(folder):
            refusals.append(f"{folder} (marked read-only)")
            continue
        try:
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            lock = (folder / place.parent / f"{recipe.version}.lock").open("w")
        except OSError as error:
            refusals.append(f"{folder} ({error.strerror})")
            continue
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # released by the system when the process ends, however it ends
            if not (folder / place / CHECKSUMS).is_file():
                _build(recipe, produce, folder, folder / place)
        return _read(recipe, folder / place)
    raise DataError(f"{recipe.name}: cannot write {', '.join(refusals)}; set data.root or CAUSAL_GEN_DATA to a folder that can be written")


def _writable(folder: Path) -> bool:
    """Whether the mode bits let anybody write. Asked before trying, since the administrator's attempt would succeed where they do not."""
    there = next((path for path in (folder, *folder.absolute().parents) if path.exists()), folder)
    return not there.exists() or bool(there.stat().st_mode & 0o222)


def progress(items: Iterable[Any], total: int, text: str) -> Iterator[Any]:
    """The items, with a bar on stderr: redrawn in place on a terminal, one line at the end elsewhere. Silent below a second."""
    start, shown, done = time.monotonic(), 0.0, 0
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic() - start
        if sys.stderr.isatty() and now > 1 and now - shown > 0.2:
            shown = now
            bar = "#" * (30 * done // total)
            print(f"\r{text} [{bar:<30}] {done}/{total}, {now * (total - done) / done:.0f} s left ", end="", file=sys.stderr, flush=True)
    if shown:
        print("\r\033[K", end="", file=sys.stderr)
    if time.monotonic() - start > 1:
        print(f"{text}: {done} in {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)


def _build(recipe: Recipe, produce: Callable[[str, Fetch], Columns], folder: Path, place: Path) -> None:
    leftovers = [path for path in place.parent.glob(f"*{place.name}*") if path.is_dir()]  # TFDS writes into *.incomplete*
    if leftovers:
        print(f"{recipe.name}: {place} was interrupted while it was built; building it again", file=sys.stderr, flush=True)
    try:
        for path in leftovers:
            shutil.rmtree(path)
        builder = _builder_class(recipe, produce)(data_dir=str(folder), file_format="array_record")
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces itself on stdout, where commands print their results
            builder.download_and_prepare()
        (place / "columns").mkdir(exist_ok=True)
        for split, rows in recipe.sizes.items():
            source = builder.as_data_source(split=split)
            for name, values in _collect(recipe, source, split, rows).items():
                np.save(place / "columns" / f"{split}.{name}.npy", values)
        hashes = {str(path.relative_to(place)): _hash(path) for path in sorted(place.rglob("*")) if path.is_file()}
        partial = place / f"{CHECKSUMS}.partial"
        partial.write_text(json.dumps(hashes, indent=1) + "\n")
        partial.rename(place / CHECKSUMS)
    except (OSError, RuntimeError) as error:
        # array_record reports a full disk as a RuntimeError of its own wording
        if isinstance(error, RuntimeError) and "writing" not in str(error):
            raise
        reason = getattr(error, "strerror", None) or str(error).split(";")[0]
        raise DataError(f"{recipe.name}: cannot write {place} ({reason}); free space or set data.root to another folder") from None


def _collect(recipe: Recipe, source: Any, split: str, rows: int) -> Columns:
    """The rows as read back from the records, in their own order."""
    if len(source) != rows:
        raise DataError(f"{recipe.name}: {len(source)} of {rows} {split} rows were written; run again to build the set anew")
    columns = {name: np.empty((rows, *column.shape), column.dtype) for name, column in recipe.columns.items()}
    for row in range(rows):
        for name, value in source[row].items():
            columns[name][row] = value
    return columns


def _read(recipe: Recipe, place: Path) -> dict[str, Columns]:
    try:
        hashes = json.loads((place / CHECKSUMS).read_text())
        names = {split: {name: f"columns/{split}.{name}.npy" for name in recipe.columns} for split in recipe.sizes}
        for files in names.values():
            for file in files.values():
                if hashes.get(file) != _hash(place / file):
                    raise DataError(f"{recipe.name}: {place / file} is damaged (its sha256 differs); delete {place} to build it again")
        return {split: {name: np.load(place / file) for name, file in files.items()} for split, files in names.items()}
    except (OSError, ValueError) as error:
        raise DataError(f"{recipe.name}: cannot read {place} ({error}); delete it to build it again") from None


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _builder_class(recipe: Recipe, produce: Callable[[str, Fetch], Columns]) -> Any:
    """A TFDS builder of one version and one config. Made on demand and not registered, since importing TFDS takes half a second."""
    import tensorflow_datasets as tfds

    def feature(column: Column) -> Any:
        if not column.shape:
            return tfds.features.Scalar(dtype=np.dtype(column.dtype), doc=column.text)
        return tfds.features.Tensor(shape=column.shape, dtype=np.dtype(column.dtype), encoding="zlib", doc=column.text)

    def info(self: Any) -> Any:
        features = tfds.features.FeaturesDict({name: feature(column) for name, column in recipe.columns.items()})
        # rows keep their order: the first rows of a larger set are those of a smaller one
        return tfds.core.DatasetInfo(
            builder=self, description=recipe.description, features=features, citation=recipe.citation, disable_shuffling=True
        )

    def rows(split: str, fetch: Fetch) -> Iterator[tuple[int, dict[str, Any]]]:
        columns = produce(split, fetch)
        for row in progress(range(recipe.sizes[split]), recipe.sizes[split], f"{recipe.name}: writing {split}"):
            yield row, {name: values[row] for name, values in columns.items()}

    def split_generators(self: Any, manager: Any) -> dict[str, Any]:
        del self
        return {split: rows(split, lambda urls: {k: Path(v) for k, v in manager.download(urls).items()}) for split in recipe.sizes}

    tfds.disable_progress_bar()
    members = {
        "name": recipe.name,
        "__doc__": recipe.description,
        "VERSION": tfds.core.Version(recipe.version),
        "BUILDER_CONFIGS": [tfds.core.BuilderConfig(name=recipe.variant, description=recipe.description)],
        "_info": info,
        "_split_generators": split_generators,
        "_generate_examples": lambda self, split, fetch: rows(split, fetch),
    }
    return type("Builder", (tfds.core.GeneratorBasedBuilder,), members, skip_registration=True)
