"""The monotone maps between values and noise: inverse of one another, and their log slopes those of differentiation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.scm import transform
from causal_gen.scm.transform import Affine, Spline, raw_of, scale_of

MAPS = [Affine(), Spline(), Spline(bins=12, bound=3.0)]
NUM = 10_000


def numbers(kind: Affine | Spline, spread: float = 1.0) -> jax.Array:
    """Random numbers of the map, one set an example."""
    return spread * jax.random.normal(jax.random.key(1), (NUM, kind.size))


def points() -> jax.Array:
    """Values of which a tenth lie far out in the tails."""
    body = 3 * jax.random.normal(jax.random.key(2), (NUM - NUM // 10,))
    return jnp.concatenate([body, jnp.linspace(-50.0, 50.0, NUM // 10)])


@pytest.mark.parametrize("kind", MAPS, ids=repr)
def test_there_and_back_is_the_value_also_in_the_tails(kind):
    theta, u = numbers(kind), points()
    e, _ = jax.jit(kind.to_noise)(theta, u)
    back = jax.jit(kind.to_value)(theta, e)
    assert float(jnp.abs(back - u).max()) < 1e-4
    there = jax.jit(kind.to_value)(theta, u)
    again, _ = jax.jit(kind.to_noise)(theta, there)
    slope = jnp.exp(jax.jit(kind.to_noise)(theta, there)[1])
    # noise is read as finely as values are written: a steep map magnifies their last digits
    assert float((jnp.abs(again - u) / jnp.maximum(slope, 1)).max()) < 1e-4


@pytest.mark.parametrize("kind", MAPS, ids=repr)
def test_the_log_slope_is_that_of_differentiation_and_the_map_increases(kind):
    theta, u = numbers(kind), points()

    def one(theta, u):
        return kind.to_noise(theta[None], u[None])[0][0]

    want = jax.jit(jax.vmap(jax.grad(one, 1)))(theta, u)
    assert bool((want > 0).all())
    np.testing.assert_allclose(jax.jit(kind.to_noise)(theta, u)[1], jnp.log(want), atol=1e-3)


@pytest.mark.parametrize("kind", MAPS, ids=repr)
def test_zeros_are_the_identity(kind):
    u = points()
    e, log_slope = jax.jit(kind.to_noise)(jnp.zeros((NUM, kind.size)), u)
    np.testing.assert_allclose(e, u, atol=1e-5)
    np.testing.assert_allclose(log_slope, 0, atol=1e-5)


def test_a_splines_density_integrates_to_one():
    """On a grid, the slope of the map times the normal density of the noise: a wrong slope in any bin shows."""
    kind, grid = Spline(bins=6, bound=3.0), jnp.linspace(-12.0, 12.0, 20_001)
    for seed in range(3):
        theta = jnp.broadcast_to(jax.random.normal(jax.random.key(seed), (1, kind.size)), (len(grid), kind.size))
        e, log_slope = jax.jit(kind.to_noise)(theta, grid)
        density = jnp.exp(-0.5 * e**2 + log_slope) / np.sqrt(2 * np.pi)
        assert abs(float(jnp.trapezoid(density, grid)) - 1) < 2e-3


def test_scales_and_their_raw_numbers():
    for scale in (0.01, 0.3, 1.0, 20.0):
        np.testing.assert_allclose(scale_of(jnp.asarray(float(raw_of(scale)))), scale, rtol=1e-4)
    assert float(scale_of(jnp.asarray(-100.0))) >= transform.LEAST
