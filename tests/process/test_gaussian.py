"""The noising process against its defining equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.process import schedules
from causal_gen.process.gaussian import PREDICTIONS, GaussianProcess

X0 = jax.random.uniform(jax.random.key(0), (6, 2, 2, 1), minval=-1.0)
EPS = jax.random.normal(jax.random.key(1), X0.shape)
T = jnp.array([1, 2, 10, 100, 900, 1000])


@pytest.mark.parametrize("schedule", schedules.SCHEDULES)
def test_schedules_fall_from_one_to_nearly_zero(schedule):
    abar = schedules.alpha_bar(schedule, 1000)
    assert abar[0] == 1 and (np.diff(abar) < 0).all() and abar[-1] < 1e-3


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_perfect_prediction_gives_back_image_and_noise(prediction):
    process = GaussianProcess(1000, "cosine", prediction)
    xt = process.corrupt_with(EPS, X0, T)
    x0, eps = process.x0_eps(process.target(X0, EPS, T), xt, T)
    # dividing by a_T or s_1 loses digits where the other part dominates
    np.testing.assert_allclose(x0[:-2], X0[:-2], atol=1e-3)
    np.testing.assert_allclose(eps[2:], EPS[2:], atol=1e-3)


def test_marginals_compose_to_the_chain():
    """T single steps of variance beta_t give the moments of eq. (1)."""
    process = GaussianProcess(50, "linear", "eps")
    betas = 1 - process.alpha_bar[1:] / process.alpha_bar[:-1]
    mean, variance = 1.0, 0.0
    for beta in betas:
        mean, variance = mean * np.sqrt(1 - beta), variance * (1 - beta) + beta
    a, s = process.coefficients(jnp.asarray(50))
    np.testing.assert_allclose([a, s**2], [mean, variance], rtol=1e-5)


def test_bound_weights_are_the_divergences_of_the_chains_posteriors():
    """Two Gaussians of Ho et al.'s posterior variance (eq. 7) whose means differ by the coefficient of x_0 times its error."""
    process = GaussianProcess(100, "cosine", "x0")
    abar = process.alpha_bar
    beta = 1 - abar[1:] / abar[:-1]
    t = np.arange(2, 101)
    variance = (1 - abar[t - 1]) / (1 - abar[t]) * beta[t - 1]
    coefficient = np.sqrt(abar[t - 1]) * beta[t - 1] / (1 - abar[t])
    np.testing.assert_allclose(process.bound_weight(jnp.asarray(t)), coefficient**2 / variance / 2, rtol=1e-4)


def test_bound_of_a_gaussian_with_its_exact_denoiser_stays_above_its_entropy():
    """x ~ N(0, c^2) and its posterior mean as denoiser: eq. (4) in expectation lies above the entropy, by less than a worse denoiser's."""
    c, process = 0.7, GaussianProcess(1000, "cosine", "x0")
    abar = process.alpha_bar
    error = c**2 * (1 - abar) / (abar * c**2 + 1 - abar)  # E |x0 - E[x0|xt]|^2
    draws = jnp.asarray(np.random.default_rng(0).normal(0, c, (200_000, 1)), jnp.float32)
    first = (1 - abar[1]) / abar[1]

    def bound(error):
        steps = (np.asarray(process.bound_weight(jnp.arange(1001)), float) * error).sum()
        return float(process.prior_kl(draws).mean()) + steps + 0.5 * (error[1] / first + np.log(2 * np.pi * first))

    entropy = 0.5 * np.log(2 * np.pi * np.e * c**2)
    assert entropy < bound(error) < entropy + 0.5 < bound(1.5 * error)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="prediction 'noise'"):
        GaussianProcess(prediction="noise")
    with pytest.raises(ValueError, match="schedule 'sqrt'"):
        GaussianProcess(schedule="sqrt")
    with pytest.raises(ValueError, match="beta of .* use more timesteps"):
        GaussianProcess(timesteps=10)
