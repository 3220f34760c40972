"""Invertible rearrangements of a sequence, as index maps.

A `Layout` says of each slot of the arranged sequence y which token of x it holds, and where each token of x is found back:

    y[s] = x[source[s]]  (source >= 0),   else filler number -1 - source[s]                                                      (1)
    x[i] = y[place[i]],   so that inverse(apply(x)) == x for every array over the tokens                                         (2)

`loss` is 1 in the slots whose token is to be predicted, in place or from the slot before as the model does it; `fields` are what
visibilities read (`fields_for(u, u, **layout.fields)`). Places count flat over the axes that the layout covers (rows and columns after
packing, steps and codebooks before a delay). Each function is about one sequence: `jax.vmap` it over a batch of spans or
orders. Those that take only numbers and numpy arrays work in numpy, on the host, and their fields stay known while a step is traced.

Sources: rotate_spans: Aghajanyan et al., CM3 (2022); delay: Copet et al., MusicGen (2023); both in one: Peng et al., VoiceCraft (2024),
sec. 3.1; double: Hu et al., ACDiT (2024); pseudo_mask: Bao et al., UniLMv2 (2020), and s2s-ft (2021).
Letters: t tokens of x, u slots of y, m spans or masks, k codebooks.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from causal_gen.types import Array, ConfigError, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Layout:
    """A rearrangement of x over axes [*t] into y over [*u], eqs. (1, 2)."""

    source: Any  # i32[*u]
    place: Any  # i32[*t]
    loss: Any  # f32[*u]
    fields: dict[str, Any]  # name -> i32[u], or [rows, u] after packing
    fillers: int = dataclasses.field(default=0, metadata={"static": True})  # kinds of filler slots

    def apply(self, x: Any, fill: Any = 0) -> Any:
        """y [*u, ...] of x [*t, ...]; `fill` is a value for all filler slots, or an array [fillers, ...] of one value a kind.

        Raises `ConfigError` where shapes do not fit.
        """
        axes = self.place.ndim
        if x.shape[:axes] != self.place.shape:
            raise ConfigError(f"layout: it arranges {list(self.place.shape)} tokens, the array has shape {list(x.shape)}")
        xp, features = _numpy(x, fill, self.source), x.shape[axes:]
        fill = xp.asarray(fill, x.dtype)
        if fill.ndim and fill.shape != (self.fillers, *features):
            raise ConfigError(f"layout: fill has shape {list(fill.shape)}; give a scalar, or one value a kind: {[self.fillers, *features]}")
        flat = xp.concatenate([xp.broadcast_to(fill, (self.fillers, *features))[::-1], x.reshape(-1, *features)])
        return flat[self.source + self.fillers]

    def inverse(self, y: Any) -> Any:
        """x [*t, ...] of y [*u, ...]. Raises `ConfigError` where the shape does not fit."""
        axes = self.source.ndim
        if y.shape[:axes] != self.source.shape:
            raise ConfigError(f"layout: it has {list(self.source.shape)} slots, the array has shape {list(y.shape)}")
        return _numpy(y, self.place).asarray(y).reshape(-1, *y.shape[axes:])[self.place]


def _numpy(*arrays: Any) -> ModuleType:
    """numpy where nothing is on a device or traced, else jax.numpy."""
    return jnp if any(isinstance(array, jax.Array) for array in arrays) else np


def pack(lengths: Sequence[int], size: int, *, whole: bool = False) -> Layout:
    """Documents laid end to end, x [sum of lengths], into rows [rows, size]; fields "document" (-1: padding) and "position".

    By default rows are cut wherever they are full: no slot is empty but at the end of the last. With `whole` a document is cut only where
    it is longer than a row, and goes where it leaves the least room (best fit, longest first). Not to be predicted: padding, and the
    first token of a document in a row, since nothing of its document comes before it.

    Raises `ConfigError` where there is nothing to pack, or no room in a row.
    """
    lengths = [int(length) for length in lengths]
    if size < 1 or any(length < 0 for length in lengths) or not sum(lengths):
        raise ConfigError(f"pack: rows of {size} for {len(lengths)} documents of {sum(lengths)} tokens; both need to be positive")
    ends = np.cumsum(lengths)
    document = np.repeat(np.arange(len(lengths)), lengths)
    position = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
    place = _best_fit(document, position, size) if whole else np.arange(ends[-1])
    rows = -(-int(place.max() + 1) // size)
    source = np.full(rows * size, -1)
    source[place] = np.arange(place.size)
    inside = np.where(source >= 0, document[source], -1)
    first = np.diff(inside, prepend=-1) != 0
    first[::size] = True
    fields = {"document": inside, "position": np.where(source >= 0, position[source], 0)}
    return Layout(
        source.reshape(rows, size).astype(np.int32),
        place.astype(np.int32),
        ((source >= 0) & ~first).reshape(rows, size).astype(np.float32),
        {name: field.reshape(rows, size).astype(np.int32) for name, field in fields.items()},
        fillers=1,
    )


def _best_fit(document: np.ndarray, position: np.ndarray, size: int) -> np.ndarray:
    """The slot of each token: pieces of at most a row, longest first, each into the fullest row that takes it."""
    starts = np.flatnonzero(position % size == 0)
    sizes = np.diff(starts, append=document.size)
    place, room, rows = np.empty(document.size, int), [], 0  # room: (free slots, row), sorted
    for piece in np.argsort(-sizes, kind="stable"):
        start, length = starts[piece], int(sizes[piece])
        at = bisect.bisect_left(room, (length, -1))
        free, row = room.pop(at) if at < len(room) else (size, rows)
        rows = max(rows, row + 1)
        place[start : start + length] = row * size + size - free + np.arange(length)
        bisect.insort(room, (free - length, row))
    return place


def rotate_spans(t: int, starts: Int[Array, "m"] | Int[np.ndarray, "m"], stops: Int[Array, "m"] | Int[np.ndarray, "m"]) -> Layout:
    """Spans [starts, stops) (i32 [m], ascending, apart, maybe empty) move to the end, so that infilling is next-token prediction.

    x = a B c D e becomes a <0> c <1> e <0> B <1> D with filler number j at the hole and at the head of span j: u = t + 2 m. Fields
    "segment" (0 the rest, j + 1 span j with its head) and "position" (in x; a filler has that of its span's start). Fillers are given.

    Raises `ConfigError` for spans that overlap, descend or leave the sequence.
    """
    if starts.shape != stops.shape:
        raise ConfigError(f"rotate_spans: {starts.shape[0]} starts and {stops.shape[0]} stops; give each span both")
    m, xp = starts.shape[0], _numpy(starts, stops)
    if not any(isinstance(bound, Tracer) for bound in (starts, stops)):
        bounds = np.stack([np.asarray(starts), np.asarray(stops)], 1).reshape(-1)
        if bounds.size and (bounds[0] < 0 or bounds[-1] > t or (np.diff(bounds) < 0).any()):
            raise ConfigError(f"rotate_spans: spans {bounds.reshape(-1, 2).tolist()} of {t} tokens; give them ascending, apart and inside")
    starts, stops = xp.asarray(starts, xp.int32), xp.asarray(stops, xp.int32)
    token, span, none = np.arange(t, dtype=np.int32), np.arange(m, dtype=np.int32), np.zeros(m, np.int32)
    sizes = stops - starts
    before = xp.cumsum(sizes) - sizes  # tokens in spans to the left
    heads, holes = t - sizes.sum() + m + before + span, starts - before + span
    inside = (token[:, None] >= starts[None]) & (token[:, None] < stops[None])
    stays = token + ((stops[None] <= token[:, None]) * (1 - sizes)[None]).sum(1)
    place = xp.where(inside.any(1), token + (inside * (heads + 1 - starts)[None]).sum(1), stays)
    held = xp.argsort(xp.concatenate([place, holes, heads]))  # which token, hole or head each slot holds
    source = xp.concatenate([token, -1 - span, -1 - span])[held].astype(xp.int32)
    fields = {
        "segment": xp.concatenate([(inside * (span + 1)[None]).sum(1), none, span + 1])[held].astype(xp.int32),
        "position": xp.concatenate([token, starts, starts])[held].astype(xp.int32),
    }
    return Layout(source, place.astype(xp.int32), (source >= 0).astype(xp.float32), fields, fillers=m)


def delay(t: int, offsets: Sequence[int]) -> Layout:
    """Codebook c of x [t, k] starts offsets[c] steps later, y [t + max(offsets), k]: at one step it is predicted after those of smaller
    offset at the same time of x have been seen. One filler.

    Raises `ConfigError` for a negative offset.
    """
    if not offsets or min(offsets) < 0:
        raise ConfigError(f"delay: offsets {list(offsets)}; give each codebook one of 0 or more")
    k, late = len(offsets), np.asarray(offsets)
    time = np.arange(t + max(offsets))[:, None] - late[None]
    real = (time >= 0) & (time < t)
    source = np.where(real, time * k + np.arange(k)[None], -1)
    place = (np.arange(t)[:, None] + late[None]) * k + np.arange(k)[None]
    return Layout(source.astype(np.int32), place.astype(np.int32), real.astype(np.float32), {}, fillers=1)


def rotate_delayed(
    t: int, offsets: Sequence[int], starts: Int[Array, "m"] | Int[np.ndarray, "m"], stops: Int[Array, "m"] | Int[np.ndarray, "m"]
) -> Layout:
    """Codebooks x [t, k] whose spans of steps move to the end as by `rotate_spans`, each piece between two fillers delayed by itself as by
    `delay`, so that it is whole before the next begins: y [u, k], u = t + 2 m + (2 m + 1) max(offsets).

    Filler number j < m stands in all codebooks at hole and head of span j; filler number m is a slot that the delay leaves empty. Field
    "position" [u] is the step of x of a slot's first codebook, as if the piece before went on where that is empty.

    Raises `ConfigError` for a negative offset, and for spans as `rotate_spans` does.
    """
    if not offsets or min(offsets) < 0:
        raise ConfigError(f"rotate_delayed: offsets {list(offsets)}; give each codebook one of 0 or more")
    rows, m, k, late = rotate_spans(t, starts, stops), starts.shape[0], len(offsets), max(offsets)
    xp = _numpy(rows.source)
    at = xp.arange(t + 2 * m) + late * xp.cumsum(rows.source < 0)  # the step of a row's first codebook: pieces before it are whole
    step = np.arange(t + 2 * m + (2 * m + 1) * late)[:, None] - np.append(np.asarray(offsets), 0)[None]
    row = xp.clip(xp.searchsorted(at, xp.asarray(step), side="right") - 1, 0, t + 2 * m - 1)
    held = xp.where(at[row] == step, rows.source[row], -1 - m)  # the last column is that of fillers, which are not delayed
    source = xp.where(held[:, :-1] >= 0, held[:, :-1] * k + np.arange(k)[None], -1 - m)
    source = xp.where(((held[:, -1:] < 0) & (held[:, -1:] > -1 - m)), held[:, -1:], source).astype(xp.int32)
    place = (at[rows.place][:, None] + np.asarray(offsets)[None]) * k + np.arange(k)[None]
    last = row[:, -1]
    fields = {"position": (rows.fields["position"][last] + step[:, -1] - at[last]).astype(xp.int32)}
    return Layout(source, place.astype(xp.int32), (source >= 0).astype(xp.float32), fields, fillers=m + 1)


def double(block: Int[Array, "t"] | Int[np.ndarray, "t"]) -> Layout:
    """A clean copy of the sequence, then one to be noised, u = 2 t; `block` (i32 [t]) is generated as a whole. For `skip_causal`.

    Fields "block", "noisy" (0, 1) and "position". The noisy copy is to be predicted, in place.
    """
    xp = _numpy(block)
    block = xp.asarray(block, xp.int32)
    t = block.shape[0]
    place = np.arange(t, dtype=np.int32)
    twice = np.concatenate([place, place])
    noisy = np.repeat(np.array([0, 1], np.int32), t)
    return Layout(twice, place, noisy.astype(np.float32), {"block": xp.concatenate([block, block]), "noisy": noisy, "position": twice})


def pseudo_mask(
    t: int, targets: Int[Array, "m"] | Int[np.ndarray, "m"], step: Int[Array, "m"] | Int[np.ndarray, "m"] | None = None
) -> Layout:
    """A pseudo mask (the one filler) is appended for each of `targets` (i32 [m], places in x), u = t + m. For `skip_causal`.

    `step` (i32 [m], from 1; 1, 2, ... m by default) is when a target is predicted: its mask sees the rest and the targets of earlier
    steps. Fields "block" (the step; 0 the rest), "noisy" (1: a mask) and "position"; what a mask stands for is x[position]. With the
    targets at the end it is sequence-to-sequence fine-tuning with every target predicted in one pass.
    """
    xp = _numpy(targets, step)
    targets = xp.asarray(targets, xp.int32)
    m = targets.shape[0]
    steps = xp.arange(1, m + 1, dtype=xp.int32) if step is None else xp.asarray(step, xp.int32)
    token = np.arange(t, dtype=np.int32)
    noisy = np.repeat(np.array([0, 1], np.int32), [t, m])
    block = ((token[:, None] == targets[None]) * steps[None]).sum(1).astype(xp.int32)
    fields = {"block": xp.concatenate([block, steps]), "noisy": noisy, "position": xp.concatenate([token, targets])}
    return Layout(np.concatenate([token, np.full(m, -1, np.int32)]), token, noisy.astype(np.float32), fields, fillers=1)


def permute_segments(segment: Int[Array, "t"] | Int[np.ndarray, "t"], order: Int[Array, "n"] | Int[np.ndarray, "n"]) -> Layout:
    """Segments (field "segment", i32 [t], numbers 0 .. n-1) in a new order: those of order[0] (i32 [n]) first; each keeps its inner order.

    Fields "segment" and "position" (in x).
    """
    xp = _numpy(segment, order)
    segment, rank = xp.asarray(segment, xp.int32), xp.argsort(xp.asarray(order))
    source = xp.argsort(rank[segment], stable=True).astype(xp.int32)
    place = xp.argsort(source).astype(xp.int32)
    return Layout(source, place, np.ones(source.shape, np.float32), {"segment": segment[source], "position": source})


def interleave(lengths: tuple[int, int], turns: tuple[int, int] = (1, 1)) -> Layout:
    """Two streams, x = the first then the second, by turns of so many tokens each; when one ends the other goes on.

    Fields "stream" (0, 1) and "position" (in its own stream).

    Raises `ConfigError` for a turn of less than one token.
    """
    if min(turns) < 1 or min(lengths) < 0:
        raise ConfigError(f"interleave: turns {turns} of streams of {lengths}; a turn takes at least 1 token")
    stream = np.repeat(np.array([0, 1], np.int32), lengths)
    position = np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])
    source = np.lexsort((position, stream, position // np.asarray(turns)[stream])).astype(np.int32)
    place = np.argsort(source).astype(np.int32)
    return Layout(source, place, np.ones(source.shape, np.float32), {"stream": stream[source], "position": position[source]})
