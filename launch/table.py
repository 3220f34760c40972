"""A study as text: one line a trial with its state, step, best value and the time left."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from launch.space import spell
from launch.study import Trial, best_of

SHOWN = 12  # trials in a table that is drawn while the sweep runs
EVERY = 30.0  # seconds between two tables where lines cannot be drawn over


def text(head: Mapping[str, Any], trials: Sequence[Trial], wanted: int, elapsed: float | None, shown: int | None = None) -> str:
    """The table, the running and the latest trials last; `shown` bounds their number, `elapsed` (seconds) gives the time left of all."""
    order = sorted(trials, key=lambda trial: (not trial.ended, trial.number))
    rows = [("trial", "state", "step", f"best {head['metric']}", "ETA", "setting")]
    best = best_of(trials, head["goal"])
    for trial in order[-shown:] if shown else sorted(trials, key=lambda trial: trial.number):
        value = trial.value if trial.state == "complete" else trial.best
        mark = "*" if best is not None and trial.number == best.number else ""
        left = eta(trial, head["steps"], elapsed, trials)
        rows.append(
            (
                str(trial.number),
                trial.state,
                f"{trial.step}/{head['steps']}",
                "" if value is None else f"{value:.5g}{mark}",
                left,
                spell(trial.params),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)).rstrip() for row in rows]
    counts = {state: sum(trial.state == state for trial in trials) for state in ("complete", "pruned", "failed", "running", "waiting")}
    said = ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "none yet"
    return "\n".join([*lines, f"{len(trials)} of {wanted} trials: {said}{whole_eta(trials, wanted, elapsed)}"])


def eta(trial: Trial, steps: int, elapsed: float | None, trials: Sequence[Trial]) -> str:
    """What a running trial still needs, if it goes on as the ended ones did."""
    done = [other.seconds / other.step for other in trials if other.state == "complete" and other.step]
    if trial.state != "running" or elapsed is None or not done:
        return ""
    return clock(max(steps - trial.step, 0) * sum(done) / len(done))


def whole_eta(trials: Sequence[Trial], wanted: int, elapsed: float | None) -> str:
    """What the study still needs: as long a trial as the ended ones took, over as many at a time as are running."""
    ended = [trial.seconds for trial in trials if trial.ended and trial.seconds]
    running = sum(trial.state == "running" for trial in trials)
    if elapsed is None or not ended or not running:
        return ""
    left = wanted - sum(trial.ended for trial in trials)
    return f"; ETA {clock(left * sum(ended) / len(ended) / running)}"


def clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def told(head: Mapping[str, Any], trial: Trial) -> str:
    """The line of a trial that has ended."""
    value = f" {head['metric']} {trial.value:.5g}" if trial.value is not None else ""
    why = f": {trial.line}" if trial.line else ""
    return f"trial {trial.number} {trial.state}{value} at step {trial.step}, {spell(trial.params)}{why}"


class View:
    """Draws the table over itself on a terminal; elsewhere writes it every EVERY seconds, between the lines of what happens."""

    def __init__(self, stream: TextIO):
        self._stream, self._drawn, self._last = stream, 0, time.monotonic()
        self._live, self._said = stream.isatty(), ""

    def say(self, line: str) -> None:
        """A line that stays."""
        self._wipe()
        print(line, file=self._stream, flush=True)

    def show(self, head: Mapping[str, Any], trials: Sequence[Trial], wanted: int, elapsed: float) -> None:
        now = time.monotonic()
        if now - self._last < (1.0 if self._live else EVERY):
            return
        self._last = now
        lines = text(head, trials, wanted, elapsed, SHOWN)
        if not self._live and lines == self._said:
            return
        self._said = lines
        self._wipe()
        self._drawn = lines.count("\n") + 1 if self._live else 0
        print(lines, file=self._stream, flush=True)

    def close(self) -> None:
        self._wipe()

    def _wipe(self) -> None:
        if self._drawn:
            self._stream.write(f"\x1b[{self._drawn}F\x1b[J")
            self._drawn = 0
