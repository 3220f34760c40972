"""Mechanisms of one real node: densities, closed forms, and what each of them assumes of the noise."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.models.structural_config import MechanismConfig
from causal_gen.sampling.base import SamplingConfig
from causal_gen.scm.intervention import canonical, do
from causal_gen.scm.marginal import Scaling
from causal_gen.scm.mechanism import Column

PARENTS = (Column("a", Scaling("standard", 1.0, 2.0)), Column("k", None, 3))
OWN = Column("x", Scaling("standard", -3.0, 0.5))
NAMES = ("linear", "additive", "location_scale", "spline")


def mechanism(name: str, own: Column = OWN, parents: tuple[Column, ...] = PARENTS, **more):
    return MechanismConfig(name=name, widths=(8,), bins=5, **more).real(own, parents, SamplingConfig())


def perturbed(made, sd: float = 0.5):
    leaves, tree = jax.tree.flatten(made.init(jax.random.key(0)))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return jax.tree.unflatten(tree, [leaf + sd * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)])


@functools.partial(jax.jit, static_argnums=0)
def predict(made, params, noise, given):
    return made.predict(params, noise, given)


@functools.partial(jax.jit, static_argnums=0)
def abduct(made, params, value, given):
    return made.abduct(params, jax.random.key(0), value, given)


@functools.partial(jax.jit, static_argnums=0)
def density(made, params, value, given):
    return jnp.exp(made.log_prob(params, jax.random.key(0), value, given))


def parents(num: int):
    return {"a": 2 * jax.random.normal(jax.random.key(2), (num,)), "k": jnp.arange(num) % 3}


@pytest.mark.parametrize("name", [*NAMES, "noise"])
def test_abduction_and_prediction_are_inverse_and_an_action_sets_the_value(name):
    made = mechanism("additive", noise="spline") if name == "noise" else mechanism(name)
    params, given = perturbed(made), parents(64)
    noise = made.noise(jax.random.key(3), 64)
    value = predict(made, params, noise, given)
    np.testing.assert_allclose(abduct(made, params, value, given), noise, atol=2e-4)
    acted = made.predict(params, noise, given, canonical(do(x=7.0), ("x",), 64))
    assert (acted["x"] == 7).all()


@pytest.mark.parametrize("scaling", ["standard", "log", "logit"])
@pytest.mark.parametrize("name", ["location_scale", "spline"])
def test_the_density_in_own_units_integrates_to_one(name, scaling):
    """For three values of the parents; (4) without the slope of the scaling, or with it twice, fails."""
    stats = {"mean": 3.0, "std": 2.0, "low": 0.5, "high": 9.5, "quantiles": np.linspace(0.5, 9.5, 65)}
    made = mechanism(name, Column("x", Scaling.fit(scaling, stats, 0.0, 10.0)))
    params = perturbed(made, 0.3)
    low, high = {"standard": (-40.0, 60.0), "log": (1e-3, 100.0), "logit": (1e-3, 10 - 1e-3)}[scaling]
    grid = jnp.linspace(low, high, 20_001)
    for k in range(3):
        given = {"a": jnp.full(grid.shape, 0.7), "k": jnp.full(grid.shape, k)}
        assert abs(float(jnp.trapezoid(density(made, params, {"x": grid}, given), grid)) - 1) < 0.01


def test_moments_are_those_of_draws():
    made = mechanism("spline")
    params, num = perturbed(made, 0.3), 20_000
    given = {"a": jnp.full((num,), 0.4), "k": jnp.ones((num,), int)}
    mean, std = made.conditional(params, jax.tree.map(lambda v: v[:1], given), 1)["x"]
    drawn = predict(made, params, made.noise(jax.random.key(5), num), given)["x"]
    assert abs(float(drawn.mean() - mean[0])) < 4 * float(std[0]) / num**0.5
    np.testing.assert_allclose(drawn.std(), std[0], rtol=0.02)


@pytest.mark.parametrize("noise", ["normal", "spline"])
def test_additive_noise_moves_the_value_by_the_same_amount_whatever_the_parents(noise):
    """x(e') - x(e) does not depend on the parents; of a location-scale mechanism it does."""
    moved = {}
    for name, made in {"additive": mechanism("additive", noise=noise), "other": mechanism("location_scale")}.items():
        params, given = perturbed(made), parents(32)
        high, low = (predict(made, params, jnp.full((32,), e), given)["x"] for e in (1.3, -0.2))
        moved[name] = float(jnp.ptp(high - low))
    assert moved["additive"] < 1e-5 < 1e-2 < moved["other"]


def test_least_squares_is_the_maximum_of_the_likelihood():
    """No gradient is left at the fit, and it agrees with an independent solution in own units."""
    made, num = mechanism("linear", parents=PARENTS[:1]), 500
    rng = np.random.default_rng(0)
    a = rng.normal(1, 2, num)
    x = 4 - 0.7 * a + 0.3 * rng.normal(size=num)
    params = made.fit({"x": x}, {"a": a})

    def mean_loss(params):
        return made.loss(params, jax.random.key(0), {"x": jnp.asarray(x)}, {"a": jnp.asarray(a)}, step=0, train=True)[0].mean()

    slopes = jax.tree.leaves(jax.grad(mean_loss)(params))
    assert max(float(jnp.abs(slope).max()) for slope in slopes) < 2e-3
    slope, intercept = np.polyfit(a, x, 1)
    want = made.from_line({"a": slope}, intercept, (x - intercept - slope * a).std())
    for one, other in zip(jax.tree.leaves(params), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-4)


def test_a_line_in_own_units_is_what_predict_computes():
    made = mechanism("linear", parents=PARENTS[:1])
    given, noise = {"a": jnp.asarray([0.0, 1.0, -2.0])}, jnp.asarray([0.0, 1.0, -1.0])
    params = made.from_line({"a": 1.5}, 4.0, 0.25)
    np.testing.assert_allclose(made.predict(params, noise, given)["x"], [4.0, 4 + 1.5 + 0.25, 4 - 3 - 0.25], atol=1e-5)


def test_what_has_no_closed_form_says_so():
    made = mechanism("additive")
    assert not made.closed_form and mechanism("linear").closed_form and mechanism("location_scale", parents=()).closed_form
    with pytest.raises(ValueError, match="x: this mechanism has no closed form"):
        made.fit({"x": np.zeros(3)}, {"a": np.zeros(3), "k": np.zeros(3, int)})
