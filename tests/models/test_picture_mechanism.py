"""Pictures as nodes of a structural model: both parts of the bound, the residual, who trains the reader, and what a config may not ask."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import causal_gen as cg
from causal_gen.models.picture_config import PictureConfig
from causal_gen.models.picture_mechanism import Picture
from causal_gen.scm.marginal import Scaling
from causal_gen.scm.mechanism import Column
from causal_gen.types import ConfigError

SHAPE, NUM, KEY = (4, 4, 1), 5, jax.random.key(0)
PARENTS = (Column("width", Scaling("standard", 2.0, 0.5)), Column("light", Scaling("standard", 150.0, 40.0)), Column("kind", None, 3))
BATCH = {
    "width": jnp.linspace(1.0, 3.0, NUM),
    "light": jnp.linspace(100.0, 200.0, NUM),
    "kind": jnp.arange(NUM) % 3,
    "image": jax.random.uniform(jax.random.key(9), (NUM, *SHAPE)),
}
CONFIGS = {
    "vae": PictureConfig(latents=(3,), widths=(8, 8)),
    "ladder": PictureConfig(latents=(3, 2), widths=(8, 8), prior="mediator", likelihood="normal", residual=True),
    "read": PictureConfig(latents=(3,), widths=(8, 8), level="light", effectiveness=10.0, residual=True),
}
every = pytest.mark.parametrize("name", CONFIGS)


def made(name):
    """The mechanism, and parameters off their start."""
    mechanism = Picture("image", PARENTS, SHAPE, CONFIGS[name])
    leaves, tree = jax.tree.flatten(mechanism.init(KEY))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return mechanism, jax.tree.unflatten(tree, [x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)])


@every
def test_the_bound_is_below_the_likelihood_by_importance_sampling(name):
    """The bound, averaged over draws, against log mean p(x | e) p(e) / q(e), which tends to log p(x) from below and is nearer to it."""
    mechanism, params = made(name)
    keys = jax.random.split(jax.random.key(2), 2_000)
    bound = jax.jit(jax.vmap(lambda key: mechanism.log_prob(params, key, BATCH, BATCH)))(keys)
    gap = jax.scipy.special.logsumexp(bound, 0) - np.log(len(keys)) - bound.mean(0)
    assert np.isfinite(bound).all() and (gap > 0).all()


@every
def test_the_bound_is_that_of_an_integral_over_the_latents_drawn_from_their_prior(name):
    """-log E_e p(x | e, pa) over draws of the prior is no larger than the mean bound: written again, pixel by pixel, with scipy."""
    mechanism, params = made(name)
    law = stats.norm if mechanism.config.likelihood == "normal" else stats.laplace
    draws = [mechanism.noise(key, NUM) for key in jax.random.split(jax.random.key(3), 400)]
    quiet = dataclasses.replace(mechanism, config=dataclasses.replace(mechanism.config, residual=False))
    means = [np.asarray(quiet.predict(params, noise, BATCH)["image"]) for noise in draws]
    logs = np.stack([law.logpdf(np.asarray(BATCH["image"]), mean, np.exp(params["log_scale"])).sum((1, 2, 3)) for mean in means])
    truth = np.logaddexp.reduce(logs, 0) - np.log(len(draws))
    keys = jax.random.split(jax.random.key(4), 400)
    bound = np.stack([mechanism.log_prob(params, key, BATCH, BATCH) for key in keys[:50]])
    error = 4 * bound.std(0) / np.sqrt(50) + 0.5
    assert (bound.mean(0) <= truth + error).all()


@every
def test_abduction_and_prediction_go_back_and_forth(name):
    mechanism, params = made(name)
    noise = mechanism.abduct(params, KEY, BATCH, BATCH)
    drawn = mechanism.noise(KEY, NUM)
    assert jax.tree.map(jnp.shape, noise) == jax.tree.map(jnp.shape, drawn)
    back = mechanism.predict(params, noise, BATCH)["image"]
    if mechanism.config.residual:
        np.testing.assert_allclose(back, BATCH["image"], atol=1e-5)
    else:
        assert not np.allclose(back, BATCH["image"], atol=1e-2), "without the pixels' noise a small net cannot give the picture back"
    other = mechanism.predict(params, noise, {**BATCH, "width": BATCH["width"] + 1.0})["image"]
    assert not np.allclose(back, other, atol=1e-4)


def test_a_level_scales_the_picture_and_the_encoder_does_not_see_it():
    mechanism, params = made("read")
    quiet = dataclasses.replace(mechanism, config=dataclasses.replace(mechanism.config, residual=False))
    e = {"latent0": jnp.zeros((NUM, 3))}
    flat = {**BATCH, "light": jnp.full((NUM,), 255 / 1.3)}
    assert (np.asarray(quiet.predict(params, e, flat)["image"]) <= 1).all()
    # twice the brightness and twice the level are the same picture to an encoder that is told nothing else of the light
    blind = dataclasses.replace(quiet, parents=(PARENTS[0],), config=dataclasses.replace(quiet.config, level="light"))
    own = blind.init(KEY)
    dim = {**BATCH, "image": BATCH["image"] / 2, "light": BATCH["light"] / 2}
    one, two = (blind.abduct(own, KEY, batch, batch)["latent0"] for batch in (BATCH, dim))
    np.testing.assert_allclose(one, two, atol=1e-5)


def test_readers_learn_from_the_data_alone_and_the_decoder_from_what_they_read():
    mechanism, params = made("read")

    def term(params, name):
        fresh = {parent.name: BATCH[parent.name][::-1] for parent in PARENTS}
        return mechanism.loss(params, KEY, BATCH, BATCH, step=0, train=True, fresh=fresh)[1][name].sum()

    read, effect = (jax.grad(term)(params, name) for name in ("read", "effect"))
    zero = {key: all(not np.any(leaf) for leaf in jax.tree.leaves(part)) for key, part in read.items()}
    assert zero == {"net": True, "log_scale": True, "reader": False}
    zero = {key: all(not np.any(leaf) for leaf in jax.tree.leaves(part)) for key, part in effect.items()}
    assert zero == {"net": False, "log_scale": True, "reader": True}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ({"model.graph": (("thickness", "image"), ("image", "intensity"))}, "is a picture and has the child"),
        ({"model.picture.level": "digit"}, "is no parent of 'image'"),
        ({"model.mechanisms": {"image": {"name": "spline"}}}, "its mechanism is the section model.picture"),
        ({"model.picture.latents": ()}, "at least one number in latents"),
    ],
)
def test_what_a_picture_cannot_be_is_said_in_one_line(override, said):
    config = cg.load_config("configs/structural/morphomnist.py:tiny", override)
    with pytest.raises(ConfigError, match=said):
        cg.build(config)
