"""Divergences and likelihoods of Gaussians against Monte Carlo and scipy."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from causal_gen.losses import gaussian


def test_kl_is_the_mean_log_ratio_under_the_first():
    mean, var, prior_mean, prior_var = 0.3, 0.2, -0.4, 0.9
    draws = mean + np.sqrt(var) * np.asarray(jax.random.normal(jax.random.key(0), (400_000,)))
    ratio = stats.norm(mean, var**0.5).logpdf(draws) - stats.norm(prior_mean, prior_var**0.5).logpdf(draws)
    exact = gaussian.kl(*(jnp.asarray(v) for v in (mean, np.log(var), prior_mean, np.log(prior_var))))
    np.testing.assert_allclose(exact, ratio.mean(), atol=5e-3)


def test_nll_is_scipys():
    got = gaussian.nll(jnp.asarray(0.5), jnp.asarray(-0.2), jnp.asarray(np.log(0.3)))
    np.testing.assert_allclose(got, -stats.norm(-0.2, 0.3**0.5).logpdf(0.5), rtol=1e-5)


def test_reductions_leave_the_batch():
    terms = jnp.arange(12.0).reshape(2, 3, 2)
    np.testing.assert_allclose(gaussian.per_example(terms, "sum"), [15, 51])
    np.testing.assert_allclose(gaussian.per_example(terms, "mean"), [2.5, 8.5])
