"""DDIM on a Gaussian whose score is known, against the analytic counterfactual (reference figures: causal_models.md 1.7)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.process.gaussian import GaussianProcess
from causal_gen.sampling import ddim, guidance

PROCESS = GaussianProcess(1000, "linear", "eps")
FACTUAL, OTHER = (0.7, 0.5), (-0.9, 0.8)
E = jax.random.normal(jax.random.key(0), (4000, 1))
X = FACTUAL[0] + FACTUAL[1] * E


def score(mean, std):
    """The exact denoiser of x_0 ~ N(mean, std^2)."""

    def denoise(x, t):
        a, s = (c[:, None] for c in PROCESS.coefficients(t))
        eps = s * (x - a * mean) / (a**2 * std**2 + s**2)
        return (x - s * eps) / a, eps

    return denoise


@functools.partial(jax.jit, static_argnums=(0, 1))
def errors(steps, refine):
    """Mean absolute error of the round trip and of the counterfactual under the other mean and scale."""
    x_t = ddim.invert(score(*FACTUAL), PROCESS, X, steps, refine)
    back = ddim.decode(score(*FACTUAL), PROCESS, x_t, steps)
    moved = ddim.decode(score(*OTHER), PROCESS, x_t, steps)
    return jnp.abs(back - X).mean(), jnp.abs(moved - (OTHER[0] + OTHER[1] * E)).mean()


def test_inversion_converges_to_the_analytic_counterfactual_like_one_over_steps():
    composition = {steps: [float(e) for e in errors(steps, 0)] for steps in (50, 100, 250)}
    assert composition[250][0] <= 0.012 and composition[250][1] <= 0.02
    assert composition[50][0] >= 1.8 * composition[100][0]
    assert composition[100][0] >= 2.1 * composition[250][0]


def test_a_refining_sweep_makes_the_round_trip_nearly_exact():
    assert float(errors(50, 1)[0]) < float(errors(50, 0)[0]) / 10
    assert float(errors(50, 1)[1]) < float(errors(50, 0)[1])


def test_renoising_does_not_abduct_the_residual():
    """The released encoding of x_T errs like a fresh draw: a control for the inversion."""
    x_t = ddim.renoise(PROCESS, jax.random.key(1), X)
    back = jax.jit(lambda x: ddim.decode(score(*FACTUAL), PROCESS, x, 250))(x_t)
    assert float(jnp.abs(back - X).mean()) >= 0.5


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_samples_take_the_law_of_the_data(sampler):
    noise = jax.random.normal(jax.random.key(2), (4000, 1))
    if sampler == "ddim":
        out = jax.jit(lambda x: ddim.decode(score(*OTHER), PROCESS, x, 200))(noise)
    else:
        out = jax.jit(lambda x: ddim.ancestral(score(*OTHER), PROCESS, jax.random.key(3), x, 200))(noise)
    np.testing.assert_allclose([out.mean(), out.std()], OTHER, atol=0.06)


def test_guidance_weighs_the_two_predictions():
    x, t = jnp.zeros((3, 1)), jnp.full((3,), 500)
    guided = guidance.guide(score(*FACTUAL), score(*OTHER), 2.0)(x, t)
    for got, one, none in zip(guided, score(*FACTUAL)(x, t), score(*OTHER)(x, t), strict=True):
        np.testing.assert_allclose(got, 2 * one - none, rtol=1e-6)
    conditional = score(*FACTUAL)
    assert guidance.guide(conditional, score(*OTHER), 1.0) is conditional


def test_more_steps_than_timesteps_are_refused():
    with pytest.raises(ValueError, match="sampling.steps must lie in 1..1000"):
        ddim.grid(PROCESS, 1001)


@pytest.mark.parametrize("steps", [1, 60, 700, 1000])
@pytest.mark.parametrize("spacing", [0.25, 0.8, 1.0, 4.0])
def test_a_grid_has_every_time_once_and_both_ends(steps, spacing):
    times = ddim.grid(PROCESS, steps, spacing)
    assert times[0] == 0 and times[-1] == PROCESS.timesteps and (np.diff(times) >= 1).all()


def test_spacing_moves_the_steps():
    """Below 1 most of them lie above the middle; at 1 they are even."""
    half = PROCESS.timesteps / 2
    above = [int((ddim.grid(PROCESS, 60, spacing) > half).sum()) for spacing in (0.5, 1.0, 2.0)]
    assert above == [45, 30, 18]
