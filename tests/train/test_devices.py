"""A run that goes on with another number of devices sees the batches and makes the losses that it would have had."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest

from causal_gen.parallel.mesh import MeshConfig, make_mesh
from causal_gen.train import loop
from causal_gen.train.checkpoint import CheckpointConfig
from causal_gen.train.log import LogConfig
from causal_gen.train.state import TrainConfig
from tests.train.toy import CONFIG, ToyModel, ToySource

SEEN: list[list[int]] = []
CHAIN = ((8, 4), (4, 9), (2, 14), (1, 19), (8, 24))  # devices, and the step at which they stop


@dataclasses.dataclass(frozen=True)
class Noted(ToySource):
    def gather(self, split, indices):
        if split == "train":
            SEEN.append(indices.tolist())
        return super().gather(split, indices)


@pytest.fixture
def go_on(monkeypatch):
    """go_on(workdir, devices, steps) -> the examples of the batches that were gathered, on the first devices alone."""

    def train(workdir, devices, steps):
        SEEN.clear()
        monkeypatch.setattr(loop, "make_mesh", lambda config: make_mesh(config, jax.devices()[:devices]))
        loop.fit(
            ToyModel(width=1024),
            Noted(),
            workdir,
            train=TrainConfig(steps=steps, batch_size=16, warmup_steps=3, learning_rate=1e-3, schedule="constant"),
            mesh=MeshConfig(data=1, fsdp=-1),  # from 1,024 on the first kernel is cut over all devices
            checkpoint=CheckpointConfig(every=100),
            log=LogConfig(every=1, eval_every=0, eval_batches=1, tensorboard=False),
            config=CONFIG,
        )
        return list(SEEN)

    return train


def losses(workdir):
    return [json.loads(line)["loss"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_eight_devices_then_four_two_one_and_eight_again_are_one_run(tmp_path, go_on):
    last = CHAIN[-1][1]
    whole = go_on(tmp_path / "whole", 8, last)[1:]  # the first is the compiler's
    first = 0
    for devices, step in CHAIN:
        assert go_on(tmp_path / "chain", devices, step) == [whole[first], *whole[first : step + 1]], f"batches on {devices} devices"
        first = step
    np.testing.assert_allclose(losses(tmp_path / "chain"), losses(tmp_path / "whole"), atol=2e-5, rtol=0)
    assert len(losses(tmp_path / "chain")) == last and np.ptp(losses(tmp_path / "chain")) > 1e-3  # they are numbers that move
