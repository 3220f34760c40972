"""Between physical units, the unit scale that networks see, and the standard normal noise of a root.

    unit = (y - mean) / std                                                        standard                   (1)
    unit = (logit((y - low) / (high - low)) - mean') / std'                         logit                      (2)
    unit = (log(y - low) - mean') / std'                                            log                        (4)
    unit = G(e),  G piecewise linear through (Phi^-1(p_j), unit quantile_j)         fitted marginal of a root  (3)

(2) makes noise that acts before a sigmoid additive, as the intensity of Morpho-MNIST has it (Pawlowski et al. 2020, eq. 8).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri

from causal_gen.types import Array, Float

SCALINGS = ("standard", "logit", "log")
_EDGE = 1e-4  # of the support; logits are taken no nearer to its ends
_TINY = 1e-6  # of the largest value; logs are taken no nearer to the lower end


@dataclasses.dataclass(frozen=True)
class Scaling:
    """An invertible map between physical units and unit scale; `low` and `high` are the support where `kind` is "logit".

    Where it is "log", `high` is the largest value seen, which bounds nothing.
    """

    kind: str
    mean: float
    std: float
    low: float = 0.0
    high: float = 1.0

    @classmethod
    def fit(cls, kind: str, stats: Mapping[str, Any], low: float | None, high: float | None) -> Scaling:
        """From a factor's statistics and declared support. Raises ValueError for a logit over an unbounded support."""
        if kind == "standard":
            return cls(kind, float(stats["mean"]), max(float(stats["std"]), 1e-6))
        if kind == "log":
            if low is None or float(stats["low"]) < low:
                end = "has none" if low is None else f"is {low:g}, but the data's smallest value {float(stats['low']):g}"
                raise ValueError(f"scaling 'log' needs a factor above a lower end of its support, which {end}; use 'standard'")
            above = np.asarray(stats["quantiles"], float) - low
            logs = np.log(np.maximum(above, _TINY * above[-1]))
            return cls(kind, float(logs.mean()), max(float(logs.std()), 1e-6), float(low), float(stats["high"]))
        if kind != "logit":
            raise ValueError(f"scaling {kind!r} is not one of {', '.join(SCALINGS)}")
        if low is None or high is None:
            raise ValueError("scaling 'logit' needs a factor whose support is bounded on both sides; use 'standard'")
        share = np.clip((np.asarray(stats["quantiles"], float) - low) / (high - low), _EDGE, 1 - _EDGE)
        logits = np.log(share) - np.log1p(-share)
        return cls(kind, float(logits.mean()), max(float(logits.std()), 1e-6), float(low), float(high))

    def forward(self, y: Float[Array, "..."]) -> Float[Array, "..."]:
        """Physical units to unit scale, eq. (1) or (2)."""
        if self.kind == "logit":
            share = jnp.clip((y - self.low) / (self.high - self.low), _EDGE, 1 - _EDGE)
            y = jnp.log(share) - jnp.log1p(-share)
        if self.kind == "log":
            y = jnp.log(jnp.maximum(y - self.low, self._tiny))
        return (y - self.mean) / self.std

    @property
    def _tiny(self) -> float:
        return _TINY * (self.high - self.low)

    def log_slope(self, y: Float[Array, "..."]) -> Float[Array, "..."]:
        """log |d unit / d y|: what a density on unit scale gains in physical units."""
        if self.kind == "logit":
            share = jnp.clip((y - self.low) / (self.high - self.low), _EDGE, 1 - _EDGE)
            return -jnp.log(share) - jnp.log1p(-share) - np.log(self.std * (self.high - self.low))
        if self.kind == "log":
            return -jnp.log(jnp.maximum(y - self.low, self._tiny)) - np.log(self.std)
        return jnp.full(jnp.shape(y), -np.log(self.std), jnp.float32)

    def inverse(self, unit: Float[Array, "..."]) -> Float[Array, "..."]:
        """Unit scale to physical units."""
        y = unit * self.std + self.mean
        if self.kind == "logit":
            y = self.low + (self.high - self.low) / (1 + jnp.exp(-y))
        if self.kind == "log":
            y = self.low + jnp.exp(y)
        return y


@dataclasses.dataclass(frozen=True)
class Marginal:
    """A root's marginal on unit scale as a monotone map of standard normal noise, eq. (3); knots increase on both sides."""

    noise: tuple[float, ...]
    unit: tuple[float, ...]

    @classmethod
    def fit(cls, quantiles: Any, scaling: Scaling) -> Marginal:
        """From evenly spaced quantiles in physical units, the first and last being the range of the data."""
        values = np.asarray(scaling.forward(jnp.asarray(quantiles, jnp.float32)), float)
        share = np.clip(np.linspace(0, 1, len(values)), 2e-3, 1 - 2e-3)
        # equal quantiles (a clipped factor) would make the map flat, and noise could not be read back
        values = np.maximum.accumulate(values + 1e-4 * np.arange(len(values)) / len(values))
        return cls(tuple(np.asarray(ndtri(share), float).tolist()), tuple(values.tolist()))

    def forward(self, noise: Float[Array, "..."]) -> Float[Array, "..."]:
        """Standard normal noise to unit scale; beyond the knots the end segments go on."""
        return _interpolate(noise, np.asarray(self.noise, np.float32), np.asarray(self.unit, np.float32))

    def inverse(self, unit: Float[Array, "..."]) -> Float[Array, "..."]:
        """Unit scale to noise."""
        return _interpolate(unit, np.asarray(self.unit, np.float32), np.asarray(self.noise, np.float32))


def _interpolate(x: Array, xs: np.ndarray, ys: np.ndarray) -> Array:
    segment = jnp.clip(jnp.searchsorted(jnp.asarray(xs), x, side="right") - 1, 0, len(xs) - 2)
    slope = jnp.asarray((ys[1:] - ys[:-1]) / (xs[1:] - xs[:-1]))[segment]
    return jnp.asarray(ys)[segment] + slope * (x - jnp.asarray(xs)[segment])
