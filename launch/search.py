"""What a study asks and is told, kept in a journal: one JSON object a line, each on disk before the next thing is done.

    {"ask": 3, "params": {...}}      {"tell": 3, "state": "complete", "value": 2.31}

This is the search that needs nothing installed; launch/optuna_search.py has the same face. Only the launcher that holds the study calls it:
trials and workers know nothing of it.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any, Protocol

from launch.command import LaunchError
from launch.space import Drawer, Params

OPEN, TOLD = "open", ("complete", "pruned", "failed")


@dataclasses.dataclass
class Asked:
    """A trial as the search knows it: its setting, and "open" or what was told, with the value where there is one."""

    number: int
    params: Params
    state: str = OPEN
    value: float | None = None


class Search(Protocol):
    """A source of settings with a memory. All calls raise LaunchError where that memory cannot be read or written."""

    def asked(self) -> list[Asked]:
        """All trials so far, by number."""
        ...

    def ask(self) -> Asked | None:
        """A new trial, on disk; None where the space has no more."""
        ...

    def report(self, number: int, step: int, value: float) -> None:
        """A value on the way, for the pruner."""
        ...

    def pruned(self, number: int) -> bool:
        """Whether the pruner gives the trial up, after what was reported."""
        ...

    def tell(self, number: int, state: str, value: float | None) -> None:
        """How a trial ended; once. A second time is passed over."""
        ...


class Journal:
    """The search over a `drawer`'s settings, in the file `path`. No pruner."""

    def __init__(self, path: Path, drawer: Drawer):
        self._path, self._drawer = path, drawer
        self._trials: dict[int, Asked] = {}
        try:
            path.touch()
            self._read()
        except OSError as error:
            raise LaunchError(f"the study's journal {path} cannot be opened ({error.strerror or error}): see to its folder") from error

    def _read(self) -> None:
        text = self._path.read_text(encoding="utf-8")
        whole, _, rest = text.rpartition("\n")
        if rest:  # cut short by a kill: what follows must not be written behind half a line
            self._path.write_text(f"{whole}\n" if whole else "", encoding="utf-8")
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise LaunchError(
                    f"the study's journal {self._path} is damaged in line {number}: restore it, or begin another --study"
                ) from error

    def _take(self, row: dict[str, Any]) -> None:
        if "ask" in row:
            self._trials[row["ask"]] = Asked(row["ask"], row["params"])
        else:
            told = self._trials[row["tell"]]
            told.state, told.value = row["state"], row["value"]

    def _append(self, row: dict[str, Any]) -> None:
        try:
            handle = os.open(self._path, os.O_WRONLY | os.O_APPEND)  # one that is gone is not begun again: its trials would be lost
            try:
                os.write(handle, f"{json.dumps(row)}\n".encode())
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise LaunchError(
                f"the study's journal {self._path} cannot be written ({error.strerror or error}): see to its folder, then run the same "
                "command again"
            ) from error
        self._take(row)

    def asked(self) -> list[Asked]:
        return [self._trials[number] for number in sorted(self._trials)]

    def ask(self) -> Asked | None:
        number = max(self._trials, default=-1) + 1
        params = self._drawer(number)
        if params is None:
            return None
        self._append({"ask": number, "params": params})
        return self._trials[number]

    def report(self, number: int, step: int, value: float) -> None:
        del number, step, value

    def pruned(self, number: int) -> bool:
        del number
        return False

    def tell(self, number: int, state: str, value: float | None) -> None:
        if self._trials[number].state == OPEN:
            self._append({"tell": number, "state": state, "value": value})
