"""DDIM: deterministic decoding of x_T, its inversion, and ancestral DDPM sampling over the same grid.

    x_s = a_s x0hat(x_t, t) + s_s epshat(x_t, t),   s < t                                                     (1)
    x_t = a_t x0hat(x_s, s') + s_t epshat(x_s, s')                                                            (2)

(1) is Song et al. 2021, eq. 12 with eta = 0; (2) is the same step run upwards, evaluated where x_s stands (s' = s, at least 1, since no
network is trained on clean data). (2) is (1)'s inverse only to first order in the step: the round trip errs like 1/steps. A refining sweep
evaluates (2) at (x_t, t) instead, which is the implicit equation whose solution (1) inverts exactly.
A sampler sees a function (x_t, t [b]) -> (x_0, eps) and nothing else.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.process.gaussian import GaussianProcess
from causal_gen.sampling.base import Denoiser
from causal_gen.types import Array, Float, Key


def grid(process: GaussianProcess, steps: int, spacing: float = 1.0) -> np.ndarray:
    """int [steps + 1] increasing from 0 (clean) to T, T (i / steps)^spacing. Raises ValueError for more steps than timesteps."""
    if not 1 <= steps <= process.timesteps:
        raise ValueError(f"sampling.steps must lie in 1..{process.timesteps} (process.timesteps), got {steps}")
    times, order = np.round(process.timesteps * np.linspace(0, 1, steps + 1) ** spacing), np.arange(steps + 1)
    return np.clip(times, order, process.timesteps - steps + order).astype(np.int32)  # where the grid is dense no time comes twice


def _move(process: GaussianProcess, x0: Array, eps: Array, t: Array) -> Array:
    a, s = process.coefficients(t)
    return a * x0 + s * eps


def _times(t: Array, x: Array) -> Array:
    return jnp.full((x.shape[0],), t, jnp.int32)


def decode(
    denoise: Denoiser, process: GaussianProcess, xT: Float[Array, "b ..."], steps: int, clip: bool = False, spacing: float = 1.0
) -> Float[Array, "b ..."]:
    """x_0 from x_T along eq. (1), in one loop; `clip` bounds the predicted x_0 to [-1, 1]."""
    times = jnp.asarray(grid(process, steps, spacing)[::-1].copy())

    def step(i: Array, x: Array) -> Array:
        t, s = times[i], times[i + 1]
        x0, eps = denoise(x, _times(t, x))
        if clip:
            x0 = jnp.clip(x0, -1, 1)
        return _move(process, x0, eps, s)

    return jax.lax.fori_loop(0, steps, step, xT)


def invert(
    denoise: Denoiser, process: GaussianProcess, x0: Float[Array, "b ..."], steps: int, refine: int = 0, spacing: float = 1.0
) -> Float[Array, "b ..."]:
    """x_T from x_0 along eq. (2), with `refine` fixed-point sweeps a step."""
    times = jnp.asarray(grid(process, steps, spacing))

    def step(i: Array, x: Array) -> Array:
        s, t = times[i], times[i + 1]
        at = jnp.maximum(s, 1)
        clean, eps = denoise(x, _times(at, x))
        a_s, s_s = process.coefficients(s)
        # away from t = 0 the pair (x_0, eps) lies on x_s; at s = 0 the prediction at t = 1 is used for eps alone
        clean = jnp.where(s == 0, x, clean)
        up = _move(process, clean, eps, t)
        for _ in range(refine):
            clean, eps = denoise(up, _times(t, x))
            # solve x_s = a_s x_0(x_t) + s_s eps for the x_t that eq. (1) maps to x_s, keeping eps
            a_t, s_t = process.coefficients(t)
            up = a_t * (x - s_s * eps) / a_s + s_t * eps
        return up

    return jax.lax.fori_loop(0, steps, step, x0)


def ancestral(
    denoise: Denoiser, process: GaussianProcess, key: Key, xT: Float[Array, "b ..."], steps: int, spacing: float = 1.0
) -> Float[Array, "b ..."]:
    """A DDPM draw of x_0 given x_T over the grid of `steps`, with the posterior variance (Ho et al. 2020, eq. 7)."""
    times = jnp.asarray(grid(process, steps, spacing)[::-1].copy())

    def step(i: Array, x: Array) -> Array:
        t, s = times[i], times[i + 1]
        x0, _ = denoise(x, _times(t, x))
        a_t, s_t = process.coefficients(t)
        a_s, s_s = process.coefficients(s)
        ratio = a_t / a_s
        step_variance = s_t**2 - ratio**2 * s_s**2
        mean = (ratio * s_s**2 * x + a_s * step_variance * x0) / s_t**2
        scale = jnp.sqrt(jnp.maximum(step_variance * s_s**2, 0.0)) / s_t
        return mean + scale * jax.random.normal(jax.random.fold_in(key, i), x.shape)

    return jax.lax.fori_loop(0, steps, step, xT)


def renoise(process: GaussianProcess, key: Key, x0: Float[Array, "b ..."]) -> Float[Array, "b ..."]:
    """A draw of x_T given x_0: what the released CausalDiffAE encodes with. It does not abduct the residual."""
    return process.corrupt(key, x0, jnp.full((x0.shape[0],), process.timesteps))[0]
