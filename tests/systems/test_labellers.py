"""What the papers behind the labellers and the embedder of configs/causal_transformer claim exactly, on tiny modes."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.build import Experiment, build, load_config
from causal_gen.structure.masks import causal, full

HERE = "configs/causal_transformer"
SETTINGS = ["".join(digits) for digits in itertools.product("01", repeat=4)]


@functools.cache
def system(name: str, mode: str = "tiny", **changes: Any) -> tuple[Experiment, Any]:
    """A config, changed, and parameters off their start."""
    experiment = build(load_config(f"{HERE}/{name}.py:{mode}", {key.replace("__", "."): value for key, value in changes.items()}))
    leaves, tree = jax.tree.flatten(jax.jit(experiment.model.init)(jax.random.key(0)))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return experiment, jax.tree.unflatten(tree, [p + 0.3 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)])


@functools.partial(jax.jit, static_argnums=0)
def logits(model: Any, params: Any, batch: Any) -> jax.Array:
    return next(iter(model.conditionals(params, batch).values())).logits


# -- layer-wise masks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_of_the_layers_masks_is_one_mode_of_one_config(setting):
    model = build(load_config(f"{HERE}/layer_masks.py:{setting}", {"data.size": 8, "data.test_size": 8})).model
    want = [(full() if digit == "1" else causal()).show(3) for digit in setting]
    assert [model.config.seen.show(3, layer=layer) for layer in range(4)] == want
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    batch = {"tokens": jax.ShapeDtypeStruct((2, model.encoding.length), jnp.int32)}
    assert jax.eval_shape(model.conditionals, shapes, batch)["labels"].logits.shape == (2, model.encoding.length, 5)


@pytest.mark.parametrize(("visibility", "sees"), [("causal()", False), ("per_layer(causal(), causal(), causal(), full())", True)])
def test_a_label_knows_of_a_later_token_where_one_layer_is_unmasked_and_not_otherwise(visibility, sees):
    experiment, params = system("layer_masks", model__visibility=visibility)
    model = experiment.model
    batch = experiment.data.gather("test", np.arange(4))
    last = np.arange(batch["tokens"].shape[1]) == batch["tokens"].shape[1] - 1
    other = {**batch, "tokens": np.where(last, (batch["tokens"] + 1) % 8, batch["tokens"])}
    moved = np.asarray(logits(model, params, batch) != logits(model, params, other)).any(-1)
    assert moved[:, -1].all() and (moved[:, :-1] == sees).all()


# -- LS-unLLaMA ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["", ":masked"])
def test_less_than_five_percent_of_the_parameters_are_trained(mode):
    model = build(load_config(f"{HERE}/ls_unllama.py{mode}", {"data.size": 8, "data.test_size": 8})).model
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    count = {name: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree)) for name, tree in shapes.items()}
    (frozen, group), *_ = model.groups().items()
    assert group.frozen and frozen == "^(embed|decoder)" and set(count) == {"embed", "decoder", "adapters", "head"}
    assert 0 < (count["adapters"] + count["head"]) / sum(count.values()) < 0.05


# -- iLLaMA ----------------------------------------------------------------------------------------------------------------------


def test_the_mask_ends_as_the_causal_one_exactly():
    soft, params = system("illama")
    hard, _ = system("illama", model__visibility="causal()", model__mask_schedule__finish=0)
    batch = soft.data.gather("test", np.arange(8))
    np.testing.assert_array_equal(logits(soft.model, params, batch), logits(hard.model, params, batch))


@pytest.mark.parametrize(("slot", "sees"), [("first", False), ("last", True)])
def test_a_class_token_before_the_image_sees_nothing_of_it_under_a_causal_mask(slot, sees):
    experiment, params = system("illama", model__slot=slot)
    model, batch = experiment.model, experiment.data.gather("test", np.arange(4))
    slope = jax.jit(jax.grad(lambda x: logits(model, params, {**batch, "patches": x}).sum()))(jnp.asarray(batch["patches"]))
    assert (np.abs(np.asarray(slope)) > 0).any((0, 2)).all() == np.any(slope) == sees


# -- Conan -----------------------------------------------------------------------------------------------------------------------


def test_the_mask_is_causal_at_first_and_full_from_the_end_of_its_schedule_on():
    experiment, params = system("conan")
    batch = experiment.data.gather("train", np.arange(8))

    def loss(model, step):
        return jax.jit(lambda: model.loss(params, jax.random.key(0), batch, step=jnp.int32(step), train=True)[0])()

    for step, visibility in ((0, "causal()"), (3, "full()"), (4, "full()")):
        hard, _ = system("conan", model__visibility=visibility, model__mask_schedule__finish=0)
        np.testing.assert_array_equal(loss(experiment.model, step), loss(hard.model, 0))
    assert (loss(experiment.model, 1) != loss(experiment.model, 3)).any()
