"""Multi-head attention as a layer: projections, norms and rotations around `attend`; over a sequence, a cache and itself, or a memory.

    head_h = attend(W_q x, W_k y, W_v y),   out = W_o concat_h(c_h head_h)                                                 (1)

y = x but for cross-attention; c_h = 1 but for NormFormer's learned scales. Keys and values in fewer groups than heads are grouped queries.
Sources: (1) Vaswani et al. 2017; groups Ainslie et al. 2023; c_h Shleifer et al. 2021; norms of queries and keys Henry et al. 2020.
Keys and values leave as they are kept, groups before places: a step of decoding reads a group at a time, and wants it in one piece.
Letters: b batch, t new positions, c cached slots, s memory, h heads, g groups, d width, e width of a head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from causal_gen.nn.attention import attend, attention_map
from causal_gen.nn.linear import Dense
from causal_gen.nn.norm import RMSNorm
from causal_gen.nn.positions import Alibi, rotary, rotate
from causal_gen.nn.transformer_config import TransformerConfig
from causal_gen.structure.visibility import Fields, Visibility, length
from causal_gen.types import Array, Float

Kv = Mapping[str, Array]  # "k" and "v", [b, g, c, e]


class HeadAttention(nn.Module):
    """Eq. (1) of x over itself, or over `cached` keys and then itself; returns the new keys and values too, and with `maps` who
    attends to whom, "map" [b, h, t, c + t].

    `k_fields` describe the cached slots and then the new tokens; None where nothing is cached. With `at` the new tokens are first
    written into the slots from `at` on, which `k_fields` then describe, and what is returned is the whole cache. Where nothing is
    cached `q_fields` may be those of the last few tokens, which alone ask then, and `k_fields` those of all.
    """

    config: TransformerConfig
    visibility: Visibility
    out_init: nn.initializers.Initializer
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        q_fields: Fields,
        layer: Any = None,
        cached: Kv | None = None,
        k_fields: Fields | None = None,
        maps: bool = False,
        at: Any = None,
    ) -> tuple[Float[Array, "b q d"], dict[str, Array]]:
        c, (b, t, _) = self.config, x.shape
        h, g, e = c.heads, c.groups, c.head_size
        own = q_fields if cached is not None or k_fields is None else k_fields  # of the tokens in x
        qkv = Dense((h + 2 * g) * e, c.bias, self.dtype, name="qkv")(x)
        # cut before heads come apart: the gradient is put together once, in the shape that the product wants
        q, k, v = (part.reshape(b, t, -1, e) for part in jnp.split(qkv, (h * e, (h + g) * e), 2))
        if c.qk_norm:
            q, k = RMSNorm(name="q_norm")(q), RMSNorm(name="k_norm")(k)
        angles = rotary(c.position, own, e, c.rope_base, c.frame_weight)
        q, new = rotate(q, angles)[:, -length(q_fields) :], {"k": jnp.swapaxes(rotate(k, angles), 1, 2), "v": jnp.swapaxes(v, 1, 2)}
        seen = join(cached, new, at)
        k, v = (jnp.swapaxes(seen[name], 1, 2) for name in ("k", "v"))
        new = new if at is None else seen
        how: dict[str, Any] = {"backend": backend_of(c, t, cached), "block": c.block, "layer": layer}
        how["bias"] = Alibi(h) if c.position == "alibi" else None
        k_fields = q_fields if k_fields is None else k_fields
        if maps:
            new["map"] = attention_map(q, k, self.visibility, q_fields, k_fields, **how)
        return merge_heads(self, attend(q, k, v, self.visibility, q_fields, k_fields, **how)), new


class CrossAttention(nn.Module):
    """Eq. (1) of x over a memory. It hears of no places: those of two sequences have no common origin."""

    config: TransformerConfig
    visibility: Visibility
    out_init: nn.initializers.Initializer
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], memory: Float[Array, "b s f"], q_fields: Fields, k_fields: Fields, layer: Any = None
    ) -> Float[Array, "b t d"]:
        c, (b, t, _), s = self.config, x.shape, memory.shape[1]
        q = Dense(c.heads * c.head_size, c.bias, self.dtype, name="q")(x).reshape(b, t, c.heads, c.head_size)
        kv = Dense(2 * c.groups * c.head_size, c.bias, self.dtype, name="kv")(memory)
        k, v = (part.reshape(b, s, c.groups, c.head_size) for part in jnp.split(kv, 2, 2))
        if c.qk_norm:
            q, k = RMSNorm(name="q_norm")(q), RMSNorm(name="k_norm")(k)
        heads = attend(q, k, v, self.visibility, q_fields, k_fields, backend=c.backend, block=c.block, layer=layer)
        return merge_heads(self, heads)


def merge_heads(layer: Any, heads: Float[Array, "b t h e"]) -> Float[Array, "b t d"]:
    """The last step of eq. (1), with parameters of the attention layer that calls it."""
    c, (b, t, h, _) = layer.config, heads.shape
    if c.normformer:
        heads = heads * layer.param("head_scale", nn.initializers.ones, (h,)).reshape(1, 1, h, 1).astype(heads.dtype)
    return Dense(c.width, c.bias, layer.dtype, kernel_init=layer.out_init, parent=layer, name="out")(heads.reshape(b, t, -1))


def join(cached: Kv | None, new: Kv, at: Any = None) -> dict[str, Array]:
    """Cached slots, then the new tokens; with `at`, the slots with the new tokens written into them, which a loop does in place."""
    if cached is None:
        return dict(new)
    if at is None:
        return {name: jnp.concatenate([cached[name].astype(x.dtype), x], -2) for name, x in new.items()}
    return {name: jax.lax.dynamic_update_slice_in_dim(cached[name], x.astype(cached[name].dtype), at, -2) for name, x in new.items()}


def backend_of(config: TransformerConfig, t: int, cached: Kv | None) -> str:
    """The config's backend; over a cache, which is never split by position, blocked for ring, and for a few tokens dense in place of
    either: the square is thin there, and tiles would be mostly padding."""
    if cached is None or config.backend not in ("blocked", "ring"):
        return config.backend
    return "dense" if t <= config.block else "blocked"
