"""Losses of categorical predictions against scipy and their own gradients."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import log_softmax, logsumexp, softmax

from causal_gen.losses import categorical

LOGITS = 3 * jax.random.normal(jax.random.key(0), (2, 5, 7))
TARGETS = jax.random.randint(jax.random.key(1), (2, 5), 0, 7)


def test_nll_is_minus_the_log_softmax_of_the_target_and_its_gradient_softmax_minus_one_hot():
    got = categorical.nll(LOGITS, TARGETS)
    want = -np.take_along_axis(log_softmax(np.asarray(LOGITS, np.float64), -1), np.asarray(TARGETS)[..., None], -1)[..., 0]
    np.testing.assert_allclose(got, want, rtol=1e-5)
    slope = jax.grad(lambda logits: categorical.nll(logits, TARGETS).sum())(LOGITS)
    np.testing.assert_allclose(slope, softmax(np.asarray(LOGITS), -1) - np.eye(7)[np.asarray(TARGETS)], atol=1e-6)


def test_forbidden_logits_cost_nothing_where_they_are_not_the_target():
    shut = jnp.where(jax.nn.one_hot((TARGETS + 1) % 7, 7, dtype=bool), -jnp.inf, LOGITS)
    slope = jax.grad(lambda logits: categorical.nll(logits, TARGETS).sum())(shut)
    assert np.isfinite(categorical.nll(shut, TARGETS)).all() and np.isfinite(slope).all()


def test_z_is_the_squared_normaliser():
    np.testing.assert_allclose(categorical.z(LOGITS), logsumexp(np.asarray(LOGITS, np.float64), -1) ** 2, rtol=1e-5)


def test_a_mask_leaves_the_mean_of_what_it_counts_and_zero_for_nothing():
    terms, mask = jnp.arange(8.0).reshape(2, 4), jnp.array([[0.0, 1.0, 1.0, 0.0], [0.0] * 4])
    np.testing.assert_allclose(categorical.masked_mean(terms, mask), [1.5, 0.0])
