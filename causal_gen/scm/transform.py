"""Monotone maps between a value on unit scale and standard normal noise, whose parameters somebody else supplies.

    affine   e = (u - m) / s                                                                                   (1)
    spline   e = R((u - m) / s),  R monotone rational-quadratic on K bins of [-B, B], the identity beyond      (2)
    within a bin of width w, height h, slope d = h / w, end slopes d0, d1, at a share x of the width:
        R = y0 + h (d x^2 + d0 x (1 - x)) / D,     D = d + (d1 + d0 - 2 d) x (1 - x)                           (3)
        R' = d^2 (d1 x^2 + 2 d x (1 - x) + d0 (1 - x)^2) / D^2                                                 (4)

`size` numbers describe a map, and all zeros are the identity; s is softplus above a floor. Each map is increasing in u, so that given its
numbers noise and value determine each other. Sources: (1) Dinh et al. 2017; (2-4) Durkan et al. 2019, eqs. 4, 5 and the inverse, eqs. 6-8.
Letters: b batch, k numbers of a map.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.types import Array, Float

LEAST = 1e-3  # of a scale on unit scale
FLAT = 2e-2  # least share of a bin, and slope at a knot: what is flatter loses the value's last digits in float32 noise


def scale_of(raw: Float[Array, "*s"], least: float = LEAST) -> Float[Array, "*s"]:
    """A number above `least`, 1 at 0."""
    return jax.nn.softplus(raw + np.log(np.expm1(1.0 - least))) + least


def raw_of(scale: Any) -> Any:
    """The inverse of `scale_of`, for host numbers; what is below the floor is taken for a little above it."""
    above = np.maximum(np.asarray(scale, np.float64) - LEAST, 1e-9)
    return above + np.log(-np.expm1(-above)) - np.log(np.expm1(1.0 - LEAST))


@dataclasses.dataclass(frozen=True)
class Affine:
    """Eq. (1); its numbers are m and the raw s."""

    @property
    def size(self) -> int:
        return 2

    def to_noise(self, theta: Float[Array, "b k"], u: Float[Array, "b"]) -> tuple[Float[Array, "b"], Float[Array, "b"]]:
        """Noise, and log of its slope in u."""
        scale = scale_of(theta[:, 1])
        return (u - theta[:, 0]) / scale, -jnp.log(scale)

    def to_value(self, theta: Float[Array, "b k"], e: Float[Array, "b"]) -> Float[Array, "b"]:
        """The inverse of `to_noise`."""
        return theta[:, 0] + scale_of(theta[:, 1]) * e


@dataclasses.dataclass(frozen=True)
class Spline:
    """Eq. (2) with K = `bins` on [-bound, bound]; its numbers are m, the raw s, K widths, K heights and K - 1 inner slopes."""

    bins: int = 8
    bound: float = 4.0

    @property
    def size(self) -> int:
        return 2 + 3 * self.bins - 1

    def to_noise(self, theta: Float[Array, "b k"], u: Float[Array, "b"]) -> tuple[Float[Array, "b"], Float[Array, "b"]]:
        """Noise, and log of its slope in u."""
        inner, log_slope = Affine().to_noise(theta, u)
        e, more = self._forward(theta, inner)
        return e, log_slope + more

    def to_value(self, theta: Float[Array, "b k"], e: Float[Array, "b"]) -> Float[Array, "b"]:
        """The inverse of `to_noise`."""
        return Affine().to_value(theta, self._backward(theta, e))

    def _knots(self, theta: Float[Array, "b k"]) -> tuple[Array, Array, Array]:
        """Knots of u and of e, and slopes there, each [b, K + 1]; the ends have slope 1."""
        k = self.bins

        def ends(raw: Array) -> Array:
            share = FLAT + (1 - FLAT * k) * jax.nn.softmax(raw, -1)
            inner = 2 * self.bound * jnp.cumsum(share, -1)[:, :-1] - self.bound
            edge = jnp.full((raw.shape[0], 1), self.bound)
            return jnp.concatenate([-edge, inner, edge], -1)

        slopes = scale_of(theta[:, 2 + 2 * k :], FLAT)
        one = jnp.ones((theta.shape[0], 1))
        return ends(theta[:, 2 : 2 + k]), ends(theta[:, 2 + k : 2 + 2 * k]), jnp.concatenate([one, slopes, one], -1)

    def _bin(self, theta: Array, at: Array, inverse: bool) -> tuple[Array, ...]:
        """(x0, w, y0, h, d0, d1) of the bin that holds each of `at`, a value of e where `inverse`."""
        xs, ys, slopes = self._knots(theta)
        along = ys if inverse else xs
        index = jnp.clip((at[:, None] >= along).sum(-1) - 1, 0, self.bins - 1)
        # a sum over a mask, whose gradient fuses; that of a gather is a scatter
        left = jax.nn.one_hot(index, self.bins + 1, dtype=xs.dtype)
        right = jnp.roll(left, 1, -1)
        x0, y0, d0, x1, y1, d1 = ((knots * side).sum(-1) for side in (left, right) for knots in (xs, ys, slopes))
        return x0, x1 - x0, y0, y1 - y0, d0, d1

    def _forward(self, theta: Array, x: Array) -> tuple[Array, Array]:
        """Eqs. (3, 4)."""
        outside = jnp.abs(x) >= self.bound
        safe = jnp.where(outside, 0.0, x)
        x0, w, y0, h, d0, d1 = self._bin(theta, safe, inverse=False)
        share, d = (safe - x0) / w, h / w
        mixed = share * (1 - share)
        bottom = d + (d1 + d0 - 2 * d) * mixed
        y = y0 + h * (d * share**2 + d0 * mixed) / bottom
        log_slope = 2 * jnp.log(d) + jnp.log(d1 * share**2 + 2 * d * mixed + d0 * (1 - share) ** 2) - 2 * jnp.log(bottom)
        return jnp.where(outside, x, y), jnp.where(outside, 0.0, log_slope)

    def _backward(self, theta: Array, y: Array) -> Array:
        """Eq. (3) solved for x: the root of a quadratic that lies in the bin."""
        outside = jnp.abs(y) >= self.bound
        safe = jnp.where(outside, 0.0, y)
        x0, w, y0, h, d0, d1 = self._bin(theta, safe, inverse=True)
        d, rise = h / w, safe - y0
        bend = rise * (d1 + d0 - 2 * d)
        a, b, c = h * (d - d0) + bend, h * d0 - bend, -d * rise
        root = jnp.sqrt(jnp.maximum(b**2 - 4 * a * c, 0.0))
        share = jnp.clip(2 * c / (-b - root), 0.0, 1.0)  # this form does not cancel, b being positive
        return jnp.where(outside, y, x0 + share * w)
