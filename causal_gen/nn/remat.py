"""What the backward pass computes again instead of keeping, by name: `train.remat`.

    none   nothing: all that it needs is kept
    dots   all but products with weights: matrix products without a batch axis, and convolutions
    full   a whole block: only what enters it is kept

Memory falls and time rises from line to line; values do not change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax


def _products(primitive: Any, *args: Any, **params: Any) -> Any:
    kept = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    return primitive.name == "conv_general_dilated" or kept(primitive, *args, **params)


POLICIES: dict[str, Callable[..., Any] | None] = {"dots": _products, "full": None}  # None is JAX's own for: keep nothing


def remat(name: str, block: Callable[..., Any]) -> Callable[..., Any]:
    """`block`, recomputed in the backward pass as the policy of that name says."""
    return block if name == "none" else jax.checkpoint(block, policy=POLICIES[name])
