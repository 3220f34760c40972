"""Mean cosine of the pairs of a group."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.losses.diversity import mean_cosine


def test_it_is_the_mean_over_all_pairs():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)) + 0.5
    unit = x / np.linalg.norm(x, axis=-1, keepdims=True)
    pairs = [(unit[:, :, i] * unit[:, :, j]).sum(-1) for i, j in itertools.permutations(range(4), 2)]
    np.testing.assert_allclose(mean_cosine(jnp.asarray(x, jnp.float32)), np.mean(pairs, 0).mean(1), rtol=1e-5)


def test_its_bounds_are_one_for_copies_and_less_than_nothing_for_a_simplex():
    copies = jnp.ones((1, 1, 3, 2)) * jnp.array([1.0, 2.0, 5.0]).reshape(1, 1, 3, 1)
    corners = jnp.eye(3)[None, None] - 1 / 3
    np.testing.assert_allclose([mean_cosine(copies)[0], mean_cosine(corners)[0]], [1.0, -0.5], atol=1e-6)


def test_a_vector_of_zeros_is_like_no_other_and_has_a_finite_slope():
    x = jnp.array([[[[0.0, 0.0], [1.0, 0.0]]]])
    assert mean_cosine(x)[0] == 0
    assert np.isfinite(jax.grad(lambda x: mean_cosine(x).sum())(x)).all()
