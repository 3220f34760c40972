"""Per-example losses of categorical predictions, in nats. Letters: b batch, t position, v vocabulary.

nll_i = logsumexp(logits_i) - logits_i[x_i]                                                                      (1)
z_i = logsumexp(logits_i)^2, which keeps logits near normalised              (de Brebisson and Vincent 2016)     (2)
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from causal_gen.types import Array, Float, Int


def nll(logits: Float[Array, "... v"], targets: Int[Array, "..."]) -> Float[Array, "..."]:
    """Eq. (1), an entry a target."""
    # a sum over a mask, whose gradient fuses with the softmax; that of a gather is a scatter
    chosen = jax.nn.one_hot(targets, logits.shape[-1], dtype=bool)
    return jax.nn.logsumexp(logits, -1) - jnp.where(chosen, logits, 0).sum(-1)


def z(logits: Float[Array, "... v"]) -> Float[Array, "..."]:
    """Eq. (2), an entry a position."""
    return jax.nn.logsumexp(logits, -1) ** 2


def masked_mean(terms: Float[Array, "b t"], mask: Float[Array, "b t"]) -> Float[Array, "b"]:
    """The mean of each example over the positions that `mask` counts; 0 where it counts none."""
    return (terms * mask).sum(-1) / jnp.maximum(mask.sum(-1), 1)
