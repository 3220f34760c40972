"""Classifier-free guidance, of what a denoiser predicts and of logits.

    eps   = omega eps(x, t, z) + (1 - omega) eps(x, t, none)                                                  (1)
    log p = omega log p(x | z) + (1 - omega) log p(x | none), up to a constant                                (2)

Sources: (1) Ho & Salimans 2022, eq. 6, with omega = 1 + w; (2) Sanchez et al. 2023; Chang et al., Muse (2023), for unmasking.
"""

from __future__ import annotations

import jax

from causal_gen.sampling.base import Denoiser
from causal_gen.types import Array, Float


def guide(conditional: Denoiser, unconditional: Denoiser, omega: float) -> Denoiser:
    """Eq. (1): a denoiser with guidance weight `omega`; 1 is the conditional model itself, at no extra cost."""
    if omega == 1.0:
        return conditional

    def guided(x: Array, t: Array) -> tuple[Array, Array]:
        x0_given, eps_given = conditional(x, t)
        x0_none, eps_none = unconditional(x, t)
        return omega * x0_given + (1 - omega) * x0_none, omega * eps_given + (1 - omega) * eps_none

    return guided


def mix(given: Float[Array, "... v"], free: Float[Array, "... v"], omega: float) -> Float[Array, "... v"]:
    """Eq. (2): guided logits; omega = 1 is the conditional model itself."""
    if omega == 1:
        return given
    given, free = jax.nn.log_softmax(given), jax.nn.log_softmax(free)
    return free + omega * (given - free)
