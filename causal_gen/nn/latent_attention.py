"""Latent attention: keys and values of all heads come from one narrow latent a token, and only that is cached; neighbours may share one.

    c_t = norm(W_c x_t),  k_t^h = [U_k^h c_t ; R_t W_r x_t],  v_t^h = U_v^h c_t,  q_t^h = [W_q^h x_t ; R_t W_qr^h x_t]        (1)
    <q_c, U_k c> = <U_k' q_c, c>  and  sum_j p_j U_v c_j = U_v sum_j p_j c_j                                                (2)
    merged, stride s:  C_t = sum_{u in chunk of t, u <= t} w_u c_u,   w_u = sigmoid <A c_u, B wave(floor(u / s))>          (3)

R turns by position, in a key that all heads share. By (2) a cached step multiplies queries and outputs by U in place of every cached
slot: the same numbers at a fraction of the work. Under (3) token t sees the whole sums of chunks before its own and the sum so far of its
own (the visibility `stride_aware`, added here). A cache that adds up what it is given for a chunk then holds exactly those sums, so what is
returned for it are increments: w c of (3), and for the shared key the difference to the chunk's previous one, which add up to the last.
Tokens of one chunk mix whatever their documents or segments are.
Sources: (1, 2) DeepSeek-V2 (2024), sec. 2.1; (3) Deng & Woodland 2025 (MTLA), sec. 4. Letters: b batch, t new positions, c cached slots,
h heads, e width of a head, r rank of the latent, p width of the shared key.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from causal_gen.nn.attention import attend, attention_map
from causal_gen.nn.head_attention import Kv, backend_of, join, merge_heads
from causal_gen.nn.linear import Dense
from causal_gen.nn.norm import RMSNorm
from causal_gen.nn.positions import Alibi, rotary, rotate, turns
from causal_gen.nn.transformer_config import TransformerConfig
from causal_gen.structure.masks import stride_aware
from causal_gen.structure.visibility import Fields, Visibility
from causal_gen.types import Array, Float


class LatentAttention(nn.Module):
    """Eqs. (1) to (3), called as `HeadAttention` is; new "v" are latents [b, 1, t, r], new "k" shared keys [b, 1, t, p]."""

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
    ) -> tuple[Float[Array, "b t d"], dict[str, Array]]:
        c, m, (b, t, _) = self.config, self.config.latent, x.shape
        h, e, r, p = c.heads, c.head_size, m.rank, m.rotary
        q = x
        if m.query_rank:
            q = RMSNorm(name="query_norm")(Dense(m.query_rank, False, self.dtype, name="query_down")(x))
        q = Dense(h * (e + p), False, self.dtype, name="query")(q).reshape(b, t, h, e + p)
        down = Dense(r + p, False, self.dtype, name="down")(x)[:, :, None, :]
        angles = rotary(c.position, q_fields, p, c.rope_base, c.frame_weight)
        q_content, q_shared = q[..., :e], rotate(q[..., e:], angles)
        latent, shared = RMSNorm(name="latent_norm")(down[..., :r]), rotate(down[..., r:], angles)
        up = self.param("up", nn.initializers.lecun_normal(in_axis=0, out_axis=(1, 2)), (r, h, 2 * e)).astype(self.dtype)
        up_k, up_v = up[..., :e], up[..., e:]

        visibility, increments = self.visibility, None
        if m.stride > 1:
            visibility, latent = visibility & stride_aware(m.stride), latent * self._merge_weight(latent, q_fields)
            latent, increments = _merged(m.stride, latent, shared, jnp.asarray(q_fields["index"]), cached, k_fields)
        own = {"k": jnp.swapaxes(shared, 1, 2), "v": jnp.swapaxes(latent, 1, 2)}
        seen = join(cached, own, at)
        new = increments or (own if at is None else seen)
        latent, shared = jnp.swapaxes(seen["v"], 1, 2), jnp.swapaxes(seen["k"], 1, 2)
        how: dict[str, Any] = {
            "backend": backend_of(c, t, cached), "block": c.block, "layer": layer, "scale": (e + p) ** -0.5,
            "bias": Alibi(h) if c.position == "alibi" else None,
        }  # fmt: skip
        k_fields = q_fields if k_fields is None else k_fields
        if cached is None:
            k = jnp.concatenate([jnp.einsum("btr,rhe->bthe", latent[:, :, 0], up_k), jnp.broadcast_to(shared, (b, t, h, p))], -1)
            v = jnp.einsum("btr,rhe->bthe", latent[:, :, 0], up_v)
            q = jnp.concatenate([q_content, q_shared], -1)
            heads = attend(q, k, v, visibility, q_fields, k_fields, **how)
        else:
            q = jnp.concatenate([jnp.einsum("bthe,rhe->bthr", q_content, up_k), q_shared], -1)
            k = jnp.concatenate([latent, shared], -1)
            heads = attend(q, k, latent, visibility, q_fields, k_fields, **how)
            heads = jnp.einsum("bthr,rhe->bthe", heads, up_v)
        if maps:
            new["map"] = attention_map(q, k, visibility, q_fields, k_fields, **how)
        return merge_heads(self, heads), new

    def _merge_weight(self, latent: Float[Array, "b t 1 r"], fields: Fields) -> Float[Array, "*b t 1 1"]:
        """w of eq. (3)."""
        rank = self.config.latent.rank
        angles = turns(jnp.asarray(fields["index"]) // self.config.latent.stride, rank, 10_000.0)
        wave = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], -1)
        wave = Dense(rank, False, name="merge_wave", parent=self)(wave).reshape(-1, latent.shape[1], 1, rank)
        score = Dense(rank, False, name="merge_latent", parent=self)(latent.astype(jnp.float32))
        return jax.nn.sigmoid((score * wave).sum(-1, keepdims=True)).astype(latent.dtype)


def _merged(
    stride: int, latent: Float[Array, "b t 1 r"], shared: Float[Array, "b t 1 p"], index: Array, cached: Kv | None, k_fields: Fields | None
) -> tuple[Float[Array, "b t 1 r"], dict[str, Array]]:
    """The sums so far of eq. (3) over weighted latents, and the increments that a merging cache adds up."""
    b, t = latent.shape[:2]
    chunk = jnp.broadcast_to(jnp.asarray(index), (b, t)) // stride
    total, before = latent, jnp.zeros_like(shared)
    for lag in range(1, min(stride, t)):
        near = (chunk[:, lag:] == chunk[:, :-lag])[..., None, None]
        total = total.at[:, lag:].add(jnp.where(near, latent[:, :-lag], 0))
        before = before.at[:, 1:].set(jnp.where(near, shared[:, :-1], 0)) if lag == 1 else before
    if cached is not None and k_fields is not None:
        slots = cached["k"].shape[-2]
        held = jnp.broadcast_to(jnp.asarray(k_fields["index"])[..., :slots], (b, slots)) // stride
        here = chunk[:, :, None] == held[:, None, :]
        if "valid" in k_fields:
            here = here & jnp.broadcast_to(jnp.asarray(k_fields["valid"])[..., :slots] != 0, (b, slots))[:, None, :]
        here = here.astype(latent.dtype)
        total = total + jnp.einsum("btc,bgcr->btgr", here, cached["v"].astype(latent.dtype))
        first = jnp.einsum("bc,bgcp->bgp", here[:, 0], cached["k"].astype(shared.dtype))
        before = before.at[:, 0].set(first)
    return total, {"k": jnp.swapaxes(shared - before, 1, 2), "v": jnp.swapaxes(latent, 1, 2)}
