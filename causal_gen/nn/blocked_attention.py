"""Exact attention tile by tile: hidden tiles cost nothing, and memory grows with the sequence, not with its square.

    s_ij = <q_i, k_j>,   o_i = sum_j w_ij e^{s_ij} v_j / sum_j w_ij e^{s_ij}                                                (1)
    online over tiles J with running maximum m, mass l and sum a:
        m' = max(m, max_J s),   l' = e^{m - m'} l + sum_J w e^{s - m'},   a' = e^{m - m'} a + sum_J w e^{s - m'} v          (2)
    kept for the backward pass: o and L = m + log l, from which p_ij = w_ij e^{s_ij - L_i} is computed anew                 (3)
        dv_j = sum_i p_ij do_i,   ds_ij = p_ij (<do_i, v_j> - <do_i, o_i>),   dw_ij = ds_ij / w_ij                          (4)

Work is a list of pairs (query tile, key tile) that are not wholly hidden. What is known while tracing (numpy fields) thins the list on the
host; fields of the batch thin it further on the device, where a loop with a traced number of turns visits what is left. One loop over pairs
serves any pattern at the cost of its visible tiles alone. w is 1 or 0 unless the visibility is soft; only then it gets a gradient, (4).
Sources: (2) Milakov & Gimelshein 2018; (3, 4) Dao et al. 2022. Letters: b batch, h heads, g groups of keys (h = g r), q k positions of
queries and keys, d e widths, i j tiles; arrays of tiles are [i, b, g, r, q, d] and [j, b, g, k, d].
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from causal_gen.structure.tiles import tiles
from causal_gen.structure.visibility import Fields, Visibility, cut, time_axis
from causal_gen.types import Array, Float

STEEPEST = 30.0  # exponent at which the slope of a closed gate is cut, lest a high score behind it overflow
NOTHING_SEEN = 1e30  # L of a query that sees nothing: every e^{s - L} is then exactly 0

FieldArrays = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Tiling:
    """What is static: sides of a tile, number of keys, who sees whom, the bias of scores, the layer, and how many pairs there are."""

    block_q: int
    block_k: int
    keys: int
    visibility: Visibility
    bias: Callable[[Fields, Fields], Array] | None
    layer: int | None
    turns: int | None  # of the loop over pairs; None where only the device knows


def attend_blocked(
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
    """Eq. (1) over tiles of `block` x `block`; q comes scaled, `bias(q_fields, k_fields)` is added to the scores."""
    (b, tq, h, _), (tk, _, e) = q.shape, v.shape[1:]
    block_q, block_k = min(block, tq), min(block, tk)
    pairs = np.argwhere(tiles(visibility, q_fields, k_fields, block_q, block_k, layer))
    if not len(pairs):
        return jnp.zeros((b, tq, h, e), v.dtype)
    fixed = isinstance(layer, int)
    known = _known(visibility, q_fields, k_fields) and (fixed or not visibility.layered)
    tiling = Tiling(block_q, block_k, tk, visibility, bias, layer if fixed else None, len(pairs) if known else None)
    tiled, fields = cut_up(tiling, q, k, v, q_fields, k_fields)
    schedule = jnp.asarray(pairs, jnp.int32), None
    if not known:
        schedule = thin(tiling, schedule[0], fields, None if fixed else layer)
    out: Any = _attend(tiling, *tiled, fields, None if fixed else layer, schedule)
    return put_together(out, tq).astype(v.dtype)


def cut_up(tiling: Tiling, q: Array, k: Array, v: Array, q_fields: Fields, k_fields: Fields) -> tuple[tuple[Array, Array, Array], Any]:
    """q, k and v as arrays of tiles, and the fields that tiles read.

    From q [b, q, h, d], k and v [b, k, g, d] to [i, b, g, r, q, d] and [j, b, g, k, d].
    """
    (b, _, h, d), g = q.shape, k.shape[2]
    q_tiled = jnp.moveaxis(_split(q, tiling.block_q).reshape(b, -1, tiling.block_q, g, h // g, d), (1, 2), (0, 4))
    k_tiled, v_tiled = (jnp.moveaxis(_split(x, tiling.block_k), (1, 2), (0, 3)) for x in (k, v))
    fields = zip((q_fields, k_fields), (tiling.block_q, tiling.block_k), strict=True)
    filled = ({n: _fill(x, block, time_axis(x)) for n, x in wanted(tiling, own, s).items()} for s, (own, block) in enumerate(fields))
    return (q_tiled, k_tiled, v_tiled), tuple(filled)


def put_together(out: Array, tq: int) -> Float[Array, "b q h e"]:
    """Tiles of outputs as one array, without what filled up the last. `out` is [i, b, g, r, q, e]."""
    _, b, g, r, _, e = out.shape
    return jnp.moveaxis(out, (0, 4), (1, 2)).reshape(b, -1, g * r, e)[:, :tq]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(tiling: Tiling, q: Array, k: Array, v: Array, fields: Any, layer: Any, schedule: Any) -> Array:
    return forward(tiling, q, k, v, fields, layer, schedule)[0]


def _keeping(tiling: Tiling, q: Array, k: Array, v: Array, fields: Any, layer: Any, schedule: Any) -> tuple[Array, Any]:
    out, big_l = forward(tiling, q, k, v, fields, layer, schedule)
    return out, (q, k, v, fields, layer, schedule, out, big_l)


def forward(tiling: Tiling, q: Array, k: Array, v: Array, fields: Any, layer: Any, schedule: Any) -> tuple[Array, Array]:
    """Eq. (2) from the first pair to the last: outputs, and L of eq. (3), both f32.

    Arrays are tiles, [i, b, g, r, q, d] and [j, b, g, k, d].
    """

    def step(i: Any, j: Any, carry: Any) -> Any:
        a, m, l = carry
        seen, w = _weights(tiling, _tile_of(tiling, fields, i, j), layer, j, q.shape[2:4])
        s = jnp.where(seen, _scores(tiling, q, k, fields, i, j), -jnp.inf)
        top = jnp.maximum(m[i], s.max(-1))
        base = jnp.where(top == -jnp.inf, 0.0, top)
        p = jnp.exp(s - base[..., None])
        p = p if w is None else p * w
        decay = jnp.exp(m[i] - base)
        summed = jnp.einsum("bgrqk,bgke->bgrqe", p.astype(v.dtype), v[j], preferred_element_type=jnp.float32)
        return _put(a, i, decay[..., None] * a[i] + summed), _put(m, i, top), _put(l, i, decay * l[i] + p.sum(-1))

    rows = q.shape[:-1]
    start = jnp.zeros((*rows, v.shape[-1])), jnp.full(rows, -jnp.inf), jnp.zeros(rows)
    a, m, l = _over_pairs(tiling, schedule, step, start)
    out = a / jnp.where(l > 0, l, 1.0)[..., None]
    return out, jnp.where(l > 0, m + jnp.log(jnp.where(l > 0, l, 1.0)), NOTHING_SEEN)


def _backward(tiling: Tiling, kept: Any, d_out: Array) -> tuple[Any, ...]:
    q, k, v, fields, layer, schedule, out, big_l = kept
    dq, dk, dv, d_fields = backward(tiling, q, k, v, fields, layer, schedule, out, big_l, d_out)
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), complete(d_fields, fields), None, None


def learned(tiling: Tiling, fields: Any) -> Any:
    """The fields that a gradient goes to: the float ones of a soft visibility."""
    soft = not tiling.visibility.hard
    return tuple({name: x for name, x in side.items() if soft and jnp.issubdtype(x.dtype, jnp.floating)} for side in fields)


def complete(d_fields: Any, fields: Any) -> Any:
    """Gradients of the float fields with None for the others, as a custom gradient wants them."""
    return tuple({name: got.get(name) for name in side} for side, got in zip(fields, d_fields, strict=True))


def backward(
    tiling: Tiling, q: Array, k: Array, v: Array, fields: Any, layer: Any, schedule: Any, out: Array, big_l: Array, d_out: Array
) -> tuple[Array, Array, Array, Any]:
    """Eqs. (3, 4) in f32; one visit of a pair adds to the gradients of its queries, its keys and its float fields.

    `out` and `big_l` may be those of more keys than are given here: what comes back is then these keys' part.

    Arrays are tiles, as in `forward`, each gradient of the shape [i, b, ...] or [j, b, ...] of its array.
    """
    # <do_i, o_i> as a product with ones: CPUs are slow to sum a short last axis. Its terms cancel, so no unit may round them first
    delta, d_out = jnp.matmul(d_out * out, jnp.ones(out.shape[-1]), precision="highest"), d_out.astype(v.dtype)
    differing = learned(tiling, fields)

    def step(i: Any, j: Any, carry: Any) -> Any:
        dq, dk, dv, d_fields = carry
        sides = _tile_of(tiling, fields, i, j)

        def weigh(some: Any) -> Any:
            return _weights(tiling, tuple(side | extra for side, extra in zip(sides, some, strict=True)), layer, j, q.shape[2:4])

        differ = _tile_of(tiling, differing, i, j)
        (seen, w), pull = (weigh(differ), None) if not any(differ) else _vjp_of_weight(weigh, differ)
        # [.., k, q]: of three products with p and ds two then take them as they lie
        s = _turned(_scores(tiling, q, k, fields, i, j)) - big_l[i][..., None, :]
        e = jnp.exp(jnp.where(_turned(seen), s, -jnp.inf))
        p = e if w is None else e * _turned(w)
        dp = jnp.einsum("bgke,bgrqe->bgrkq", v[j], d_out[i], preferred_element_type=jnp.float32) - delta[i][..., None, :]
        if pull is not None:
            d_fields = _add_fields(tiling, d_fields, pull(_turned(jnp.exp(jnp.minimum(s, STEEPEST)) * dp)), i, j)
        ds = (p * dp).astype(q.dtype)
        add = {"preferred_element_type": jnp.float32}
        dq = _put(dq, i, dq[i] + jnp.einsum("bgrkq,bgkd->bgrqd", ds, k[j], **add))
        dk = _put(dk, j, dk[j] + jnp.einsum("bgrkq,bgrqd->bgkd", ds, q[i], **add))
        dv = _put(dv, j, dv[j] + jnp.einsum("bgrkq,bgrqe->bgke", p.astype(v.dtype), d_out[i], **add))
        return dq, dk, dv, d_fields

    start = (*(jnp.zeros(x.shape, jnp.float32) for x in (q, k, v)), jax.tree.map(jnp.zeros_like, differing))
    return _over_pairs(tiling, schedule, step, start)


_attend.defvjp(_keeping, _backward)


def _over_pairs(tiling: Tiling, schedule: Any, step: Callable[[Any, Any, Any], Any], start: Any) -> Any:
    """`step(i, j, carry)` over all pairs. Written out, even a few pairs were no faster on a CPU."""
    pairs, count = schedule
    turns = count if tiling.turns is None else tiling.turns
    return jax.lax.fori_loop(0, turns, lambda n, carry: step(pairs[n, 0], pairs[n, 1], carry), start)


def _put(of: Array, i: Any, tile: Array) -> Array:
    # written in place by every backend, which a scatter (`.at`) is not
    return jax.lax.dynamic_update_index_in_dim(of, tile, i, 0)


def _scores(tiling: Tiling, q: Array, k: Array, fields: Any, i: Any, j: Any) -> Array:
    """s of one pair, [b, g, r, q, k]."""
    s = jnp.einsum("bgrqd,bgkd->bgrqk", q[i], k[j], preferred_element_type=jnp.float32)
    return s if tiling.bias is None else s + by_group(tiling.bias(*_tile_of(tiling, fields, i, j)), q.shape[2:4])


def _turned(x: Array) -> Array:
    """[.., q, k] as [.., k, q]."""
    return jnp.swapaxes(x, -1, -2)


def _weights(tiling: Tiling, sides: tuple[Fields, Fields], layer: Any, j: Any, groups: tuple[int, ...]) -> tuple[Array, Array | None]:
    """(where w > 0, w or None if it is 1 there) of one pair. Keys behind the last are filled up and hidden."""
    layer = tiling.layer if layer is None else layer
    w = by_group((tiling.visibility if tiling.visibility.hard else tiling.visibility.weight)(*sides, layer), groups)
    if tiling.keys % tiling.block_k:
        inside = (j * tiling.block_k + jnp.arange(tiling.block_k) < tiling.keys).reshape(1, 1, 1, 1, -1)
        w = w & inside if tiling.visibility.hard else w * inside
    return (w, None) if tiling.visibility.hard else (w > 0, w)


def _vjp_of_weight(weigh: Callable[[Any], tuple[Array, Any]], at: Any) -> tuple[tuple[Array, Array], Callable[[Array], Any]]:
    """The weights, and the way back from slopes [b, g, r, q, k] to the float fields of the tile."""
    w, pull = jax.vjp(lambda some: weigh(some)[1], at)
    return (w > 0, w), lambda slope: pull(_sum_to(slope, w.shape))[0]


def by_group(x: Array, groups: tuple[int, ...]) -> Array:
    """[b, h, q, k] or [b, 1, q, k] as [b, g, r, q, k], with 1s where heads are alike."""
    g, r = groups if x.shape[1] > 1 else (1, 1)
    return x.reshape(x.shape[0], g, r, *x.shape[2:])


def _sum_to(x: Array, shape: tuple[int, ...]) -> Array:
    return x.sum([axis for axis, n in enumerate(shape) if n == 1 and x.shape[axis] > 1], keepdims=True)


def thin(tiling: Tiling, pairs: Array, fields: Any, layer: Any) -> tuple[Array, Array]:
    """The pairs that are not wholly hidden, first and in order, and how many they are. `pairs` are [p, 2], (query tile, key tile)."""

    def visible(pair: Array) -> Array:
        return _weights(tiling, _tile_of(tiling, fields, pair[0], pair[1]), layer, pair[1], (1, tiling.visibility.heads))[0].any()

    flags = jax.lax.map(visible, pairs)
    return pairs[jnp.argsort(~flags)], flags.sum()


def _known(visibility: Visibility, q_fields: Fields, k_fields: Fields) -> bool:
    """Whether all that the visibility reads is there while tracing, so that the host's list of pairs is exact."""
    reads = zip(visibility.reads, (q_fields, k_fields), strict=True)
    return not any(isinstance(fields.get(name), Tracer) for names, fields in reads for name in names)


def wanted(tiling: Tiling, fields: Fields, side: int) -> FieldArrays:
    """The fields that a tile is going to read."""
    names = tiling.visibility.reads[side] | {"index"} | (set() if tiling.bias is None else {"position"})
    return {name: jnp.asarray(fields[name]) for name in sorted(names & fields.keys())}


def _tile_of(tiling: Tiling, fields: tuple[Mapping[str, Array], ...], i: Any, j: Any) -> tuple[FieldArrays, FieldArrays]:
    """The fields of one pair."""
    starts = (i * tiling.block_q, tiling.block_q), (j * tiling.block_k, tiling.block_k)
    q, k = ({name: cut(x, *where) for name, x in side.items()} for side, where in zip(fields, starts, strict=True))
    return q, k


def _add_fields(tiling: Tiling, total: Any, part: Any, i: Any, j: Any) -> Any:
    def add(whole: Array, tile: Array, start: Any) -> Array:
        axis = time_axis(whole)
        old = jax.lax.dynamic_slice_in_dim(whole, start, tile.shape[axis], axis)
        return jax.lax.dynamic_update_slice_in_dim(whole, old + tile, start, axis)

    starts = i * tiling.block_q, j * tiling.block_k
    return tuple({n: add(side[n], tile[n], at) for n in side} for side, tile, at in zip(total, part, starts, strict=True))


def _split(x: Array, block: int) -> Array:
    """[b, t, h, d] -> [b, tiles, block, h, d]."""
    x = _fill(x, block, 1)
    return x.reshape(x.shape[0], -1, block, *x.shape[2:])


def _fill(x: Array, block: int, axis: int) -> Array:
    missing = -x.shape[axis] % block
    return x if not missing else jnp.pad(x, [(0, missing if a == axis else 0) for a in range(x.ndim)])
