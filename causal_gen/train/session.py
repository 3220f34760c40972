"""What a run has open while it trains, and what it does beside training: saving, rolling back, looking at held-out losses, drawing."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from causal_gen.parallel import hosts
from causal_gen.train import guard, meter
from causal_gen.train.checkpoint import Checkpoints
from causal_gen.train.goodput import Goodput
from causal_gen.train.log import LogConfig, Logger, format_table, write_json
from causal_gen.train.nonfinite import Numbers
from causal_gen.train.profiler import Profiler
from causal_gen.train.state import State
from causal_gen.train.watchdog import Watchdog

if TYPE_CHECKING:
    from causal_gen.train.loop import Engine

Pictures = Callable[[Any, int, Callable[[], bool]], Mapping[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Session:
    """`config` and the scene that `open_session` set; `step` and `batch` are what every turn of the loop does."""

    engine: Engine
    config: Mapping[str, Any]
    saved: Checkpoints
    signals: guard.Signals
    clock: guard.Clock
    goodput: Goodput
    watchdog: Watchdog
    logger: Logger
    numbers: Numbers
    profiler: Profiler

    def step(self, number: int, state: State, batch: Mapping[str, Any]) -> tuple[State, dict[str, jax.Array]]:
        """Hand the step of that number to the devices, without waiting for it."""
        self.watchdog.step(number - 1)
        if state.pace is not None:
            state = dataclasses.replace(state, pace=np.float32(self.clock.pace))
        return self.profiler.step(number, self.engine.step, state, batch)

    def batch(self, index: int) -> Mapping[str, Any]:
        """Batch `index`, as `step` takes it."""
        with self.goodput.during("data"):
            return self.engine.batch(index)

    def save(self, step: int, state: State, loss: float | None = None) -> None:
        """In the background, with what the run is and has spent up to here; nothing where that step is there already."""
        graph = {"nodes": self.engine.model.graph.nodes, "edges": self.engine.model.graph.edges}
        meta = {"config": dict(self.config), "graph": graph, "init_from": self.engine.origin, "passed": self.numbers.passed}
        with self.goodput.during("save"):
            self.saved.save(step, state, {**meta, "seconds": self.clock.spent, "goodput": self.goodput.write(step)}, loss)

    def roll_back(self, step: int) -> State:
        """The state of the last checkpoint, to go on with after `step`."""
        with self.goodput.during("initialise"):
            self.saved.wait()
            state, _ = self.engine.last(self.saved)
        self.numbers.rolled_back(int(state.step), step)
        return dataclasses.replace(state, step=jax.device_put(np.int32(step), self.engine.abstract.step.sharding))

    def pause(self, step: int, state: State, save: bool, look: bool, draw: Pictures | None) -> dict[str, float]:
        """Held-out losses, a checkpoint that they choose by, pictures: those that are due. A signal cuts all but the checkpoint short."""
        with self.logger.aside(), self.goodput.during("evaluate"):
            scores = self.engine.heldout(state.best_params, self.logger.config.eval_batches, self.signals, self.clock) if look else {}
            if save:
                self.save(step, state, scores.get("eval_loss"))
            if draw is not None:
                hosts.once(self._draw, draw, hosts.gather(state.best_params), step)
        return scores

    def _draw(self, draw: Pictures, params: Any, step: int) -> None:
        self.logger.pictures(step, draw(params, step, lambda: self.signals.asked))

    def close(self, done: int) -> None:
        """Wait until everything is on disk, and say how the run ended and where its time went."""
        train = self.engine.train
        with self.goodput.during("save"):
            self.saved.wait()
            hosts.barrier(f"saved step {done}")
        self.goodput.write(done)
        if self.signals.requested:
            why = f" ({self.signals.why})" if self.signals.why else ""
            self.logger.say(f"stopped at step {done} and saved; run the same command again to go on{why}")
        elif done < train.steps:
            self.logger.say(f"train.time_limit={train.time_limit:g} s is spent, at step {done} of {train.steps}; raise it to go on")
        self.logger.say(self.goodput.line())


def open_session(
    stack: contextlib.ExitStack,
    workdir: Path,
    engine: Engine,
    state: State,
    meta: Mapping[str, Any],
    saved: Checkpoints,
    signals: guard.Signals,
    goodput: Goodput,
    log: LogConfig,
    config: Mapping[str, Any],
    argv: Sequence[str],
    profile: tuple[int, int] | None,
) -> Session:
    """Compile, write what describes the run, and open its log with the parameter table. `meta` is that of the state's checkpoint."""
    train, first = engine.train, int(state.step)
    goodput.write(first)  # what was lost before this start is on disk from now on
    watchdog = stack.enter_context(Watchdog(train.watchdog, goodput))
    clock = guard.Clock(train.time_limit, float(meta.get("seconds", 0.0)))  # compiling counts
    with goodput.during("compile"):
        rows = engine.compile(state, signals)
        hosts.barrier("compiled")
    if hosts.first():  # not before: what cannot be compiled leaves no run behind
        write_json(workdir / "config.json", config)
        starts = {"resumed_from": first, "resumes": _resumes(workdir / "metadata.json", first)}
        write_json(workdir / "metadata.json", meter.describe(engine.mesh, list(argv)) | engine.facts(rows) | starts)
    sizes = {"total": train.steps, "first": first, "batch_size": train.batch_size, "flops": engine.flops, "peak": engine.peak}
    logger = stack.enter_context(Logger(workdir, log, **sizes, quiet=not hosts.first()))
    logger.say(format_table(rows))
    numbers = Numbers(train, engine.leaves, engine.examples, logger.say, meta.get("passed", ()))
    profiler = stack.enter_context(Profiler(profile, workdir / "profile", first, train.steps, logger.say))
    goodput.enter("step")
    return Session(engine, config, saved, signals, clock, goodput, watchdog, logger, numbers, profiler)


def _resumes(path: Path, first: int) -> list[int]:
    """The steps from which earlier starts and this one took the run up, oldest first, as far as the run still goes that way."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get("resumes", [])
    except (OSError, ValueError, AttributeError):
        found = []
    before = [step for step in found if isinstance(step, int) and step < first]
    return [*before, first] if first > 0 else []
