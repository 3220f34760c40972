"""Caches of a decoder as pure pytrees: what is kept of the tokens seen, and under which fields attention sees it.

A cache holds c slots a row. A slot is an entry of every leaf of `store`, the fields that its token had (its place in the sequence, its
document, ...) and whether it is `valid`. Attention never asks where a slot lies: order is in the fields alone, so that

    append   token n goes to slot n                          everything is kept; c bounds the sequence                  (1)
    ring     token n goes to slot n mod c                    the last c tokens are kept                                 (2)
    evict    token n takes the valid slot of lowest score    at most c tokens are kept, whatever `score` says           (3)
    merge    token n is added to slot floor(n / s)           s neighbours share a slot (MTLA's temporal latents)        (4)

differ only in where they write. A cached step is then the full forward pass under the visibility that hides what is not kept.
Tokens are taken back by `commit`: of those inserted since the last commit only the named ones stay (the accepted path of a tree).

Sources: (2) Beltagy et al. 2020, sliding windows; (3) Zhang et al. 2023 (H2O) and Huang et al. 2024 (Locret), a fixed budget;
(4) Deng and Woodland 2025 (MTLA), eq. 10. Letters: l layer, b batch, c slots, k new tokens, m tokens kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from causal_gen.types import Array, Bool, ConfigError, Float, Int, PyTree

KINDS = ("append", "ring", "evict", "merge")
QUARTERED = 128  # tokens from which on a cache grows by quarters
LEAST = 32  # tokens that a room is used for


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
    """`store` has leaves [l, b, ..., c, e], or is a tuple of layers with leaves [b, ..., c, e]; `fields`, `valid` and `stamp` (which token
    of the sequence came here) are [b, c].

    `count` tokens came so far, `mark` of them are committed (i32 []).
    """

    store: PyTree
    fields: dict[str, Any]
    valid: Any
    stamp: Any
    count: Any
    mark: Any
    kind: str = dataclasses.field(default="append", metadata={"static": True})
    stride: int = dataclasses.field(default=1, metadata={"static": True})

    @property
    def slots(self) -> int:
        """c, how many slots a row has."""
        return self.valid.shape[1]


def empty(like: PyTree, fields: Mapping[str, Array], slots: int, kind: str = "append", stride: int = 1) -> Cache:
    """A cache without tokens for entries shaped and typed as `like` [l, b, ..., t, e] and `fields` [b, t] (arrays or their shapes).

    Raises `ConfigError` for an unknown kind, or less than one slot or a stride of less than one.
    """
    if kind not in KINDS:
        raise ConfigError(f"cache: unknown kind {kind!r}; known are {', '.join(KINDS)}")
    if slots < 1 or stride < 1:
        raise ConfigError(f"cache: {slots} slots with a stride of {stride}; both are at least 1")
    store = jax.tree.map(lambda x: jnp.zeros((*x.shape[:-2], slots, x.shape[-1]), x.dtype), like)
    rows = jax.tree.leaves(like)[0].shape[_batch_axis(like)]
    held = {name: jnp.zeros((rows, slots), value.dtype) for name, value in fields.items()}
    zero = jnp.zeros((), jnp.int32)
    return Cache(store, held, jnp.zeros((rows, slots), bool), jnp.zeros((rows, slots), jnp.int32), zero, zero, kind, stride)


def insert(cache: Cache, new: PyTree, fields: Mapping[str, Array]) -> Cache:
    """The cache with k more tokens, `new` [l, b, ..., k, e] with `fields` [b, k], by the cache's own kind."""
    return {"append": append, "ring": ring, "evict": evict, "merge": merge}[cache.kind](cache, new, fields)


def append(cache: Cache, new: PyTree, fields: Mapping[str, Array]) -> Cache:
    """Eq. (1). The caller answers for count + k <= c; a prompt that can never fit is refused here."""
    return _write_run(claim(cache, fields), new, cache.count)


def claim(cache: Cache, fields: Mapping[str, Array]) -> Cache:
    """Eq. (1) but for the entries, which the caller writes into the slots from the old `count` on.

    Raises `ConfigError` where the tokens do not fit.
    """
    num = fields["index"].shape[1]
    if num > cache.slots:
        raise ConfigError(f"cache: {num} tokens do not fit into {cache.slots} slots; shorten the prompt or give the cache more slots")
    return _label_run(cache, fields, cache.count, num)


def ring(cache: Cache, new: PyTree, fields: Mapping[str, Array]) -> Cache:
    """Eq. (2). Exact under a window of w when c >= w - 1 + k, k being the tokens of one call that may be taken back, else c >= w - 1."""
    num, slots = _tokens(new), cache.slots
    if num == 1:
        at = cache.count % slots
        return _write_run(_label_run(cache, fields, at, 1), new, at)
    if num > slots:
        last = jnp.broadcast_to(jnp.arange(num - slots, num), (cache.valid.shape[0], slots))
        new, fields = _pick(new, fields, last)
    size = min(num, slots)
    stamps = cache.count + num - size + jnp.arange(size, dtype=jnp.int32)
    at = jnp.broadcast_to(stamps % slots, (cache.valid.shape[0], size))
    return dataclasses.replace(_scatter(cache, new, fields, at, stamps), count=cache.count + num)


def evict(cache: Cache, new: PyTree, fields: Mapping[str, Array]) -> Cache:
    """Eq. (3): empty slots first, then those of the lowest field `score`; without that field the oldest go. Uncommitted tokens stay."""
    num, count = _tokens(new), cache.count + _tokens(new)
    stamps = cache.count + jnp.arange(num, dtype=jnp.int32)
    if num > cache.slots:  # the best c of the newcomers themselves; nothing that was kept before outlives them
        rank = fields["score"] if "score" in cache.fields else jnp.broadcast_to(stamps, (cache.valid.shape[0], num))
        _, best = jax.lax.top_k(rank.astype(jnp.float32), cache.slots)
        (new, fields), stamps = _pick(new, fields, best), stamps[best]
    rank = jnp.where(cache.stamp >= cache.mark, jnp.finfo(jnp.float32).max, _rank(cache))
    _, at = jax.lax.top_k(-jnp.where(cache.valid, rank, -jnp.inf), _tokens(new))
    return dataclasses.replace(_scatter(cache, new, fields, at, stamps), count=count)


def merge(cache: Cache, new: PyTree, fields: Mapping[str, Array]) -> Cache:
    """Eq. (4), a token at a time: a slot holds the sum of its tokens so far and the fields of the last of them.

    Raises `ConfigError` where the tokens overrun the slots.
    """
    num = _tokens(new)
    if not isinstance(cache.count, Tracer) and -(-(int(cache.count) + num) // cache.stride) > cache.slots:
        raise ConfigError(f"cache: {num} more tokens at stride {cache.stride} overrun {cache.slots} slots; give the cache more slots")

    def one(cache: Cache, xs: tuple[PyTree, dict[str, Array]]) -> tuple[Cache, None]:
        x, field = xs
        slot, fresh = cache.count // cache.stride, cache.count % cache.stride == 0

        def add(old: Array, x: Array) -> Array:
            held = jax.lax.dynamic_index_in_dim(old, slot, -2, keepdims=True)
            total = jnp.where(fresh, 0, held) + x[..., None, :].astype(old.dtype)
            return jax.lax.dynamic_update_slice_in_dim(old, total, slot, -2)

        store = jax.tree.map(add, cache.store, x)
        cache = dataclasses.replace(cache, store=store)
        return _label_run(cache, {name: value[:, None] for name, value in field.items()}, slot, 1), None

    tokens = jax.tree.map(lambda x: jnp.moveaxis(x, -2, 0), new)
    return jax.lax.scan(one, cache, (tokens, {name: fields[name].T for name in cache.fields}))[0]


def commit(cache: Cache, indices: Int[Array, "b m"] | None = None) -> Cache:
    """Of the tokens inserted since the last commit keep those at `indices` (0 the first of them; -1, at the end of a row: none).

    Kept tokens count as having come one after another, in the order given; their fields stay as they are. None keeps all. Rows may keep
    different numbers: shorter ones then have empty slots, which hide themselves. A merge cache cannot take tokens back.

    Raises `ConfigError` for a merge cache, which cannot take tokens back.
    """
    if indices is None:
        return dataclasses.replace(cache, mark=cache.count)
    if cache.kind == "merge":
        raise ConfigError("cache: a merge cache cannot take tokens back; commit all of them, or decode with another kind of cache")
    kept = indices >= 0
    count = cache.mark + kept.sum(1).max().astype(jnp.int32)
    order = cache.mark + jnp.arange(indices.shape[1], dtype=jnp.int32)
    if cache.kind == "evict":  # tokens stay where they are
        hit = (cache.stamp[:, :, None] == (cache.mark + indices)[:, None, :]) & kept[:, None, :]
        before = cache.stamp < cache.mark
        stamp = jnp.where(before, cache.stamp, (hit * order.reshape(1, 1, -1)).sum(-1))
        return dataclasses.replace(cache, stamp=stamp, valid=cache.valid & (before | hit.any(-1)), count=count, mark=count)
    source = (cache.mark + jnp.maximum(indices, 0)) % cache.slots
    target = jnp.broadcast_to(order % cache.slots, indices.shape)
    store, held = _pick(cache.store, cache.fields, source)
    cache = dataclasses.replace(_scatter(cache, store, held, target, order), count=count, mark=count)
    rows = jnp.arange(indices.shape[0])[:, None]
    return dataclasses.replace(cache, valid=cache.valid.at[rows, target].set(kept) & (cache.stamp < count))


def widen(cache: Cache, slots: int) -> Cache:
    """The cache with empty slots behind its own, `slots` of them in all: a step reads every slot, so that one which starts small is fast.

    Raises `ConfigError` for another kind than append, whose number of slots says what it keeps, or fewer slots than there are.
    """
    if cache.kind != "append" or slots < cache.slots:
        raise ConfigError(f"cache: {cache.kind} with {cache.slots} slots cannot be widened to {slots}; widen an append cache to more slots")
    more = slots - cache.slots

    def pad(x: Array, axis: int) -> Array:
        return jnp.pad(x, [(0, more if i == axis % x.ndim else 0) for i in range(x.ndim)])

    store, fields = jax.tree.map(lambda x: pad(x, -2), cache.store), {name: pad(value, 1) for name, value in cache.fields.items()}
    return dataclasses.replace(cache, store=store, fields=fields, valid=pad(cache.valid, 1), stamp=pad(cache.stamp, 1))


def rooms(given: int, last: int) -> tuple[int, ...]:
    """Slots that a cache has in turn while a text grows from `given` tokens to `last`: quarters of the whole, but for short texts, where
    reading empty slots costs less than compiling the loop again."""
    quarters = () if last < QUARTERED else (last * part // 4 for part in (1, 2, 3))
    return (*(room for room in quarters if room >= given + LEAST), last)


def fork(cache: Cache, rows: Int[Array, "m"]) -> Cache:
    """A cache of m rows, the i-th a copy of row `rows[i]`: survivors of a beam, or several continuations of one prompt."""
    store = jax.tree.map(lambda x: jnp.take(x, rows, _batch_axis(cache.store)), cache.store)
    held = {name: value[rows] for name, value in cache.fields.items()}
    return dataclasses.replace(cache, store=store, fields=held, valid=cache.valid[rows], stamp=cache.stamp[rows])


def holds(cache: Cache, num: int) -> Bool[Array, "b num"]:
    """Which of the tokens 0..num-1 the cache still holds: the visibility that it realises."""
    return ((cache.stamp[:, :, None] == jnp.arange(num).reshape(1, 1, -1)) & cache.valid[:, :, None]).any(1)


def _batch_axis(store: PyTree) -> int:
    return 0 if isinstance(store, tuple) else 1


def _tokens(new: PyTree) -> int:
    return jax.tree.leaves(new)[0].shape[-2]


def _rank(cache: Cache) -> Float[Array, "b c"]:
    return (cache.fields["score"] if "score" in cache.fields else cache.stamp).astype(jnp.float32)


def _pick(store: PyTree, fields: Mapping[str, Array], at: Int[Array, "b m"]) -> tuple[PyTree, dict[str, Array]]:
    """Entries [l, b, ..., m, e] and fields [b, m] at each row's own slots."""
    axis = _batch_axis(store)
    take = jax.vmap(lambda row, at: row[..., at, :], in_axes=(axis, 0), out_axes=axis)
    return jax.tree.map(lambda x: take(x, at), store), {name: jnp.take_along_axis(value, at, 1) for name, value in fields.items()}


def _scatter(cache: Cache, new: PyTree, fields: Mapping[str, Array], at: Int[Array, "b m"], stamps: Array) -> Cache:
    """New entries at each row's own slots."""
    rows = jnp.arange(at.shape[0])[:, None]
    axis = _batch_axis(cache.store)
    put = jax.vmap(lambda old, x, at: old.at[..., at, :].set(x.astype(old.dtype)), in_axes=(axis, axis, 0), out_axes=axis)
    store = jax.tree.map(lambda old, x: put(old, x, at), cache.store, new)
    held = {name: old.at[rows, at].set(fields[name].astype(old.dtype)) for name, old in cache.fields.items()}
    stamp = cache.stamp.at[rows, at].set(jnp.broadcast_to(stamps, at.shape))
    return dataclasses.replace(cache, store=store, fields=held, stamp=stamp, valid=cache.valid.at[rows, at].set(True))


def _write_run(cache: Cache, new: PyTree, start: Array) -> Cache:
    """New entries into neighbouring slots from `start` on: one copy a leaf, which a loop does in place."""
    store = jax.tree.map(lambda old, x: jax.lax.dynamic_update_slice_in_dim(old, x.astype(old.dtype), start, -2), cache.store, new)
    return dataclasses.replace(cache, store=store)


def _label_run(cache: Cache, fields: Mapping[str, Array], start: Array, num: int) -> Cache:
    write, rows = jax.lax.dynamic_update_slice_in_dim, cache.valid.shape[0]
    held = {name: write(old, fields[name].astype(old.dtype), start, 1) for name, old in cache.fields.items()}
    stamps = jnp.broadcast_to(cache.count + jnp.arange(num, dtype=jnp.int32), (rows, num))
    stamp, valid = write(cache.stamp, stamps, start, 1), write(cache.valid, jnp.ones((rows, num), bool), start, 1)
    return dataclasses.replace(cache, fields=held, valid=valid, stamp=stamp, count=cache.count + num)
