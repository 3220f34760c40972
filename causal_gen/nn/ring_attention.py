"""Exact attention over positions that lie on several devices: each keeps its queries, and keys go round in a ring.

    of keys that came by so far, o and L = log sum_j w_j e^{s_j};  of those here now, o' and L' (blocked_attention.py, eqs. 2, 3)
    L'' = log(e^L + e^L'),   o'' = e^{L - L''} o + e^{L' - L''} o'                                                          (1)

Keys, values and the fields of keys move one device on while they are worked with, so that no device ever holds more than two shards of
them; on the way back their gradients move with them and are home after a whole turn. Tiles that nobody sees are left out on every device,
so that under `causal()` the device of the last positions works longest. A layer asks JAX for the current mesh (`jax.set_mesh`, or what
parallel/compile.py sets); where there is none, or one device along positions, this is blocked attention.
Source: Liu, Zaharia & Abbeel 2023. Letters: b batch, h heads, g groups of keys, q k positions, d e widths, t positions.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from causal_gen.nn import blocked_attention as blocked
from causal_gen.nn.blocked_attention import NOTHING_SEEN, Tiling
from causal_gen.structure.visibility import Fields, Visibility, time_axis
from causal_gen.types import Array, ConfigError, Float

BATCH, TENSOR, SEQUENCE = ("slice", "data", "fsdp"), "tensor", "sequence"  # axes of the mesh, as parallel/mesh.py names them


def ways(*axes: str) -> int:
    """Devices of the current mesh along `axes`; 1 where no mesh is set, or this already runs on each device of it by itself."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.manual_axes:
        return 1
    return math.prod(mesh.shape.get(name, 1) for name in axes)


def over_positions(x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
    """The same numbers, kept by position along the mesh's sequence axis. Lengths that it does not divide stay as they lie."""
    if ways(SEQUENCE) == 1 or x.shape[1] % ways(SEQUENCE):
        return x
    free = PartitionSpec.UNCONSTRAINED
    return jax.lax.with_sharding_constraint(x, PartitionSpec(free, SEQUENCE, free))


def attend_ring(
    q: Float[Array, "b q h d"],
    k: Float[Array, "b k g d"],
    v: Float[Array, "b k g e"],
    visibility: Visibility,
    q_fields: Fields,
    k_fields: Fields,
    *,
    block: int,
    layer: Any = None,
    bias: Callable[[Fields, Fields], Array] | None = None,
) -> Float[Array, "b q h e"]:
    """What `attend_blocked` gives, q scaled as there. Raises ConfigError for positions that mesh.sequence does not divide."""
    (b, tq), (tk, g), around = q.shape[:2], k.shape[1:3], ways(SEQUENCE)
    if around == 1 or max(tq, tk) < around:  # a token alone, as where parameters are made, has nothing to split
        return blocked.attend_blocked(q, k, v, visibility, q_fields, k_fields, block=block, layer=layer, bias=bias)
    for side, t in (("queries", tq), ("keys", tk)):
        if t % around:
            raise ConfigError(
                f'attention: backend "ring" cuts positions evenly, and {t} {side} do not divide over mesh.sequence={around}: change the '
                'length or mesh.sequence, or choose "blocked"'
            )
    local_q, local_k, fixed = tq // around, tk // around, isinstance(layer, int)
    tiling = Tiling(min(block, local_q), min(block, local_k), local_k, visibility, bias, layer if fixed else None, None)

    def on_device(q: Array, k: Array, v: Array, q_fields: Fields, k_fields: Fields, layer: Any) -> Array:
        (q, k, v), fields = blocked.cut_up(tiling, q, k, v, q_fields, k_fields)
        out: Any = _attend(tiling, around, q, k, v, fields, layer)
        return blocked.put_together(out, local_q).astype(v.dtype)

    read = tuple(blocked.wanted(tiling, fields, side) for side, fields in enumerate((q_fields, k_fields)))
    # what tells heads apart knows them by their place among all
    heads = TENSOR if visibility.heads == 1 and bias is None and g % ways(TENSOR) == 0 and TENSOR in _axes() else None
    rows = tuple(name for name in BATCH if name in _axes()) if b % ways(*BATCH) == 0 else None
    array = PartitionSpec(rows, SEQUENCE, heads, None)
    told = jax.tree.map(lambda field: _field_spec(field, rows), read)
    specs = (array, array, array, *told, PartitionSpec())
    mapped = jax.shard_map(on_device, in_specs=specs, out_specs=array, check_vma=False)
    return mapped(q, k, v, read[0], read[1], None if fixed else layer)


def _axes() -> tuple[str, ...]:
    return jax.sharding.get_abstract_mesh().axis_names


def _field_spec(field: Array, rows: tuple[str, ...] | None) -> PartitionSpec:
    axes: list[Any] = [None] * field.ndim
    axes[time_axis(field)] = SEQUENCE
    if field.ndim > 1 and field.shape[0] > 1:
        axes[0] = rows
    return PartitionSpec(*axes)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attend(tiling: Tiling, around: int, q: Array, k: Array, v: Array, fields: Any, layer: Any) -> Array:
    return _forward(tiling, around, q, k, v, fields, layer)[0]


def _forward(tiling: Tiling, around: int, q: Array, k: Array, v: Array, fields: Any, layer: Any) -> tuple[Array, Any]:
    """Eq. (1) over a whole turn."""

    def stop(carry: Any, _: Any) -> Any:
        out, big_l, moving = carry
        k, v, k_fields = moving
        here = (fields[0], k_fields)
        part, big_part = blocked.forward(tiling, q, k, v, here, layer, blocked.thin(tiling, _pairs(q, k), here, layer))
        big_part = jnp.where(big_part == NOTHING_SEEN, -jnp.inf, big_part)
        total = jnp.logaddexp(big_l, big_part)
        base = jnp.where(total == -jnp.inf, 0.0, total)
        out = jnp.exp(big_l - base)[..., None] * out + jnp.exp(big_part - base)[..., None] * part
        return (out, total, _onward(around, moving)), None

    start = jnp.zeros((*q.shape[:-1], v.shape[-1])), jnp.full(q.shape[:-1], -jnp.inf), (k, v, fields[1])
    (out, big_l, _), _ = jax.lax.scan(stop, start, length=around)
    return out, (q, k, v, fields, layer, out, jnp.where(big_l == -jnp.inf, NOTHING_SEEN, big_l))


def _backward(tiling: Tiling, around: int, kept: Any, d_out: Array) -> tuple[Any, ...]:
    """Gradients of each shard's keys against the outputs and L of all keys; those of keys travel with them."""
    q, k, v, fields, layer, out, big_l = kept

    def stop(carry: Any, _: Any) -> Any:
        still, moving, gone = carry
        k, v, k_fields = moving
        here = (fields[0], k_fields)
        schedule = blocked.thin(tiling, _pairs(q, k), here, layer)
        dq, dk, dv, (d_own, d_seen) = blocked.backward(tiling, q, k, v, here, layer, schedule, out, big_l, d_out)
        still, gone = jax.tree.map(jnp.add, (still, gone), ((dq, d_own), (dk, dv, d_seen)))
        return (still, *_onward(around, (moving, gone))), None

    learned = blocked.learned(tiling, fields)
    dq, dk, dv = (jnp.zeros(x.shape, jnp.float32) for x in (q, k, v))
    d_own, d_seen = jax.tree.map(jnp.zeros_like, learned)
    (still, _, gone), _ = jax.lax.scan(stop, ((dq, d_own), (k, v, fields[1]), (dk, dv, d_seen)), length=around)
    (dq, d_own), (dk, dv, d_seen) = still, gone
    d_fields = blocked.complete((d_own, d_seen), fields)
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), d_fields, None


_attend.defvjp(_forward, _backward)


def _pairs(q: Array, k: Array) -> Array:
    """Every tile of queries with every tile of keys: what of them is seen is known on the device alone."""
    return jnp.asarray(np.argwhere(np.ones((q.shape[0], k.shape[0]))), jnp.int32)


def _onward(around: int, tree: Any) -> Any:
    return jax.lax.ppermute(tree, SEQUENCE, [(i, (i + 1) % around) for i in range(around)])
