"""How alike the vectors of a group are, so that each may be made to tell something else.

    diversity = mean over groups, and over pairs i != j of a group, of cos(x_i, x_j)                                         (1)

Source: (1) Sun et al., Fine-grained audio-visual joint representations (FAVOR, 2023). Letters: b batch, w groups, k vectors, d width.
"""

from __future__ import annotations

import jax.numpy as jnp

from causal_gen.types import Array, Float


def mean_cosine(x: Float[Array, "b w k d"]) -> Float[Array, "b"]:
    """Eq. (1), in [-1 / (k - 1), 1]; a vector of zeros is like no other."""
    k, x = x.shape[2], x.astype(jnp.float32)
    length = jnp.sqrt(jnp.maximum((x**2).sum(-1, keepdims=True), 1e-12))  # the bound keeps a slope at zero finite
    unit = x / length
    # the sum over all pairs is the square of the sum
    pairs = (unit.sum(2) ** 2).sum(-1) - (unit**2).sum((2, 3))
    return pairs.mean(1) / (k * (k - 1))
