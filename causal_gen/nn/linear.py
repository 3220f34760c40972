"""Linear layers whose gradients are plain products of two matrices.

    y = x W + b,   dW = sum over rows x_r^T dy_r,   x [rows, d]                                                             (1)

XLA for CPUs contracts two axes of dW (batch and position) only after it has transposed dy, and recomputes in that copy whatever made dy:
for a residual stream the gradients of all later layers. With one axis of rows there is no copy. A dW of 256 x 1,024 it makes half as fast
again as one of 1,024 x 256, so that dW of a narrowing layer is made as the transpose of dy^T x. With blocked attention's backward pass,
made faster beside it, a step of SYSTEMS.md's GPT takes 800 ms for 1,060 on one core. The rule is for reverse mode alone, as that of
blocked attention is.
Source: (1) Rumelhart, Hinton & Williams 1986. Letters: d e widths.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax

from causal_gen.nn.ring_attention import SEQUENCE, ways
from causal_gen.types import Array, Float


def by_rows(x: Float[Array, "*s d"], kernel: Float[Array, "d e"], dimensions: Any, precision: Any = None) -> Float[Array, "*s e"]:
    """`jax.lax.dot_general` of the last axis of x with the first of a kernel, over rows as in (1); `dimensions` must say just that.

    Where a mesh splits positions x keeps its axes: rows of several examples would have to be gathered.
    """
    if ways(SEQUENCE) > 1:
        return jax.lax.dot_general(x, kernel, dimensions, precision)
    y: Any = _product(precision, x.reshape(-1, x.shape[-1]), kernel)
    return y.reshape(*x.shape[:-1], -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product(precision: Any, x: Array, kernel: Array) -> Array:
    return _contract(precision, x, 1, kernel, 0)


def _keeping(precision: Any, x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _contract(precision, x, 1, kernel, 0), (x, kernel)


def _backward(precision: Any, kept: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = kept
    dx = _contract(precision, dy, 1, kernel, 1)
    if kernel.shape[0] <= kernel.shape[1]:
        return dx, _contract(precision, x, 0, dy, 0)
    # behind the barrier, or XLA folds the transpose into the product
    return dx, jax.lax.optimization_barrier(_contract(precision, dy, 0, x, 0)).T


_product.defvjp(_keeping, _backward)


def _contract(precision: Any, a: Array, a_axis: int, b: Array, b_axis: int) -> Array:
    return jax.lax.dot_general(a, b, (((a_axis,), (b_axis,)), ((), ())), precision)


Dense = functools.partial(nn.Dense, dot_general=by_rows)  # eq. (1); flax's arguments and parameter names
