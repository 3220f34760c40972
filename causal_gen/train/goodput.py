"""Where the time of a run went, over all of its starts.

    initialise   mesh, state or checkpoint          save       handing a state to the writer, and waiting for it at the end
    compile      tracing and compiling the step     evaluate   held-out losses and pictures
    data         gathering and placing batches      lost       what was done after the checkpoint from which the next start went on
    step         the rest of the loop, mostly waiting for steps

A checkpoint's meta carries the seconds spent up to it, so that what a start finds spent (goodput.json, plus the time from there to the last
sign of life in the lock) and its checkpoint does not account for is what was lost. Time in which no process ran does not count, nor does
what a command does before it trains.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from causal_gen.train.log import write_json

PHASES: tuple[str, ...] = ("initialise", "compile", "data", "step", "save", "evaluate", "lost")
NAME = "goodput.json"


class Goodput:
    """A clock that is always in one phase, from its making on in "initialise". Of several processes of one run the `first` writes."""

    def __init__(self, workdir: Path, first: bool = True):
        self._path, self._first = workdir / NAME, first
        self._before = dict.fromkeys(PHASES, 0.0)
        self._own = dict.fromkeys(PHASES, 0.0)
        self.phase, self._entered = "initialise", time.perf_counter()

    def enter(self, phase: str) -> None:
        """From now on the time is `phase`'s."""
        now = time.perf_counter()
        self._own[self.phase] += now - self._entered
        self.phase, self._entered = phase, now

    @contextlib.contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """In here the time is `phase`'s; after it the former phase goes on."""
        former = self.phase
        self.enter(phase)
        try:
            yield
        finally:
            self.enter(former)

    @property
    def worked(self) -> float:
        """Seconds of this start in steps and their data."""
        self.enter(self.phase)
        return self._own["step"] + self._own["data"]

    def resume(self, step: int, seconds: Mapping[str, float], killed: Mapping[str, Any] | None) -> None:
        """Takes over from earlier starts: `seconds` are those in the checkpoint of `step`, `killed` the lock's record of a killed one."""
        ended = {}
        with contextlib.suppress(OSError, ValueError):
            ended = json.loads(self._path.read_text())
        spent = ended.get("seconds", {})
        if killed is None and ended.get("step") == step:  # ended by itself, after saving this
            self._before = {phase: float(spent.get(phase, 0.0)) for phase in PHASES}
            return
        self._before = {phase: float(seconds.get(phase, 0.0)) for phase in PHASES}
        alive = max(killed["seen"] - max(killed["start"], ended.get("at", 0.0)), 0.0) if killed else 0.0
        self._before["lost"] += max(sum(map(float, spent.values())) + alive - sum(self._before.values()), 0.0)

    def seconds(self) -> dict[str, float]:
        """Seconds by phase over all starts, up to now."""
        self.enter(self.phase)
        return {phase: round(self._before[phase] + self._own[phase], 3) for phase in PHASES}

    def write(self, step: int) -> dict[str, float]:
        """To goodput.json in the workdir, by one process; gives the seconds."""
        seconds = self.seconds()
        total = sum(seconds.values())
        share = round(seconds["step"] / max(total, 1e-9), 4)
        if self._first:
            write_json(self._path, {"step": step, "at": time.time(), "total": round(total, 3), "goodput": share, "seconds": seconds})
        return seconds

    def line(self) -> str:
        """For the person, at the end of a run."""
        seconds = self.seconds()
        total = sum(seconds.values())
        rest = ", ".join(f"{phase} {seconds[phase]:.1f}" for phase in PHASES if phase != "step")
        return f"goodput: {100 * seconds['step'] / max(total, 1e-9):.0f}% of {total:.1f} s in steps ({rest}); {self._path}"
