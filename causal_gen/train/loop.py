"""Training, as an order of things.

`fit` prepares (lock, mesh, state or checkpoint, compiled step) and then repeats: dispatch a step with its batch, gather the next one, look
at the numbers of the step before. The host never waits for a step that it has just dispatched, except where something is due:
held-out loss, checkpoint, pictures; so there is always a step under way while a batch is gathered and copied to the devices.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from causal_gen.data import batches
from causal_gen.data.base import Source
from causal_gen.models.base import Trainable
from causal_gen.parallel import compile as compiling
from causal_gen.parallel import hosts, rules
from causal_gen.parallel.mesh import (
    MeshConfig,
    batch_sharding,
    batch_shards,
    check_batch_size,
    local_rows,
    make_mesh,
    put_batch,
    replicated,
)
from causal_gen.train import ahead, guard, meter, warmstart
from causal_gen.train import step as steps
from causal_gen.train.checkpoint import CheckpointConfig, Checkpoints
from causal_gen.train.goodput import Goodput
from causal_gen.train.lock import Lock
from causal_gen.train.log import LogConfig
from causal_gen.train.nonfinite import bad_leaf
from causal_gen.train.optim import split_state
from causal_gen.train.session import Pictures, open_session
from causal_gen.train.state import Run, State, TrainConfig


def fit(
    model: Trainable,
    data: Source,
    workdir: str | Path,
    *,
    train: TrainConfig,
    mesh: MeshConfig,
    checkpoint: CheckpointConfig,
    log: LogConfig,
    config: Mapping[str, Any],
    pictures: Pictures | None = None,
    argv: Sequence[str] = (),
    profile: tuple[int, int] | None = None,
) -> Run:
    """Train, or go on where `workdir` left off; returns a Run, `interrupted` if SIGINT or SIGTERM ended it after saving.

    `config` is the complete JSON-able config, written to the workdir and into every checkpoint. `pictures(params, step, stopped)` gives
    {name: u8 [h, w, 3]}, or fewer once stopped() is true. `profile` are the first and last step to trace. Raises UserErrors of one line:
    WorkdirError for a workdir of another run or one that is being trained, ConfigError for a mesh or batch that does not fit,
    CheckpointError, and NonFiniteError (nothing of that step is saved).
    """
    workdir, first = Path(workdir), hosts.first()
    goodput = Goodput(workdir, first)
    guard.check_workdir(workdir, config)
    with contextlib.ExitStack() as stack:
        lock, signals = stack.enter_context(Lock(workdir, first)), stack.enter_context(guard.Signals(workdir))
        saved = stack.enter_context(Checkpoints(workdir / "checkpoints", checkpoint))
        engine, state, meta = prepare(model, data, train, mesh, saved)
        done, late = int(state.step), None
        goodput.resume(done, meta.get("goodput", {}), lock.before)
        run = open_session(stack, workdir, engine, state, meta, saved, signals, goodput, log, config, argv, profile)
        guard.hear(signals, run.clock, at_once=True)
        stop = run.clock.used_up or signals.requested
        batch = {} if stop else run.batch(done)
        while done < train.steps and not stop:
            state, metrics = run.step(done + 1, state, batch)
            done += 1
            batch = run.batch(done)
            if late is not None:
                if (found := run.numbers.read(*late)) is None:
                    done, late = done - 1, None
                    state, batch = run.roll_back(done), run.batch(done)
                    continue
                run.logger.step(done - 1, found)
            late = (done, metrics)
            guard.hear(signals, run.clock)
            stop = signals.requested or run.clock.over or done == train.steps
            save, look, draw = _due(done, stop, signals.requested, checkpoint, log)
            if not (save or look or draw):
                continue
            found, late = run.numbers.read(*late), None  # a state that is not finite is never evaluated, drawn or saved
            if found is None or not run.numbers.check_state(done, bad_leaf(state)):
                state, found = run.roll_back(done), {}
            scores = run.pause(done, state, save, look, pictures if draw else None)
            run.logger.step(done, found, extra=scores)
            stop = stop or signals.requested
        if signals.requested:  # before the first step, or in a pause that did not save
            run.save(done, state)
        run.close(done)
    return Run(model, state.best_params, dict(config), done, data, workdir, interrupted=signals.requested)


def _due(done: int, stop: bool, interrupted: bool, checkpoint: CheckpointConfig, log: LogConfig) -> tuple[bool, bool, bool]:
    """Whether to save, to look at the held-out loss, to draw. The last step does all three, an interrupted one only saves."""
    save = stop or done % checkpoint.every == 0
    look = not interrupted and (save or (log.eval_every > 0 and done % log.eval_every == 0))  # the best checkpoint is found by its look
    draw = not interrupted and log.pictures_every > 0 and (stop or done % log.pictures_every == 0)
    return save, look, draw


@dataclasses.dataclass
class Engine:
    """The pieces of a run that depend on the mesh, made by `prepare`. `begin` makes the state of step 0, `abstract` says what every state
    is like, `origin` what `train.init_from` gave; `compile` fills the rest."""

    model: Trainable
    data: Source
    train: TrainConfig
    mesh: jax.sharding.Mesh
    mode: str
    abstract: State
    begin: Callable[[], State]
    origin: dict[str, Any] = dataclasses.field(default_factory=dict)
    step: Any = None
    flops: float | None = None
    peak: float | None = None
    seconds: float = 0.0
    score: Any = None

    @property
    def leaves(self) -> list[str]:
        """Paths of the parameters that have a gradient, in tree order."""
        trainable = split_state(self.abstract.params)[0]
        return [rules.leaf_path(path) for path, _ in jax.tree_util.tree_leaves_with_path(trainable)]

    def start(self) -> tuple[State, dict[str, Any]]:
        """The state of step 0, and what `train.init_from` gave."""
        placed = jax.tree.map(lambda x: x.sharding, self.abstract.params)
        state = warmstart.fitted(self.begin(), self.model, self.data, placed)
        return warmstart.start(state, self.train.init_from, placed)

    def last(self, saved: Checkpoints) -> tuple[State, dict[str, Any]]:
        """The state of the last checkpoint and its meta; that of step 0, and {}, where there is none."""
        if saved.latest() is None:
            state, self.origin = self.start()
            return state, {}
        state, meta = saved.restore(self.abstract)
        self.origin = meta.get("init_from", {})
        return state, meta

    def examples(self, index: int) -> np.ndarray:
        """Numbers of the examples of batch `index`, over all processes. One a row of the batch, [b]."""
        return batches.indices(self.train.seed, index, self.train.batch_size, self.data.size("train"))

    def batch(self, index: int) -> Mapping[str, Any]:
        """Batch `index` as `step` takes it: of several processes on its way to the devices, of one still the host's.

        The step's own call copies that, while the devices are at the step before: a put of its own takes the host half a millisecond.
        """
        size = self.train.batch_size
        rows = batches.batch(self.data, "train", self.train.seed, index, size, local_rows(self.mesh, size))
        return rows if hosts.count() == 1 else put_batch(self.mesh, rows)

    def compile(self, state: State, signals: guard.Signals) -> list[rules.Row]:
        """Compile the step ahead of time, so that it cannot be traced twice; returns the parameter table. A signal gives it up."""
        start = time.perf_counter()
        placed = jax.tree.map(lambda x: x.sharding, self.abstract)
        coupled = type(self.model).__name__ if self.model.batch_coupled else False
        jitted = compiling.compile_step(steps.make_step(self.model, self.train), self.mesh, placed, self.mode, coupled)
        self.score = jax.jit(
            compiling.on_mesh(self.mesh, steps.make_heldout(self.model, self.train)),
            in_shardings=(placed.params, batch_sharding(self.mesh), replicated(self.mesh)),
            out_shardings=replicated(self.mesh),
        )
        if not signals.requested:
            traced = jitted.trace(state, self.batch(int(state.step)))
            lowered, self.flops = traced.lower(), meter.count_flops(traced.jaxpr.jaxpr)
            # what debugs compiles for itself, again where it looks closer
            debug = jax.config.jax_debug_nans  # pyright: ignore[reportAttributeAccessIssue]
            self.step = guard.named_nans(jitted) if debug else guard.unless(signals, lowered.compile)
        self.seconds, self.peak = time.perf_counter() - start, meter.peak_flops(self.mesh)
        return rules.table(self.abstract.params, placed.params)

    def heldout(self, params: Any, count: int, signals: guard.Signals, clock: guard.Clock) -> dict[str, float]:
        """Mean loss and terms, as eval_*, over the last `count` batches of the test split (fewer where it is smaller); {} after a signal.

        Evaluations begin with the first: they see other examples than those that chose the best checkpoint.
        """
        size, rows = self.data.size("test"), self.train.batch_size
        rows = min(rows, max(size // batch_shards(self.mesh), 1) * batch_shards(self.mesh))
        sums: dict[str, float] = {}
        chosen = range(min(count, max(size // rows, 1)))
        for i in chosen:
            indices = (size - (i + 1) * rows + np.arange(rows)) % size
            args = params, put_batch(self.mesh, self.data.gather("test", indices[local_rows(self.mesh, rows)])), np.int32(i)
            if hasattr(self.score, "lower"):  # the first time
                self.score = guard.unless(signals, self.score.lower(*args).compile) or self.score
            guard.hear(signals, clock, at_once=True)
            if signals.requested:
                return {}
            scores = jax.device_get(self.score(*args))
            sums = {name: sums.get(name, 0.0) + float(value) / len(chosen) for name, value in scores.items()}
        return {f"eval_{name}": value for name, value in sums.items()}

    def facts(self, rows: Sequence[rules.Row]) -> dict[str, Any]:
        return {
            "parameters": int(sum(np.prod(row.shape, dtype=np.int64) for row in rows)),
            "compile_seconds": round(self.seconds, 3),
            "step_flops": self.flops,
            "peak_flops": self.peak,
            "init_from": self.origin,
        }


def prepare(
    model: Trainable, data: Source, train: TrainConfig, mesh: MeshConfig, saved: Checkpoints
) -> tuple[Engine, State, dict[str, Any]]:
    """The engine, and the state: of the latest checkpoint with its meta, or of step 0 where there is none."""
    devices = make_mesh(mesh)
    check_batch_size(devices, train.batch_size, train.accumulate)
    init = steps.make_init(model, train)
    abstract = ahead.abstract_state(init, devices, mesh.rules)
    placed = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    engine = Engine(model, data, train, devices, mesh.mode, abstract, jax.jit(init, out_shardings=placed))
    return engine, *engine.last(saved)
