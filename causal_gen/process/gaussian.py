"""Variance-preserving Gaussian noising in discrete time, and the algebra between its predictions.

    x_t = a_t x_0 + s_t eps,   a_t = sqrt(abar_t),  s_t = sqrt(1 - abar_t),  eps ~ N(0, I)                     (1)
    v_t = a_t eps - s_t x_0                                                                                    (2)
    x_0 = a_t x_t - s_t v_t,   eps = s_t x_t + a_t v_t                                                         (3)
    F_t = (x_0 - k_t x_t) / o_t,   k_t = a_t d^2 / m_t,   o_t = s_t d / sqrt(m_t),   m_t = a_t^2 d^2 + s_t^2    (6)
    -log p(x_0) <= KL(q(x_T|x_0) | N(0, I)) + sum_{t=2..T} KL_t + E[-log p(x_0 | x_1)]                          (4)
    KL_t = (SNR_{t-1} - SNR_t) / 2  |x_0 - x0hat(x_t)|^2,   SNR_t = abar_t / (1 - abar_t)                       (5)

Time t is an integer in 0..T; t = 0 is clean data. F of (6) is what the best linear guess leaves to the network, at unit variance, for
data of standard deviation d about zero; d = 1 gives -v. Sources: (1) Ho et al. 2020; (2, 3) Salimans & Ho 2022, app. D; (6) Karras
et al. 2022, table 1, in these coordinates; (4, 5) Kingma et al. 2021, eq. 12 and 13, with the posterior variance of Ho et al. eq. 7.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.process import schedules
from causal_gen.types import Array, Float, Int, Key

PREDICTIONS = ("eps", "v", "x0", "edm")


def _like(coefficient: Array, x: Array) -> Array:
    return coefficient.reshape(coefficient.shape + (1,) * (x.ndim - coefficient.ndim))


@dataclasses.dataclass(frozen=True)
class GaussianProcess:
    """`timesteps` T of a named schedule; `prediction` says what the network returns: eps, v, x0, or F of eq. (6) with d = `data_std`."""

    timesteps: int = 1000
    schedule: str = "linear"
    prediction: str = "v"
    data_std: float = 0.5

    def __post_init__(self):
        if self.timesteps < 2:
            raise ValueError(f"timesteps must be at least 2, got {self.timesteps}")
        if self.prediction not in PREDICTIONS:
            raise ValueError(f"prediction {self.prediction!r} is not one of {', '.join(PREDICTIONS)}")
        schedules.alpha_bar(self.schedule, self.timesteps)

    @functools.cached_property
    def alpha_bar(self) -> np.ndarray:
        """f64 [T + 1], abar_0 = 1."""
        return schedules.alpha_bar(self.schedule, self.timesteps)

    def coefficients(self, t: Int[Array, "*s"]) -> tuple[Float[Array, "*s"], Float[Array, "*s"]]:
        """(a_t, s_t) of eq. (1)."""
        a = jnp.asarray(np.sqrt(self.alpha_bar), jnp.float32)[t]
        # the complement is taken in float64: 1 - abar_t cancels for small t
        s = jnp.asarray(np.sqrt(1 - self.alpha_bar), jnp.float32)[t]
        return a, s

    def corrupt(self, key: Key, x0: Float[Array, "b ..."], t: Int[Array, "b"]) -> tuple[Array, Array]:
        """One draw of (x_t, eps), eq. (1). Both [b, ...]."""
        eps = jax.random.normal(key, x0.shape, x0.dtype)
        return self.corrupt_with(eps, x0, t), eps

    def corrupt_with(self, eps: Float[Array, "b ..."], x0: Float[Array, "b ..."], t: Int[Array, "b"]) -> Array:
        """x_t for a given eps, eq. (1). As x_0, [b, ...]."""
        a, s = self.coefficients(t)
        return _like(a, x0) * x0 + _like(s, x0) * eps

    def target(self, x0: Float[Array, "b ..."], eps: Float[Array, "b ..."], t: Int[Array, "b"]) -> Array:
        """What the network is trained to return. As x_0, [b, ...]."""
        if self.prediction == "eps":
            return eps
        if self.prediction == "x0":
            return x0
        a, s = (_like(c, x0) for c in self.coefficients(t))
        if self.prediction == "v":
            return a * eps - s * x0
        keep, out = self._precondition(a, s)
        return (x0 - keep * (a * x0 + s * eps)) / out

    def x0_eps(self, prediction: Float[Array, "b ..."], xt: Float[Array, "b ..."], t: Int[Array, "b"]) -> tuple[Array, Array]:
        """(x_0, eps) implied by a prediction at t >= 1, eq. (3). Both [b, ...]."""
        a, s = (_like(c, xt) for c in self.coefficients(t))
        if self.prediction == "eps":
            return (xt - s * prediction) / a, prediction
        if self.prediction == "x0":
            return prediction, (xt - a * prediction) / s
        if self.prediction == "v":
            return a * xt - s * prediction, s * xt + a * prediction
        keep, out = self._precondition(a, s)
        # eps from x_0 would divide by s_t what nearly cancels; k_t and o_t are carried through instead
        m = (a * self.data_std) ** 2 + s**2
        return keep * xt + out * prediction, s / m * xt - a * self.data_std / jnp.sqrt(m) * prediction

    def _precondition(self, a: Array, s: Array) -> tuple[Array, Array]:
        """(k_t, o_t) of eq. (6)."""
        m = (a * self.data_std) ** 2 + s**2
        return a * self.data_std**2 / m, s * self.data_std / jnp.sqrt(m)

    def bound_weight(self, t: Int[Array, "b"]) -> Float[Array, "b"]:
        """(SNR_{t-1} - SNR_t) / 2 for t in 2..T, eq. (5)."""
        snr = self.alpha_bar / np.maximum(1 - self.alpha_bar, 1e-12)
        return jnp.asarray(np.concatenate([[0, 0], (snr[1:-1] - snr[2:]) / 2]), jnp.float32)[t]

    def prior_kl(self, x0: Float[Array, "b ..."]) -> Float[Array, "b"]:
        """KL(q(x_T | x_0) | N(0, I)) in nats, summed over entries."""
        abar = float(self.alpha_bar[-1])
        terms = 0.5 * (abar * x0**2 + (1 - abar) - 1 - np.log1p(-abar))
        return terms.reshape(x0.shape[0], -1).sum(-1)

    def decoder_nll(self, x0: Float[Array, "b ..."], x0_hat: Float[Array, "b ..."]) -> Float[Array, "b"]:
        """E[-log p(x_0 | x_1)] in nats: a Gaussian about `x0_hat` with the variance (1 - abar_1) / abar_1 of x_1 / a_1."""
        variance = float((1 - self.alpha_bar[1]) / self.alpha_bar[1])
        terms = 0.5 * ((x0 - x0_hat) ** 2 / variance + np.log(2 * np.pi * variance))
        return terms.reshape(x0.shape[0], -1).sum(-1)
