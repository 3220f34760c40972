"""Classifier-free guidance: eps = omega eps(x, t, z) + (1 - omega) eps(x, t, none).

Source: Ho & Salimans 2022, eq. 6, with omega = 1 + w.
"""

from __future__ import annotations

from causal_gen.sampling.base import Denoiser
from causal_gen.types import Array


def guide(conditional: Denoiser, unconditional: Denoiser, omega: float) -> Denoiser:
    """A denoiser with guidance weight `omega`; 1 is the conditional model itself, at no extra cost."""
    if omega == 1.0:
        return conditional

    def guided(x: Array, t: Array) -> tuple[Array, Array]:
        x0_given, eps_given = conditional(x, t)
        x0_none, eps_none = unconditional(x, t)
        return omega * x0_given + (1 - omega) * x0_none, omega * eps_given + (1 - omega) * eps_none

    return guided
