"""Attention under a visibility, by one of four backends that give the same numbers.

    o_i = sum_j w_ij e^{s_ij} v_j / sum_j w_ij e^{s_ij},   s_ij = scale <q_i, k_j> + bias_ij,   w from the visibility            (1)

dense: the whole square at once, for short sequences and as the reference. blocked: tile by tile, memory linear in the sequence
(blocked_attention.py). ring: the same with positions on several devices, along the mesh's axis "sequence" (ring_attention.py). jax:
`jax.nn.dot_product_attention`, which has kernels of its own on some accelerators. A query that sees nothing gives 0, and no gradient
passes it. Letters: b batch, h heads, g groups that share keys, q k positions, d e widths of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from causal_gen.nn.blocked_attention import STEEPEST, attend_blocked, by_group
from causal_gen.nn.ring_attention import attend_ring
from causal_gen.structure.visibility import Fields, Visibility
from causal_gen.types import Array, ConfigError, Float

BACKENDS = ("dense", "blocked", "ring", "jax")
Bias = Callable[[Fields, Fields], Array]  # static and hashable; f32, broadcastable to [b, h, q, k]


def attend(
    q: Float[Array, "b q h d"],
    k: Float[Array, "b k g d"],
    v: Float[Array, "b k g e"],
    visibility: Visibility,
    q_fields: Fields,
    k_fields: Fields,
    *,
    backend: str = "dense",
    block: int = 128,
    layer: Any = None,
    scale: float | None = None,
    bias: Bias | None = None,
) -> Float[Array, "b q h e"]:
    """Eq. (1); `scale` is 1 / sqrt(d) unless given, `block` the side of a tile of the blocked and ring backends.

    Raises `ConfigError` for an unknown backend, or one that gives learned gates no gradient.
    """
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    if backend in ("blocked", "ring"):
        tiled = attend_blocked if backend == "blocked" else attend_ring
        return tiled(q * factor, k, v, visibility, q_fields, k_fields, block=block, layer=layer, bias=bias)
    w = visibility(q_fields, k_fields, layer) if visibility.hard else visibility.weight(q_fields, k_fields, layer)
    b_scores = None if bias is None else bias(q_fields, k_fields)
    if backend == "dense":
        return _dense(q * factor, k, v, w, b_scores)
    if backend == "jax":
        if visibility.gated:
            raise ConfigError('attention: backend "jax" gives no gradient to learned gates; choose "dense" or "blocked"')
        return _jax(q, k, v, w, b_scores, factor)
    raise ConfigError(f"attention: unknown backend {backend!r}; known are {', '.join(BACKENDS)}")


def attention_map(
    q: Float[Array, "b q h d"], k: Float[Array, "b k g d"], visibility: Visibility, q_fields: Fields, k_fields: Fields, **how: Any
) -> Float[Array, "b h q k"]:
    """The weights of eq. (1), by whatever backend `how` names: what `attend` makes of values that are one-hot in their place."""
    places = jnp.eye(k.shape[1], dtype=q.dtype).reshape(1, k.shape[1], 1, k.shape[1])
    values = jnp.broadcast_to(places, (*k.shape[:3], k.shape[1]))
    return jnp.swapaxes(attend(q, k, values, visibility, q_fields, k_fields, **how), 1, 2)


def _dense(q: Array, k: Array, v: Array, w: Array, bias: Array | None) -> Array:
    b, tq, h, d = q.shape
    groups = k.shape[2], h // k.shape[2]
    s = jnp.einsum("bqgrd,bkgd->bgrqk", q.reshape(b, tq, *groups, d), k, preferred_element_type=jnp.float32)
    s = s if bias is None else s + by_group(bias, groups)
    w = by_group(w, groups)
    seen = w > 0
    top = jax.lax.stop_gradient(jnp.where(seen, s, -jnp.inf).max(-1, keepdims=True))
    base = jnp.where(top == -jnp.inf, 0.0, top)
    # a closed gate keeps its slope, hence the cut in place of -inf; a hard mask needs none
    p = jnp.exp(jnp.where(seen, s - base, -jnp.inf)) if w.dtype == bool else w * jnp.exp(jnp.minimum(s - base, STEEPEST))
    mass = p.sum(-1, keepdims=True)
    p = jnp.where(mass > 0, p / jnp.where(mass > 0, mass, 1.0), 0.0)
    out = jnp.einsum("bgrqk,bkge->bqgre", p.astype(v.dtype), v, preferred_element_type=jnp.float32)
    return out.reshape(b, tq, h, v.shape[-1]).astype(v.dtype)


def _jax(q: Array, k: Array, v: Array, w: Array, bias: Array | None, scale: float) -> Array:
    b, tq, h, d = q.shape
    tk, e = v.shape[1], v.shape[-1]
    seen = w > 0
    if w.dtype != bool:
        soft = jnp.log(jnp.where(seen, w, 1.0))
        bias = soft if bias is None else bias + soft
    # it wants one width for keys and values: zeros add nothing to a score, and fall off the output
    widest = max(d, e)
    q, k, v = (jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, widest - x.shape[-1]))) for x in (q, k, v))
    bias = None if bias is None else jnp.broadcast_to(bias, (b, h, tq, tk)).astype(q.dtype)
    out = jax.nn.dot_product_attention(q, k, v, bias, jnp.broadcast_to(seen, (b, h, tq, tk)), scale=scale)[..., :e]
    return jnp.where(jnp.moveaxis(seen.any(-1, keepdims=True), 1, 2), out, 0)
