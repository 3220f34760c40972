"""The suite `loop`: what training costs over its own compiled step.

Rounds of `fit` as a command runs it, without checkpoints or evaluation, alternate with rounds of the bare step on batches that are on the
device already; both see the numbers of a step while the next one runs. The host's work is timed beside them, piece by piece, while the
devices have nothing to do. The model is a causal transformer small enough that a step takes about 20 ms on two cores, where the host has no
cores of its own to work on. After so long its Python is no longer in the caches: the same pieces in a loop of their own take a quarter.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONFIG = {
    "data": {"name": "copy", "size": 4096, "test_size": 64},
    "model": {"name": "causal_transformer", "transformer": {"width": 64, "layers": 6, "heads": 4, "backend": "dense"}},
    "train": {"schedule": "constant"},  # else the number of steps would be in the program, and each round compile its own
    "log": {"eval_every": 0, "eval_batches": 1},
    "checkpoint": {"every": 10**9},
}
STEPS, BATCH, EDGE = 80, 16, 8  # of a round, of a step; steps at either end that are not timed


@dataclasses.dataclass(frozen=True)
class Stamped:
    """A source that notes wall and CPU time whenever a batch of the training split is gathered: once a step, by the loop itself."""

    source: Any
    stamps: list[tuple[float, float]] = dataclasses.field(default_factory=list)

    def gather(self, split: str, indices: Any) -> Any:
        if split == "train":
            self.stamps.append((time.perf_counter(), time.process_time()))
        return self.source.gather(split, indices)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def per_step(self) -> tuple[float, float]:
        """Wall and CPU seconds of a step, but for the first and last ones."""
        (wall, cpu), (wall_end, cpu_end) = self.stamps[-STEPS + EDGE], self.stamps[-EDGE]
        return (wall_end - wall) / (STEPS - 2 * EDGE), (cpu_end - cpu) / (STEPS - 2 * EDGE)


def loop(rounds: int, batch: int) -> dict[str, Any]:
    """Medians over `rounds` of a step in `fit`, of a bare one, and of their ratio, in wall and in CPU time (of all threads, which other
    programs disturb less); and the host's work, milliseconds a step, in wall time and in CPU time of its thread."""
    from causal_gen.build import build, train

    experiment = build({**CONFIG, "train": {**CONFIG["train"], "batch_size": batch, "steps": STEPS}})
    times: list[tuple[tuple[float, float], tuple[float, float]]] = []
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        bare, pieces, leaves = _prepared(experiment, Path(folder) / "pieces")
        for i in range(rounds + 1):
            alone, source = bare(), Stamped(experiment.data)
            train(dataclasses.replace(experiment, data=source), Path(folder) / str(i))  # type: ignore[arg-type]
            times.append((alone, source.per_step()))
    out: dict[str, Any] = {"batch": batch, "leaves": leaves, "rounds": rounds, "steps": STEPS - 2 * EDGE}
    for place, kind in enumerate(("", "cpu_")):
        alone, fitted = ([side[place] for side in column] for column in zip(*times[1:], strict=True))  # the first round warms up
        ratios = sorted(b / a for a, b in zip(alone, fitted, strict=True))
        out |= {f"bare_{kind}ms": _ms(statistics.median(alone)), f"loop_{kind}ms": _ms(statistics.median(fitted))}
        out |= {f"{kind}ratio": round(statistics.median(ratios), 3), f"{kind}ratios": [round(ratio, 3) for ratio in ratios]}
        out[f"host_{kind}ms"] = _ms(sum(value[place] for value in pieces.values()))
    return out | {f"host_{name}_ms": [_ms(value) for value in both] for name, both in pieces.items()}


def _ms(seconds: float) -> float:
    return round(1e3 * seconds, 3)


def _prepared(experiment: Any, workdir: Path) -> tuple[Any, dict[str, tuple[float, float]], int]:
    """A function that makes bare steps and gives the wall and CPU seconds of one; the same of the host's work by piece; and how many leaves
    a state has."""
    import jax

    from causal_gen.train.checkpoint import Checkpoints
    from causal_gen.train.goodput import Goodput
    from causal_gen.train.guard import Signals, check_workdir
    from causal_gen.train.loop import prepare
    from causal_gen.train.session import open_session

    times: dict[str, list[tuple[float, float]]] = {"gather": [], "dispatch": [], "read": [], "log": []}

    def timed(name: str, work: Callable[..., Any], *args: Any) -> Any:
        wall, cpu = time.perf_counter(), time.thread_time()
        made = work(*args)
        times[name].append((time.perf_counter() - wall, time.thread_time() - cpu))
        return jax.block_until_ready(made) if name in ("gather", "dispatch") else made  # alone on the machine, one after the other

    check_workdir(workdir, experiment.config)
    with contextlib.ExitStack() as stack:
        saved = stack.enter_context(Checkpoints(workdir / "checkpoints"))
        engine, state, meta = prepare(experiment.model, experiment.data, experiment.train, experiment.mesh, saved)
        run = open_session(
            stack, workdir, engine, state, meta, saved, Signals(), Goodput(workdir), experiment.log, experiment.config, ["benchmark"], None
        )
        for i in range(STEPS):
            batch = timed("gather", run.batch, i)
            state, metrics = timed("dispatch", run.step, i + 1, state, batch)
            found = timed("read", run.numbers.read, i + 1, metrics)
            timed("log", run.logger.step, i + 1, found)
        holder, batches = [state], [engine.batch(i) for i in range(4)]

    def bare() -> tuple[float, float]:
        late, stamps = None, []
        for i in range(STEPS):
            stamps.append((time.perf_counter(), time.process_time()))
            holder[0], metrics = engine.step(holder[0], batches[i % len(batches)])
            jax.block_until_ready(late)
            late = metrics
        jax.block_until_ready(holder[0])
        (wall, cpu), (wall_end, cpu_end) = stamps[EDGE], stamps[-EDGE]
        return (wall_end - wall) / (STEPS - 2 * EDGE), (cpu_end - cpu) / (STEPS - 2 * EDGE)

    medians = {name: tuple(statistics.median(column) for column in zip(*both, strict=True)) for name, both in times.items()}
    return bare, medians, len(jax.tree.leaves(state))  # type: ignore[return-value]
