"""Whole models on every kind of mesh give the losses of one device, with no word about it in their configs."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
import pytest

import causal_gen as cg
from causal_gen.data import batches
from causal_gen.parallel import rules
from causal_gen.parallel.compile import compile_step
from causal_gen.parallel.mesh import MeshConfig, make_mesh, put_batch
from causal_gen.train import guard, loop
from causal_gen.train.checkpoint import Checkpoints
from causal_gen.train.state import TrainConfig
from causal_gen.train.step import make_init, make_step
from causal_gen.types import ConfigError
from tests.train.toy import ToyModel, ToySource

TEXT, SCENES = "configs/causal_transformer/text.py:tiny", "configs/diffusion_ae/pendulum.py:tiny"
MESHES = {
    "data": MeshConfig(data=8),
    "fsdp": MeshConfig(data=1, fsdp=8),
    "tensor": MeshConfig(data=2, fsdp=2, tensor=2),
    "sequence": MeshConfig(data=1, fsdp=2, tensor=2, sequence=2),
    "slices": MeshConfig(slices=2, data=2, tensor=2),
}


@functools.cache
def built(path: str, **overrides: Any) -> Any:
    return cg.build(cg.load_config(path, {name.replace("__", "."): value for name, value in overrides.items()}))


def run(experiment: Any, config: MeshConfig, devices: Any = None, steps: int = 5) -> tuple[list[float], Any, Any]:
    """Losses, the last state and its mesh."""
    mesh = make_mesh(config, devices)
    init, step = make_init(experiment.model, experiment.train), make_step(experiment.model, experiment.train)
    placed = rules.shardings(jax.eval_shape(init), mesh, config.rules)
    state = jax.jit(init, out_shardings=placed)()
    compiled = compile_step(step, mesh, placed, config.mode, experiment.model.batch_coupled)
    found = []
    for index in range(steps):
        state, metrics = compiled(state, put_batch(mesh, batches.batch(experiment.data, "train", 0, index, 8)))
        found.append(float(metrics["loss"]))
    return found, state, mesh


@functools.cache
def alone(path: str, **overrides: Any) -> list[float]:
    return run(built(path, **overrides), MeshConfig(), jax.devices()[:1])[0]


def split_over(state: Any, axis: str) -> set[str]:
    """Parameters that are split over an axis of the mesh; their moments and averages must lie as they do."""
    params = jax.tree_util.tree_leaves_with_path(state.params)
    found = {rules.leaf_path(path): leaf.sharding for path, leaf in params}
    for path, leaf in jax.tree_util.tree_leaves_with_path((state.ema, state.opt)):
        for name, sharding in found.items():
            if rules.leaf_path(path).endswith("/" + name) and leaf.ndim:
                assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim), rules.leaf_path(path)
    return {name for name, sharding in found.items() if axis in jax.tree.leaves(tuple(sharding.spec))}


@pytest.mark.parametrize("name", MESHES)
def test_a_transformer_trains_on_any_mesh_as_on_one_device(name):
    how = {"model__transformer__width": 64}  # wide enough for fsdp to split its matrices
    losses, state, mesh = run(built(TEXT, **how), MESHES[name])
    np.testing.assert_allclose(losses, alone(TEXT, **how), atol=2e-5)
    assert losses[-1] < losses[0]
    if mesh.shape["fsdp"] > 1:
        assert "decoder/blocks/mlp/in/kernel" in split_over(state, "fsdp")
    if mesh.shape["tensor"] > 1:
        kernels = {f"decoder/blocks/{name}/kernel" for name in ("attention/qkv", "attention/out", "mlp/in", "mlp/out")}
        assert kernels | {"embed"} <= split_over(state, "tensor")


@pytest.mark.parametrize("name", ["tensor", *(pytest.param(name, marks=pytest.mark.slow) for name in ("data", "fsdp", "sequence"))])
def test_a_diffusion_autoencoder_trains_on_any_mesh_as_on_one_device(name):
    losses, state, mesh = run(built(SCENES), MESHES[name])
    np.testing.assert_allclose(losses, alone(SCENES), atol=2e-5)
    if mesh.shape["fsdp"] > 1:
        assert "unet/canvas/w_out" in split_over(state, "fsdp")
    if mesh.shape["tensor"] > 1:
        assert {"unet/middle_attention/qkv/kernel", "unet/up_1_0/conv_in/kernel"} <= split_over(state, "tensor")


@pytest.mark.parametrize("backend", ["ring", "dense"])
@pytest.mark.parametrize("scan", [False, True])
def test_positions_are_split_whatever_the_backend_and_the_losses_stay(backend, scan):
    """A ring moves keys round; for the others XLA gathers them. Layers scanned and written out."""
    how = {"model__transformer__scan": scan, "model__visibility": "causal() & same('document')"}
    losses, _, _ = run(built(TEXT, **how, model__transformer__backend=backend), MESHES["sequence"])
    np.testing.assert_allclose(losses, alone(TEXT, **how), atol=2e-5)


def test_activations_of_a_ring_lie_by_position():
    """Of a step on two devices along positions: keys are permuted, and the residual stream [b, t, d] is held by halves."""
    experiment, mesh = built(TEXT, model__transformer__backend="ring"), make_mesh(MeshConfig(data=1, sequence=2), jax.devices()[:2])
    init, step = make_init(experiment.model, experiment.train), make_step(experiment.model, experiment.train)
    state = jax.eval_shape(init)
    placed = rules.shardings(state, mesh)
    batch = put_batch(mesh, batches.batch(experiment.data, "train", 0, 0, 8))
    text = compile_step(step, mesh, placed).lower(state, batch).compile().as_text()
    assert "collective-permute" in text and "f32[8,8,16]" in text


def test_pmap_mode_trains_a_transformer_as_jit_does():
    losses, _, _ = run(built(TEXT), MeshConfig(mode="pmap"))
    np.testing.assert_allclose(losses, run(built(TEXT), MESHES["data"])[0], atol=2e-5)


def test_pmap_mode_refuses_a_model_whose_loss_mixes_examples_by_its_name(tmp_path):
    """By the engine, before anything is compiled."""
    with Checkpoints(tmp_path) as saved:
        engine, state, _ = loop.prepare(ToyModel(batch_coupled=True), ToySource(), TrainConfig(), MeshConfig(mode="pmap"), saved)
        with pytest.raises(ConfigError, match="ToyModel mixes examples.*mesh.mode=jit"):
            engine.compile(state, guard.Signals())
