"""A generator and an encoder under a structural prior: who learns from what, and what an intervention moves."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from configs_at_hand import tiny

import causal_gen as cg
from causal_gen.scm.counterfactual import abduct, predict
from causal_gen.types import ConfigError

PATH = "configs/bidirectional/dear.py"
KEY = jax.random.key(0)
# which parameters each part of the loss may move; the slope's penalty belongs to the critic
LEARNERS = {
    "critic": {"critic"},
    "slope": {"critic"},
    "generator": {"generator", "mechanisms"},
    "encoder": {"encoder"},
    "supervised": {"encoder"},
}


def perturbed() -> Any:
    """Parameters off their start, where the mechanisms are zero."""
    leaves, tree = jax.tree.flatten(tiny(PATH).model.init(KEY))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [leaf + 0.05 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, moved)


def batch(split: str = "test") -> dict[str, Any]:
    return {name: jnp.asarray(value) for name, value in tiny(PATH).data.gather(split, np.arange(8)).items()}


def loss(params: Any, rows: Any) -> Any:
    return tiny(PATH).model.loss(params, KEY, rows, step=jnp.int32(0), train=True)


@pytest.mark.parametrize("term", LEARNERS)
def test_each_part_of_the_loss_moves_its_own_player(term):
    """Exactly zero gradients elsewhere: a critic that the generator could talk round would judge nothing."""
    found = jax.jit(jax.grad(lambda params: loss(params, batch())[1].terms[term].sum()))(perturbed())
    moved = {name for name, tree in found.items() if any(np.any(leaf) for leaf in jax.tree.leaves(tree))}
    assert moved == LEARNERS[term]


def test_the_generators_gradient_is_that_of_the_divergence_for_a_critic_at_its_best():
    """With D = log q - log p the gradient of KL(q | p) is E_p of -exp(D) times that of D at what is drawn: here the loss's own weights.

    The ratio within its clip weighs each draw; outside of it the clip does.
    """
    model, params, rows = tiny(PATH).model, perturbed(), batch()
    for scale in (0.0, 3.0):  # of the critic: a ratio of one, and ratios beyond the clip
        judge = jax.tree.map(lambda leaf, scale=scale: scale * leaf, params["critic"])
        told = {**params, "critic": judge}
        made, drawn = model._pair(told, model.noise(jax.random.split(KEY)[1], 8))
        score = model._judge(told, made, drawn)
        weight = np.clip(np.exp(np.asarray(score)), 0.5, 2.0)
        np.testing.assert_allclose(loss(told, rows)[1].terms["generator"], -weight * score, rtol=1e-5, atol=1e-6)
        own = jax.grad(lambda generator, told=told: loss({**told, "generator": generator}, rows)[1].terms["generator"].sum())(
            told["generator"]
        )

        def weighed(generator: Any, told: Any = told, weight: Any = weight) -> Any:
            made, drawn = model._pair({**told, "generator": generator}, model.noise(jax.random.split(KEY)[1], 8))
            return -(weight * model._judge(told, made, drawn)).sum()

        chex.assert_trees_all_close(own, jax.grad(weighed)(told["generator"]), rtol=1e-4, atol=1e-6)


def test_rows_without_labels_tell_nothing_of_the_factors():
    """Other numbers in the place of a withheld label change nothing; in the place of a given one they do."""
    params, rows = perturbed(), batch()
    masked = {**rows, "label_mask": jnp.arange(8) < 4}
    other = {**masked, "light": masked["light"] + 30.0}
    one, two = loss(params, masked)[0], loss(params, other)[0]
    np.testing.assert_array_equal(np.asarray(one) == np.asarray(two), np.arange(8) >= 4)
    bare = loss(params, {"image": rows["image"]})[1].terms["supervised"]
    assert not np.any(bare)


def test_an_intervention_moves_its_effects_and_the_picture_and_nothing_else():
    model, params = tiny(PATH).model, perturbed()
    noise = model.noise(KEY, 4)
    natural = predict(model, params, noise)
    for name in model.factors:
        answer = predict(model, params, noise, do=cg.do(**{name: 7.0}))
        np.testing.assert_allclose(answer[name], 7.0, rtol=1e-5)
        for entry in model.graph.nodes:
            reached = entry == name or entry in model.graph.descendants(name)
            assert np.any(np.asarray(answer[entry]) != np.asarray(natural[entry])) == reached, (name, entry)
            assert np.all(np.asarray(model.descendants(noise, cg.do(**{name: 7.0}))[entry]) == reached)


def test_abduction_hands_back_what_the_encoder_reads():
    """The factors of predict(abduct(x)) are the encoder's means: the structural model's round trip is exact, the picture's is not."""
    model, params, rows = tiny(PATH).model, perturbed(), batch()
    noise = abduct(model, params, KEY, rows)
    chex.assert_trees_all_equal_shapes_and_dtypes(noise, model.noise(KEY, 8))
    mean, _ = model._encode(params, rows["image"])
    back = predict(model, params, noise)
    for i, name in enumerate(model.factors):
        np.testing.assert_allclose(back[name], model.scm.scalings[i].inverse(mean[:, i]), rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(noise["image"], mean[:, len(model.factors) :], atol=1e-5)


def test_a_config_that_fits_no_data_is_refused():
    with pytest.raises(ConfigError, match="factor 'wind' is not in the data"):
        cg.build(cg.load_config(f"{PATH}:tiny", {"model.graph": (("wind", "light"),)}))
    with pytest.raises(ConfigError, match="'light' is no picture of the data"):
        cg.build(cg.load_config(f"{PATH}:tiny", {"model.image": "light"}))
    with pytest.raises(ConfigError, match="'batch' would couple the examples"):
        cg.build(cg.load_config(f"{PATH}:tiny", {"model.encoder.norm": "batch"}))
