"""The posterior of Gumbel noise: it explains the draw exactly, and over draws it is the prior again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from causal_gen.sampling import gumbel

KEYS = jax.random.split(jax.random.key(0), 4)


@pytest.mark.parametrize("scale", [0.1, 5.0, 50.0, 1000.0])
def test_abducted_noise_draws_the_observed_token_exactly(scale):
    """Improbable tokens too, and also from logits that are rounded otherwise: by a few units in the last place of the largest."""
    logits = scale * jax.random.normal(KEYS[0], (5_000, 64))
    tokens = jax.random.randint(KEYS[1], (5_000,), 0, 64)
    noise = jax.jit(gumbel.posterior)(KEYS[2], logits, tokens)
    assert np.isfinite(noise).all()
    np.testing.assert_array_equal(gumbel.draw(logits, noise), tokens)
    rounded = logits * (1 + 2 * jnp.finfo(jnp.float32).eps * jax.random.normal(KEYS[3], logits.shape).clip(-2, 2))
    np.testing.assert_array_equal(gumbel.draw(rounded, noise), tokens)


def test_over_draws_of_the_law_the_posterior_is_the_prior():
    """Pooled marginals, the noise of the drawn token on its own grounds, and independence of noise and logits' order."""
    logits = 2 * jax.random.normal(KEYS[0], (8,))
    rows = jnp.broadcast_to(logits, (20_000, 8))
    tokens = gumbel.draw(rows, gumbel.prior(KEYS[1], rows.shape))
    noise = np.asarray(gumbel.posterior(KEYS[2], rows, tokens))
    assert stats.kstest(noise.reshape(-1), "gumbel_r").pvalue > 1e-3
    for column in noise.T:
        assert stats.kstest(column, "gumbel_r").pvalue > 1e-3
    correlation = np.corrcoef(noise.T) - np.eye(8)
    assert np.abs(correlation).max() < 4 / np.sqrt(len(noise))


def test_the_posterior_is_what_rejection_leaves():
    """Noise of the prior, kept where it draws the token: the same law in every entry (two-sample KS)."""
    logits = jnp.array([0.5, -1.0, 1.5])
    free = gumbel.prior(KEYS[1], (60_000, 3))
    kept = np.asarray(free)[np.asarray(gumbel.draw(jnp.broadcast_to(logits, free.shape), free)) == 0]
    found = gumbel.posterior(KEYS[2], jnp.broadcast_to(logits, kept.shape), jnp.zeros(len(kept), jnp.int32))
    for entry in range(3):
        assert stats.ks_2samp(kept[:, entry], np.asarray(found)[:, entry]).pvalue > 1e-3
    wrong = gumbel.prior(KEYS[3], kept.shape)  # the control: the prior is not the posterior
    assert stats.ks_2samp(kept[:, 0], np.asarray(wrong)[:, 0]).pvalue < 1e-6


def test_noise_of_impossible_tokens_is_a_draw_of_the_prior_and_impossible_evidence_is_marked():
    logits = jnp.broadcast_to(jnp.array([0.0, -jnp.inf, 1.0]), (20_000, 3))
    noise = gumbel.posterior(KEYS[2], logits, jnp.zeros(20_000, jnp.int32))
    assert stats.kstest(np.asarray(noise)[:, 1], "gumbel_r").pvalue > 1e-3
    np.testing.assert_array_equal(gumbel.draw(logits, noise), 0)
    assert np.isnan(gumbel.posterior(KEYS[2], logits[:1], jnp.array([1]))).all()


def test_prior_is_standard_in_both_tails():
    noise = np.asarray(gumbel.prior(KEYS[0], (2_000_000,)))
    assert np.isfinite(noise).all() and noise.max() > 12 and noise.min() < -2.3
    assert stats.kstest(noise[:100_000], "gumbel_r").pvalue > 1e-3
