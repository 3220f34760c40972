"""What keeps a run whole: signals seen at step boundaries and during long work, a limit of time, a workdir that holds another run."""

from __future__ import annotations

import json
import signal
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from causal_gen.parallel.hosts import INTERVAL, Council, Verdict, count, first, flat
from causal_gen.train.state import NonFiniteError
from causal_gen.types import WorkdirError

PACKAGE = Path(__file__).resolve().parents[1]
ABANDONED = "work in the background"
STOP = "STOP"  # the file of a workdir that asks its run to stop: whoever cannot send a signal, as a sweep on another machine, writes it
GRACE = 0.1  # share of a time limit that compiling may take before the schedule hurries
FREE = ("data.stats", "data.root")  # what may differ between two starts of one run: fitted numbers and where files lie


class Signals:
    """A context in which SIGINT and SIGTERM set `requested`, for the loop to poll; a second SIGINT raises KeyboardInterrupt.

    Python takes signals in the main thread only; elsewhere nothing is installed and `requested` stays False. Of several processes `noted`
    says what this one was sent, `asked` what any was, and `requested` what all have agreed on (`hear`): it changes there alone.

    A file STOP in `workdir` asks as SIGTERM does. Process 0 alone looks for it, and decides for all.
    """

    def __init__(self, workdir: Path | None = None) -> None:
        self.noted = False
        self.stop = workdir / STOP if workdir is not None and first() else None
        self.problem, self._looked = "", -INTERVAL
        self.agreed: Verdict | None = None
        self.council = Council()
        self._old: dict[int, Any] = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.noted and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.noted = True

    def look(self) -> None:
        """See, every INTERVAL seconds at most, whether the file STOP is there, or what keeps one from seeing it."""
        if self.stop is None or self.noted or time.monotonic() < self._looked + INTERVAL:
            return
        self._looked = time.monotonic()
        try:
            self.stop.stat()
            self.noted = True
        except FileNotFoundError:
            pass
        except OSError as error:  # the folder that takes checkpoints and metrics has gone: better known now than at the next save
            self.problem = (
                f"{self.stop} cannot be looked for ({error.strerror or error}): see to the folder, then run the same command again"
            )

    @property
    def why(self) -> str:
        """What asked for the end, where it was not a signal."""
        return f"{self.stop} asks for it; remove it first" if self.stop is not None and self.stop.exists() else ""

    @property
    def requested(self) -> bool:
        if count() > 1:
            return self.agreed is not None and self.agreed.interrupted
        return self.noted

    @property
    def asked(self) -> bool:
        """Whether to give up what one process does by itself; what all do together goes by `requested`."""
        return self.requested or self.council.asked(self.noted)

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            self._old = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)


class Clock:
    """Seconds of training, `before` of them in earlier starts of the run, against a limit (None: no limit).

    Of several processes all read `pace` and `over` off one clock, that of process 0, as it stood when they last agreed (`hear`).
    """

    def __init__(self, limit: float | None, before: float = 0.0):
        self.agreed: Verdict | None = None
        self._limit, self._start = limit, time.monotonic() - before
        self.used_up = limit is not None and before >= limit  # already when this start began; otherwise one step is always made

    @property
    def spent(self) -> float:
        return time.monotonic() - self._start

    def now(self, interrupted: bool, problem: str = "") -> Verdict:
        """What this process would say at a step boundary."""
        over = self._limit is not None and self.spent >= self._limit
        pace = 0.0 if not self._limit else min(max((self.spent / self._limit - GRACE) / (1 - GRACE), 0.0), 1.0)
        return Verdict(interrupted, over, pace, problem)

    @property
    def pace(self) -> float:
        """Share of the limit that is spent, from 0 after GRACE of it to 1; 0 without a limit."""
        return (self.agreed or self.now(False)).pace

    @property
    def over(self) -> bool:
        return (self.agreed or self.now(False)).over


def hear(signals: Signals, clock: Clock, at_once: bool = False) -> None:
    """Once a step boundary: let all processes agree on what `signals` and `clock` say until the next. One process says it for itself.

    `at_once` they look again, not only every half a second or so: where the work before it may have been given up, or was long.
    Raises WorkdirError, on all processes alike, where process 0 has lost sight of the workdir.
    """
    signals.look()
    verdict = clock.now(signals.noted, signals.problem)
    if count() > 1:
        signals.agreed = clock.agreed = verdict = signals.council.hear(verdict, at_once)
    if verdict.problem:
        raise WorkdirError(verdict.problem)


def unless(signals: Signals, work: Callable[[], Any]) -> Any:
    """What `work` gives, or None where a signal came first: the work is then left behind in its thread.

    For work that Python cannot interrupt, as compiling: handlers run in the main thread, and only between its instructions. Of several
    processes some may have its value and others not, until they `hear` of the signal.
    """
    results: list[tuple[Any, BaseException | None]] = []

    def run() -> None:
        try:
            results.append((work(), None))
        except BaseException as error:
            results.append((None, error))

    thread = threading.Thread(target=run, name=ABANDONED, daemon=True)
    thread.start()
    while thread.is_alive() and not signals.asked:
        thread.join(0.1)
    if not results:
        return None
    value, error = results[0]
    if error is not None:
        raise error
    return value


def left_behind() -> bool:
    """Whether work that `unless` gave up goes on: an interpreter that ends under it may crash."""
    return any(thread.name == ABANDONED for thread in threading.enumerate())


def named_nans(step: Callable[..., Any]) -> Callable[..., Any]:
    """`step` under jax_debug_nans: where it stops, one line names the primitive, and the line of this package that asked for it."""

    def call(*args: Any) -> Any:
        try:
            return step(*args)
        except FloatingPointError as error:
            frames = [frame for frame in traceback.extract_tb(error.__traceback__) if PACKAGE in Path(frame.filename).resolve().parents]
            text = str(error).strip().splitlines()[0].partition(". ")[0]
            where = f" ({Path(frames[-1].filename).relative_to(PACKAGE.parent)}:{frames[-1].lineno})" if frames else ""
            raise NonFiniteError(f"{text}{where}: training stopped and nothing of it was saved; mend what is computed there") from error

    return call


def differing_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Dotted paths under model and data whose values differ, FREE ones aside; both configs as JSON would hold them."""
    flats = [flat(json.loads(json.dumps({s: c.get(s) for s in ("model", "data")}, default=str))) for c in (old, new)]
    keys = sorted(flats[0].keys() | flats[1].keys())
    free = [key for key in keys if any(key == name or key.startswith(name + ".") for name in FREE)]
    missing = object()
    return [key for key in keys if key not in free and flats[0].get(key, missing) != flats[1].get(key, missing)]


def check_workdir(workdir: Path, config: Mapping[str, Any]) -> None:
    """Make the folder, or see that what it holds is a run of this model on this data. Raises WorkdirError naming the keys that differ."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkdirError(f"cannot make the workdir {workdir} ({error.strerror or error}): give another --workdir") from error
    path = workdir / "config.json"
    if not path.exists():
        if any((workdir / "checkpoints").glob("[0-9]*")):
            raise WorkdirError(f"{workdir} holds checkpoints but no config.json, so it cannot be said of what: give another --workdir")
        return
    try:
        old = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise WorkdirError(f"{path} cannot be read ({error}): mend it, or give another --workdir") from error
    keys = differing_keys(old, config)
    if keys:
        shown = ", ".join(keys[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")
        raise WorkdirError(f"{workdir} holds a run whose config differs in {shown}: take those back, or give another --workdir")
