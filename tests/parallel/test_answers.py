"""What is asked of a trained run on a mesh of eight devices is what one device answers, from parameters that never lie whole on any."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import numpy as np
import pytest

import causal_gen as cg
from causal_gen import build
from causal_gen.evaluate import batched
from causal_gen.parallel import mesh
from causal_gen.parallel.mesh import MeshConfig
from causal_gen.scm.counterfactual import abduct

KEY = jax.random.key(3)
MESHES = {"tensor": MeshConfig(data=2, fsdp=2, tensor=2), "sequence": MeshConfig(data=1, fsdp=2, tensor=2, sequence=2)}
on_meshes = pytest.mark.parametrize("config", MESHES.values(), ids=MESHES)
EVERY = ["data", "fsdp", "tensor", "sequence"]


def trained(path: str, workdir: Any, **overrides: Any) -> Any:
    """A workdir after two steps on eight devices that are all replicas."""
    config = cg.load_config(path, {"train.steps": 2, "log.eval_every": 0, **{name.replace("__", "."): v for name, v in overrides.items()}})
    cg.train(cg.build(config), workdir)
    return workdir


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = "configs/causal_transformer/text.py:tiny"
    return trained(path, tmp_path_factory.mktemp("runs") / "text", model__transformer__backend="ring")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return trained("configs/diffusion_ae/pendulum.py:tiny", tmp_path_factory.mktemp("runs") / "scenes")


def spread_and_alone(workdir: Any, config: MeshConfig) -> tuple[Any, Any]:
    """The run with its parameters in shards, and with the same on the first device alone."""
    run = cg.restore(workdir, {f"mesh.{name}": getattr(config, name) for name in EVERY})
    leaves = jax.tree.leaves(run.params)
    assert all(dict(leaf.sharding.mesh.shape) == config.sizes for leaf in leaves)
    assert any(not leaf.sharding.is_fully_replicated for leaf in leaves)
    return run, dataclasses.replace(run, params=jax.device_put(jax.device_get(run.params), jax.devices()[0]))


def both(ask: Any, *runs: Any) -> list[Any]:
    found = []
    for run in runs:
        with mesh.current(run.params):
            found.append(ask(run))
    return found


def check_tokens(run: Any, noise: Any, one: np.ndarray, other: np.ndarray) -> None:
    """Rows are equal, or part where the two best tokens are nearly tied."""
    logits = jax.jit(lambda tokens: run.model.conditionals(run.params, {"tokens": tokens})["tokens"].logits)(one)
    scores = np.asarray(logits + noise["tokens"])
    for row in np.flatnonzero((one != other).any(1)):
        place = int(np.argmax(one[row] != other[row]))
        best = np.sort(scores[row, place])[-2:]
        assert best[1] - best[0] < 1e-4, f"row {row} parts at {place}, where the gap is {best[1] - best[0]}"


@on_meshes
def test_texts_are_drawn_and_asked_about_as_on_one_device(text, config):
    runs = spread_and_alone(text, config)
    act = cg.do(tokens={5: 17})
    drawn = both(lambda run: batched.draws(run.model, run.params, KEY, 8, [None, act]), *runs)
    noise = runs[1].model.noise(jax.random.fold_in(KEY, 0), 8)
    check_tokens(runs[1], noise, *(cells[0]["tokens"] for cells in drawn))
    evidence = runs[0].data.gather("test", np.arange(8))
    asked = both(lambda run: batched.answers(run.model, run.params, KEY, evidence, [None, act]), *runs)
    for cells in asked:
        np.testing.assert_array_equal(cells[0]["tokens"], evidence["tokens"])
        assert (cells[1]["tokens"][:, 5] == 17).all()
    noise = abduct(runs[1].model, runs[1].params, jax.random.fold_in(KEY, 0), evidence)
    moved = [cells[1]["tokens"] for cells in asked]
    check_tokens(runs[1], noise, *moved)
    assert (moved[0] != evidence["tokens"])[:, 6:].any()


@on_meshes
def test_texts_are_evaluated_as_on_one_device(text, config):
    found = [numbers(build.evaluate(run, 0, lambda line: None)) for run in spread_and_alone(text, config)]
    assert found[0].keys() == found[1].keys() and any("nats_per_token" in name for name in found[0])
    for name, value in found[1].items():
        assert found[0][name] == pytest.approx(value, abs=1e-4), name


def test_rows_are_split_where_they_divide_and_answers_are_the_same_where_they_do_not(text):
    run, alone = spread_and_alone(text, MESHES["tensor"])
    evidence = {name: value[:3] for name, value in run.data.gather("test", np.arange(3)).items()}
    one, other = both(lambda run: batched.answers(run.model, run.params, KEY, evidence, [None])[0]["tokens"], run, alone)
    np.testing.assert_array_equal(one, other)
    with mesh.current(run.params):
        noise = abduct(run.model, run.params, KEY, mesh.spread(dict(run.data.gather("test", np.arange(8)))))
    assert noise["tokens"].sharding.shard_shape(noise["tokens"].shape)[0] == 2, "four shards of eight rows"


@pytest.mark.slow
@on_meshes
def test_scenes_are_abducted_and_predicted_as_on_one_device(scenes, config):
    runs = spread_and_alone(scenes, config)
    evidence = runs[0].data.gather("test", np.arange(8))

    def ask(run: Any) -> Any:
        asking = batched.Batched(run.model, run.params, 8)
        noise = asking.abduct(KEY, evidence)
        return noise, asking.predict(noise), asking.predict(noise, cg.do(angle=20.0)), asking.predict(run.model.noise(KEY, 8))

    one, other = both(ask, *runs)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def numbers(tree: Any, path: str = "") -> dict[str, float]:
    """All numbers of a JSON but for times."""
    if isinstance(tree, dict):
        return {name: value for key, part in tree.items() if key != "seconds" for name, value in numbers(part, f"{path}/{key}").items()}
    if isinstance(tree, list):
        return {name: value for i, part in enumerate(tree) for name, value in numbers(part, f"{path}/{i}").items()}
    return {path: float(tree)} if isinstance(tree, (int, float)) and math.isfinite(tree) else {}
