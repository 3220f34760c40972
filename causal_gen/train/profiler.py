"""A window of steps under JAX's profiler: `train --profile=10:15`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from causal_gen.types import ConfigError


class Profiler:
    """A context that makes steps and traces those of `window`, first and last, into `folder`; with None it only makes them.

    Raises ConfigError for a window that is not among the steps first + 1 .. total that this start will make.
    """

    def __init__(self, window: tuple[int, int] | None, folder: Path, first: int, total: int, say: Callable[[str], Any]):
        self._window, self._folder, self._say, self._open = window, folder, say, False
        if window is not None and not first < window[0] <= window[1] <= total:
            raise ConfigError(f"profile {window[0]}:{window[1]}: this start makes the steps {first + 1} to {total}; choose among them")

    def step(self, number: int, make: Callable[..., tuple[Any, Any]], *args: Any) -> tuple[Any, Any]:
        """`make(*args)`, which is the step of that number and gives (state, metrics)."""
        if self._window is None or not self._window[0] <= number <= self._window[1]:
            return make(*args)
        if not self._open:
            jax.block_until_ready(args)  # earlier steps are not in the picture
            jax.profiler.start_trace(self._folder)
            self._open = True
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            made = make(*args)
        if number == self._window[1]:
            jax.block_until_ready(made)
            self._close()
        return made

    def _close(self) -> None:
        jax.profiler.stop_trace()
        self._open, self._window = False, None
        self._say(f"profile in {self._folder}: see it with xprof --logdir={self._folder}")

    def __enter__(self) -> Profiler:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._open:
            self._close()
