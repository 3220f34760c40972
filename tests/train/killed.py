"""A tiny run that a test kills: `python -m tests.train.killed WORKDIR STEPS` trains, or goes on, and prints "done" when it is finished."""

from __future__ import annotations

import sys
from pathlib import Path

from causal_gen.parallel.compile import enable_compile_cache
from causal_gen.parallel.mesh import MeshConfig
from causal_gen.train.checkpoint import CheckpointConfig
from causal_gen.train.log import LogConfig
from causal_gen.train.loop import fit
from causal_gen.train.state import Run, TrainConfig
from tests.train.toy import CONFIG, ToyModel, ToySource

WIDTH = 4096


def config(steps: int) -> TrainConfig:
    return TrainConfig(steps=steps, batch_size=16, warmup_steps=3, learning_rate=1e-2)


def train(workdir: Path, steps: int) -> Run:
    """A checkpoint of about 400 kB every third step, so that a good part of the time is spent inside of saves."""
    settings = {
        "mesh": MeshConfig(),
        "checkpoint": CheckpointConfig(every=3, keep_latest=2, keep_best=1),
        "log": LogConfig(every=10, eval_every=0, eval_batches=1, tensorboard=False),
        "config": CONFIG,
    }
    return fit(ToyModel(width=WIDTH), ToySource(), workdir, train=config(steps), **settings)


if __name__ == "__main__":
    enable_compile_cache()
    train(Path(sys.argv[1]), int(sys.argv[2]))
    print("done")
