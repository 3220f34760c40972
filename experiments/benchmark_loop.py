"""The suite `loop`: what training costs over its own compiled step.

Rounds of `fit` as a command runs it, without checkpoints or evaluation, alternate with rounds of the bare step on batches that are
on the device already; both see the numbers of a step while the next one runs. The host's work is timed beside them, piece by piece, while the
devices have nothing to do. The model is a causal transformer small enough that a step takes about 20 ms on two cores, where the host
has no cores of its own to work on.
"""

from __future__ import annotations

import contextlib
import io
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

CONFIG = {
    "data": {"name": "copy", "size": 4096, "test_size": 64},
    "model": {"name": "causal_transformer", "transformer": {"width": 64, "layers": 6, "heads": 4, "backend": "dense"}},
    "train": {"schedule": "constant"},  # else the number of steps would be in the program, and each round compile its own
    "log": {"eval_every": 0, "eval_batches": 1},
    "checkpoint": {"every": 10**9},
}
STEPS, BATCH = 100, 16  # of a round, of a step


def loop(rounds: int, batch: int) -> dict[str, Any]:
    """Median over `rounds` of the step in `fit`, of the bare one, and of their ratio; and of the host's work, milliseconds a step."""
    from causal_gen.build import build

    experiment = build({**CONFIG, "train": {**CONFIG["train"], "batch_size": batch, "steps": STEPS}})
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        bare, pieces, leaves = _prepared(experiment, Path(folder) / "pieces")
        times = [(bare(), _fitted(experiment, Path(folder) / str(i))) for i in range(rounds + 1)][1:]  # the first one warms up
    alone, fitted = (statistics.median(column) for column in zip(*times, strict=True))
    ratios = sorted(fit / one for one, fit in times)
    return {
        "batch": batch, "leaves": leaves, "rounds": rounds, "steps": STEPS, "bare_ms": _ms(alone), "loop_ms": _ms(fitted),
        "ratio": round(statistics.median(ratios), 3), "ratio_best": round(ratios[0], 3), "ratio_worst": round(ratios[-1], 3),
        "host_ms": _ms(sum(pieces.values())), **{f"host_{name}_ms": _ms(value) for name, value in pieces.items()},
    }  # fmt: skip


def _ms(seconds: float) -> float:
    return round(1e3 * seconds, 3)


def _fitted(experiment: Any, workdir: Path) -> float:
    """Seconds a step of a run of STEPS, those that goodput.json counts for steps and their data."""
    from causal_gen.build import train

    train(experiment, workdir)
    seconds = json.loads((workdir / "goodput.json").read_text())["seconds"]
    return (seconds["step"] + seconds["data"]) / STEPS


def _prepared(experiment: Any, workdir: Path) -> tuple[Any, dict[str, float], int]:
    """A function that makes STEPS bare steps and gives the seconds of one, the host's work by piece, and the number of leaves."""
    import jax

    from causal_gen.train.checkpoint import Checkpoints
    from causal_gen.train.goodput import Goodput
    from causal_gen.train.guard import Signals, check_workdir
    from causal_gen.train.loop import prepare
    from causal_gen.train.session import open_session

    check_workdir(workdir, experiment.config)
    with contextlib.ExitStack() as stack:
        saved = stack.enter_context(Checkpoints(workdir / "checkpoints"))
        engine, state, meta = prepare(experiment.model, experiment.data, experiment.train, experiment.mesh, saved)
        goodput = Goodput(workdir)
        run = open_session(
            stack, workdir, engine, state, meta, saved, Signals(), goodput, experiment.log, experiment.config, ["benchmark"], None
        )
        names = ("gather_put", "dispatch", "read", "log")
        times: dict[str, list[float]] = {name: [] for name in names}
        for i in range(STEPS):
            marks = [time.perf_counter()]
            batch = run.batch(i)
            marks.append(time.perf_counter())
            jax.block_until_ready((state, batch))
            marks.append(time.perf_counter())
            state, metrics = run.step(i + 1, state, batch)
            marks.append(time.perf_counter())
            jax.block_until_ready((state, metrics))
            marks.append(time.perf_counter())
            found = run.numbers.read(i + 1, metrics)
            marks.append(time.perf_counter())
            run.logger.step(i + 1, found or {})
            marks.append(time.perf_counter())
            for name, place in zip(names, (0, 2, 4, 5), strict=True):
                times[name].append(marks[place + 1] - marks[place])
        holder, batches = [state], [engine.batch(i) for i in range(4)]

    def bare() -> float:
        start, late = time.perf_counter(), None
        for i in range(STEPS):
            holder[0], metrics = engine.step(holder[0], batches[i % len(batches)])
            jax.device_get(late)
            late = metrics
        jax.block_until_ready(holder[0])
        return (time.perf_counter() - start) / STEPS

    return bare, {name: statistics.median(values) for name, values in times.items()}, len(jax.tree.leaves(state))
