"""A head that says, of a token as it enters a cache, how much it will be looked at later.

    score_j = w_2 gelu(w_1 [k_j; v_j]),   k and v of all layers and groups                                                 (1)

It reads what the cache would hold and nothing else, so that a score never changes with what comes later. Source: Huang et al. 2024
(Locret), eq. 5; there a score a layer and group, here one a token, since a slot of the cache holds a token's entries of all layers.
Letters: l layers, b batch, g groups, t positions, e width of a head.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from causal_gen.types import Array, Float


class RetainingHead(nn.Module):
    """Eq. (1) of cache entries, [l, b, g, t, e] or a tuple of layers with [b, g, t, e]."""

    hidden: int

    @nn.compact
    def __call__(self, entries: Any) -> Float[Array, "b t"]:
        stacked = jax.tree.map(lambda *layers: jnp.stack(layers), *entries) if isinstance(entries, tuple) else entries
        parts = [jnp.moveaxis(leaf, (1, -2), (0, 1)) for leaf in jax.tree.leaves(stacked)]
        parts = [part.reshape(*part.shape[:2], -1) for part in parts]
        h = nn.gelu(nn.Dense(self.hidden, name="in")(jnp.concatenate(parts, -1).astype(jnp.float32)), approximate=True)
        return nn.Dense(1, name="out")(h)[..., 0]
