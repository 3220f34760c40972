"""Linear layers whose gradients are plain products of two matrices.

    y = x W + b,   dW = sum over rows x_r^T dy_r,   x [rows, d]                                                             (1)

XLA for CPUs contracts two axes of dW (batch and position) only after it has transposed dy, and recomputes in that copy whatever made dy:
for a residual stream the gradients of all later layers. With one axis of rows there is no copy (a training step of 6 layers takes .85 of
the time). Letters: b batch, t position, d e widths.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax

from causal_gen.nn.ring_attention import SEQUENCE, ways
from causal_gen.types import Array, Float


def by_rows(x: Float[Array, "*s d"], kernel: Float[Array, "d e"], dimensions: Any, **how: Any) -> Float[Array, "*s e"]:
    """`jax.lax.dot_general` of the last axis of x with the first of a kernel, over rows as in (1).

    Where a mesh splits positions x keeps its axes: rows of several examples would have to be gathered.
    """
    if x.ndim <= 2 or ways(SEQUENCE) > 1:
        return jax.lax.dot_general(x, kernel, dimensions, **how)
    y = jax.lax.dot_general(x.reshape(-1, x.shape[-1]), kernel, (((1,), (0,)), ((), ())), **how)
    return y.reshape(*x.shape[:-1], -1)


Dense = functools.partial(nn.Dense, dot_general=by_rows)  # eq. (1); flax's arguments and parameter names
