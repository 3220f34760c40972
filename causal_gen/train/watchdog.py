"""A process whose step hangs dumps all of its stacks and ends, so that whoever started it can start it again.

A step may take `train.watchdog` times the median of the last ones, and never less than FLOOR seconds. The phases that are no steps, and the
first steps, after which there is no median yet, have allowances of their own. Time in which the process itself stood still (a laptop
asleep, Ctrl-Z) does not count: the watchdog goes by its own ticks.
"""

from __future__ import annotations

import faulthandler
import os
import statistics
import sys
import threading
import time

from causal_gen.train.goodput import Goodput

FLOOR, TICK = 60.0, 0.5  # seconds
FIRST, LAST = 10, 64  # steps before there is a median, and those that it is of
HOUR = 3600.0
ALLOWED = {"initialise": HOUR, "compile": 2 * HOUR, "evaluate": HOUR, "save": HOUR}
EXIT = 75  # of sysexits.h: a failure that another try may mend


class Watchdog:
    """A context whose thread watches the phase of `goodput`; `step` is told when one has been made. `times` 0 watches nothing."""

    def __init__(self, times: float, goodput: Goodput):
        self._times, self._goodput, self._done = times, goodput, threading.Event()
        self._durations: list[float] = []
        self._made, self._step, self._worked = 0, 0, 0.0

    def step(self, step: int) -> None:
        """`step` is over, as far as the loop can tell: the next one is about to be handed to the devices."""
        worked = self._goodput.worked
        if self._made:  # the first one is measured from its own end
            place = (self._made - 1) % LAST
            self._durations[place : place + 1] = [worked - self._worked]
        self._made, self._step, self._worked = self._made + 1, step, worked

    def __enter__(self) -> Watchdog:
        if self._times:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()

    def _watch(self) -> None:
        seen, waited, last = None, 0.0, time.perf_counter()
        while not self._done.wait(TICK):
            now, phase, made = time.perf_counter(), self._goodput.phase, self._made
            current = ("step" if phase == "data" else phase, made)
            waited = waited + min(now - last, 2 * TICK) if current == seen else 0.0
            seen, last = current, now
            allowed = self._allowed(current[0])
            if waited > allowed:
                self._end(current[0], waited, allowed)

    def _allowed(self, phase: str) -> float:
        if phase != "step":
            return ALLOWED[phase]
        if len(self._durations) < FIRST:
            return HOUR
        return max(self._times * statistics.median(list(self._durations)), FLOOR)

    def _end(self, phase: str, waited: float, allowed: float) -> None:
        faulthandler.dump_traceback(sys.stderr)
        what = f"step {self._step + 1}" if phase == "step" else f"{phase} at step {self._step + 1}"
        why = f"train.watchdog={self._times:g} times the median step" if phase == "step" else "what is allowed for it"
        print(
            f"error: {what} has taken {waited:.0f} s, more than {allowed:.0f} s ({why}): all stacks are above; "
            "run the same command again to go on from the last checkpoint, or raise train.watchdog (0: off)",
            file=sys.stderr,
            flush=True,
        )
        os._exit(EXIT)
