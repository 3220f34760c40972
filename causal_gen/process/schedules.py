"""Discrete noise schedules: abar_t for t = 1..T, decreasing from near 1 to near 0.

linear   beta_t from 1e-4 to .02, both times 1000/T      Ho et al. 2020, sec. 4
cosine   abar_t = cos^2(pi/2 (t/T + s)/(1 + s)), s = .008, beta_t <= .999      Nichol & Dhariwal 2021, eq. 17
"""

from __future__ import annotations

import numpy as np

SCHEDULES = ("linear", "cosine")


def alpha_bar(schedule: str, num: int) -> np.ndarray:
    """f64 [T + 1]: abar_0 = 1 for clean data, then abar_1 .. abar_T. Raises ValueError for an unknown schedule."""
    if schedule == "linear":
        # the released scaling keeps the end points of the chain when T differs from 1000
        betas = np.linspace(1e-4, 0.02, num) * (1000 / num)
    elif schedule == "cosine":
        grid = np.cos(np.pi / 2 * (np.arange(num + 1) / num + 0.008) / 1.008) ** 2
        betas = np.minimum(1 - grid[1:] / grid[:-1], 0.999)
    else:
        raise ValueError(f"schedule {schedule!r} is not one of {', '.join(SCHEDULES)}")
    if betas.max() >= 1:
        raise ValueError(f"schedule {schedule!r} with {num} timesteps has a beta of {betas.max():.3f} >= 1; use more timesteps")
    return np.concatenate([[1.0], np.cumprod(1 - betas)])
