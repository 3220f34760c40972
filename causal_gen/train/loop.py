"""Training, as an order of things.

`fit` prepares (mesh, state or checkpoint, compiled step) and then repeats: dispatch a step, put the next batch on the device, look
at the numbers of the step before. The host never waits for a step that it has just dispatched, except where something is due:
held-out loss, checkpoint, pictures.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from causal_gen.data import batches
from causal_gen.data.base import Source
from causal_gen.models.base import Model
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
from causal_gen.train import guard, meter, warmstart
from causal_gen.train import step as steps
from causal_gen.train.checkpoint import CheckpointConfig, Checkpoints
from causal_gen.train.log import LogConfig, Logger, format_table, write_json
from causal_gen.train.state import Run, State, TrainConfig

Pictures = Callable[[Any, int], Mapping[str, np.ndarray]]


def fit(
    model: Model,
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
) -> Run:
    """Train, or go on where `workdir` left off; returns a Run, `interrupted` if SIGINT or SIGTERM ended it after saving.

    `config` is the complete JSON-able config, written to the workdir and into every checkpoint. `pictures(params, step)` gives
    {name: u8 [h, w, 3]}. Raises UserErrors of one line: WorkdirError for a workdir of another run, ConfigError for a mesh or batch that
    does not fit, CheckpointError, and NonFiniteError (nothing of that step is saved).
    """
    workdir = Path(workdir)
    guard.check_workdir(workdir, config)
    with guard.Signals() as signals, Checkpoints(workdir / "checkpoints", checkpoint) as saved:
        engine, state, meta = prepare(model, data, train, mesh, saved)
        clock = guard.Clock(train.time_limit, float(meta.get("seconds", 0.0)))
        graph = {"nodes": model.graph.nodes, "edges": model.graph.edges}
        meta = {"config": dict(config), "graph": graph, "init_from": engine.origin}
        with _opened(workdir, engine, state, log, config, argv) as logger:
            done, pending, stop = int(state.step), None, clock.used_up
            batch = engine.batch(done)
            guard.hear(signals, clock)
            while done < train.steps and not stop:
                if state.pace is not None:
                    state = dataclasses.replace(state, pace=np.float32(clock.pace))
                state, metrics = engine.step(state, batch)
                done += 1
                batch = engine.batch(done)
                if pending is not None:
                    logger.step(*_checked(*pending))
                pending = (done, metrics)
                guard.hear(signals, clock)
                stop = signals.requested or clock.over or done == train.steps
                due = _due(done, stop, signals.requested, checkpoint, log)
                if not any(due):
                    continue
                finished, pending = _checked(*pending), None  # a state that is not finite is never evaluated, drawn or saved
                save, look, draw = due
                with logger.aside():
                    scores = engine.heldout(state.best_params, log.eval_batches) if look else {}
                    if save:
                        saved.save(done, state, {**meta, "seconds": clock.spent}, scores.get("eval_loss"))
                    if draw and pictures is not None:
                        hosts.once(_draw, logger, pictures, done, hosts.gather(state.best_params))
                logger.step(*finished, extra=scores)
            saved.wait()
            hosts.barrier(f"saved step {done}")
            if signals.requested:
                logger.say(f"stopped at step {done} and saved; run the same command again to go on")
            elif stop and done < train.steps:
                logger.say(f"train.time_limit={train.time_limit:g} s is spent, at step {done} of {train.steps}; raise it to go on")
    return Run(model, state.best_params, dict(config), done, data, workdir, interrupted=signals.requested)


def _due(done: int, stop: bool, interrupted: bool, checkpoint: CheckpointConfig, log: LogConfig) -> tuple[bool, bool, bool]:
    """Whether to save, to look at the held-out loss, to draw. The last step does all three, an interrupted one only saves."""
    save = stop or done % checkpoint.every == 0
    look = not interrupted and (save or (log.eval_every > 0 and done % log.eval_every == 0))  # the best checkpoint is found by its look
    draw = not interrupted and log.pictures_every > 0 and (stop or done % log.pictures_every == 0)
    return save, look, draw


def _draw(logger: Logger, pictures: Pictures, step: int, params: Any) -> None:
    logger.pictures(step, pictures(params, step))


def _opened(workdir: Path, engine: Engine, state: State, log: LogConfig, config: Mapping[str, Any], argv: Sequence[str]) -> Logger:
    """Compile, write what describes the run, and open its log with the parameter table."""
    rows, first = engine.compile(state), int(state.step)
    hosts.barrier("compiled")
    if hosts.first():
        write_json(workdir / "config.json", config)
        write_json(workdir / "metadata.json", meter.describe(engine.mesh, list(argv)) | engine.facts(rows) | {"resumed_from": first})
    total, size = engine.train.steps, engine.train.batch_size
    logger = Logger(workdir, log, total=total, first=first, batch_size=size, flops=engine.flops, peak=engine.peak, quiet=not hosts.first())
    logger.say(format_table(rows))
    return logger


def _checked(step: int, metrics: Mapping[str, Any]) -> tuple[int, dict[str, float]]:
    numbers = {name: float(value) for name, value in jax.device_get(dict(metrics)).items()}
    guard.check_finite(step, numbers)
    return step, numbers


@dataclasses.dataclass
class Engine:
    """The pieces of a run that depend on the mesh, made by `prepare`; `origin` says what `train.init_from` gave; `compile` fills the last
    five."""

    model: Model
    data: Source
    train: TrainConfig
    mesh: jax.sharding.Mesh
    mode: str
    abstract: State
    origin: dict[str, Any] = dataclasses.field(default_factory=dict)
    step: Any = None
    flops: float | None = None
    peak: float | None = None
    seconds: float = 0.0
    score: Any = None

    def batch(self, index: int) -> dict[str, jax.Array]:
        """Batch `index` on its way to the devices."""
        size = self.train.batch_size
        return put_batch(self.mesh, batches.batch(self.data, "train", self.train.seed, index, size, local_rows(self.mesh, size)))

    def compile(self, state: State) -> list[rules.Row]:
        """Compile the step ahead of time, so that it cannot be traced twice; returns the parameter table."""
        start = time.perf_counter()
        placed = jax.tree.map(lambda x: x.sharding, self.abstract)
        jitted = compiling.compile_step(steps.make_step(self.model, self.train), self.mesh, placed, self.mode, self.model.batch_coupled)
        traced = jitted.trace(state, self.batch(int(state.step)))
        self.step, self.flops = traced.lower().compile(), meter.count_flops(traced.jaxpr.jaxpr)
        self.seconds, self.peak = time.perf_counter() - start, meter.peak_flops(self.mesh)
        self.score = jax.jit(
            steps.make_heldout(self.model, self.train),
            in_shardings=(placed.params, batch_sharding(self.mesh), replicated(self.mesh)),
            out_shardings=replicated(self.mesh),
        )
        return rules.table(self.abstract.params, placed.params)

    def heldout(self, params: Any, count: int) -> dict[str, float]:
        """Mean loss and terms, as eval_*, over the last `count` batches of the test split (fewer where it is smaller).

        Evaluations begin with the first: they see other examples than those that chose the best checkpoint.
        """
        size, rows = self.data.size("test"), self.train.batch_size
        rows = min(rows, max(size // batch_shards(self.mesh), 1) * batch_shards(self.mesh))
        sums: dict[str, float] = {}
        chosen = range(min(count, max(size // rows, 1)))
        for i in chosen:
            indices = (size - (i + 1) * rows + np.arange(rows)) % size
            local = indices[local_rows(self.mesh, rows)]
            scores = jax.device_get(self.score(params, put_batch(self.mesh, self.data.gather("test", local)), np.int32(i)))
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


def prepare(model: Model, data: Source, train: TrainConfig, mesh: MeshConfig, saved: Checkpoints) -> tuple[Engine, State, dict[str, Any]]:
    """The engine, and the state: of the latest checkpoint with its meta, or of step 0 where there is none."""
    devices = make_mesh(mesh)
    check_batch_size(devices, train.batch_size, train.accumulate)
    init = steps.make_init(model, train)
    shapes = jax.eval_shape(init)
    placed = rules.shardings(shapes, devices)
    abstract = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, placed)
    engine = Engine(model, data, train, devices, mesh.mode, abstract)
    if saved.latest() is not None:
        state, meta = saved.restore(abstract)
        engine.origin = meta.get("init_from", {})
        return engine, state, meta
    state, engine.origin = warmstart.start(jax.jit(init, out_shardings=placed)(), train.init_from, placed.params)
    return engine, state, {}
