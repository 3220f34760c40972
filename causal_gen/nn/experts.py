"""Mixture of experts without capacity: every token reaches its experts, so none depends on who else asked for them.

    p = softmax(R x);   y = sum over the k largest p_e of  p_e f_e(x)                                              (1)
    balance = E sum_e (share of the sequence's choices that fell on e) (mean over the sequence of p_e)             (2)

(2) is 1 when the choices are even. It is taken a sequence at a time, so that the loss does not mix examples. The rows of an expert lie in
tiles of their own, the last of them filled up with zeros, and each tile is multiplied by its expert's matrix: static shapes, no row
dropped, and the work of the chosen experts alone (`lax.ragged_dot` does the work of all of them on a CPU, and cannot be vmapped).
Where the router hears more than x, R acts on both: with the row of a learned graph as z, experts serve slots by what these depend on.
Sources: (1) Shazeer et al. 2017, probabilities not renormalised (Fedus et al. 2021), or the router of one expert of many would learn from
(2) alone; (2) DeepSeek-V3 (2024), eq. 17; experts gated by a learned
graph after GoCE (see configs/causal_transformer/learned_graph.py). Letters: b batch, t position, d width, e experts, f hidden width.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from causal_gen.nn.mlp import activate, widened
from causal_gen.nn.norm import make_norm
from causal_gen.types import Array, Float, Int

TILE = 64  # rows that share one copy of an expert's matrix


class Experts(nn.Module):
    """Eq. (1) with `count` experts of which `active` serve a token; returns the sum and (2). Experts have no biases. The router hears `z`
    too where it is given."""

    count: int
    active: int
    kind: str
    hidden: int
    out_init: nn.initializers.Initializer
    inner_norm: str = ""
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"], z: Float[Array, "b t z"] | None = None) -> tuple[Float[Array, "b t d"], Float[Array, "b"]]:
        b, t, d = x.shape
        init = nn.initializers.lecun_normal(batch_axis=(0,))
        w_in = self.param("in", init, (self.count, d, widened(self.kind, self.hidden)))
        w_out = self.param("out", self.out_init, (self.count, self.hidden, d))
        # the router decides in float32: a rounding there sends a token elsewhere
        heard = x.astype(jnp.float32) if z is None else jnp.concatenate([x.astype(jnp.float32), z.astype(jnp.float32)], -1)
        router = self.param("router", nn.initializers.lecun_normal(), (heard.shape[-1], self.count))
        probabilities = jax.nn.softmax(heard @ router, -1)
        gates, chosen = jax.lax.top_k(probabilities, self.active)

        place, expert_of = tile_places(chosen.reshape(-1), self.count, TILE)
        rows = jnp.repeat(x.reshape(b * t, d), self.active, 0).astype(self.dtype)
        rows = jnp.zeros((expert_of.size * TILE, d), self.dtype).at[place].set(rows, unique_indices=True).reshape(-1, TILE, d)
        h = activate(self.kind, jnp.einsum("nrd,ndf->nrf", rows, w_in.astype(self.dtype)[expert_of]))
        if self.inner_norm:
            h = make_norm(self.inner_norm, "inner_norm")(h)
        out = jnp.einsum("nrf,nfd->nrd", h, w_out.astype(self.dtype)[expert_of])
        out = out.reshape(-1, d)[place].reshape(b, t, self.active, d) * gates[..., None].astype(self.dtype)
        return out.sum(2), balance(probabilities, chosen)


def tile_places(expert: Int[Array, "m"], count: int, tile: int) -> tuple[Int[Array, "m"], Int[Array, "n"]]:
    """Where each of m rows goes among n tiles of `tile` rows, and the expert of every tile; n is enough for any choice of experts."""
    hot = jax.nn.one_hot(expert, count, dtype=jnp.int32)
    tiles = -(-hot.sum(0) // tile)
    rank = jnp.take_along_axis(hot.cumsum(0), expert[:, None], 1)[:, 0] - 1
    enough = min(expert.size, (expert.size + count * (tile - 1)) // tile)
    return ((tiles.cumsum() - tiles) * tile)[expert] + rank, jnp.repeat(jnp.arange(count), tiles, total_repeat_length=enough)


def balance(probabilities: Float[Array, "b t e"], chosen: Array) -> Float[Array, "b"]:
    """Eq. (2) from the router's probabilities and the experts chosen, [b, t, k]."""
    count = probabilities.shape[-1]
    share = jax.nn.one_hot(chosen, count).mean((1, 2))
    return count * (share * probabilities.mean(1)).sum(-1)
