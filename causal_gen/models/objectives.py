"""What each objective hides of a row, where its tokens stand, and what counts (hybrid_transformer_config.py names the kinds).

In a row: slot 0 is the start and slot i + 1 holds token i, or the mask in its place; token i is read off slot i + 1, or off slot i where
the objective is shifted, as the next token is. So all objectives share places and readout, and differ in three arrays alone:

    inputs i32 [b, t]     tokens, and the mask where one is hidden                                                            (1)
    weight f32 [b, t]     of the loss of each token (losses/masked.py)                                                        (2)
    fields                what the visibility reads: "valid" (no mask stands there), "prefix" (known from the start)          (3)

Rearranged (structure/layout.py): spans moved to the end behind sentinels, and pseudo-masks beside the tokens that they stand for; each
slot says what it holds, and which token it predicts.
Letters: b batch, t tokens of a row, u slots, m spans, l digits of a token.

Sources stand with the kinds in hybrid_transformer_config.py.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.losses import masked
from causal_gen.models.hybrid_transformer_config import ObjectiveConfig
from causal_gen.process import masking
from causal_gen.structure import layout
from causal_gen.types import Array, Batch, Bool, ConfigError, Float, Int, Key

START = -1  # as in models/causal_transformer.py


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Query:
    """What is asked of a hybrid beyond its default, which is how it is drawn: an `objective` by name, and one of

    noised i32 [b, t]: the tokens as they are to be seen, the mask where nothing is known.  mask bool [b, t]: which to hide; of a likelihood
    also those that count.  order i32 [t] or [b, t]: places from first to last, each token given those before it.  how="pseudo": each token
    given all others.  None of these: the bound, or next tokens.
    """

    objective: str = dataclasses.field(default="", metadata={"static": True})
    how: str = dataclasses.field(default="", metadata={"static": True})
    noised: Any = None
    mask: Any = None
    order: Any = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Hidden:
    """Eqs. (1, 2), `shown` [b, t, l], the digits that are not masked (None: whole tokens), the time `t` [b] of diffusion, and the "prefix"
    [b, t] of (3) where the objective sets one."""

    inputs: Any
    hidden: Any
    weight: Any
    shown: Any = None
    time: Any = None
    prefix: Any = None


def hide(
    o: ObjectiveConfig, key: Key, at: Float[Array, "b"], tokens: Int[Array, "b t"], scored: Bool[Array, "b t"], mask: int,
    vocabulary: int, w: Float[Array, "v"] | None = None, other: Bool[Array, ""] | bool = False,
) -> Hidden:  # fmt: skip
    """A row as an objective in a row shows it; `at` are uniform numbers that say how much is hidden, `w` a learned schedule. Diffusion of
    whole tokens at 1 - at under a linear schedule hides by `other` just those that it shows at `at` (Gong et al. 2025, sec. 5)."""
    if o.kind == "described":
        return _describe(o, key, at, tokens, scored, mask)
    allowed = jnp.ones_like(scored) if o.hides == "all" else scored
    count, shown, time = allowed.sum(-1), None, None
    if o.kind == "diffusion":
        time = o.schedule.time(at)
        chance = o.schedule.hidden(time)[:, None] if w is None else masking.learned_chance(time, w, tokens)
        if o.parts == 1:
            hidden = masking.corrupt(key, chance, allowed, other)
        else:
            shape = (*tokens.shape, o.parts)
            shown = ~masking.corrupt(key, chance[..., None], jnp.broadcast_to(allowed[..., None], shape))
            hidden = ~shown.all(-1)
        rate = o.schedule.weight(time) if w is None else 1 / time
        weight = masked.over_time(hidden, rate, allowed)
    else:
        if o.kind == "any_order":
            hide = 1 + jnp.minimum((at * count).astype(jnp.int32), count - 1)
        else:
            hide = jnp.clip(jnp.round((o.low + (o.high - o.low) * at) * count).astype(jnp.int32), 1, count)
        if o.order == "identity" or o.kind == "prefix":
            after = jnp.cumsum(allowed[:, ::-1], 1)[:, ::-1]
            hidden = allowed & (after <= hide[:, None])
        else:
            hidden = masking.hide(key, hide, allowed, o.span)
        weight = masked.mean_over(hidden & scored if o.kind == "prefix" else hidden)
    if o.kind == "prefix":
        return Hidden(tokens, hidden, weight, prefix=~hidden)
    inputs = jnp.where(hidden, mask, tokens)
    if o.kept + o.noise:
        which, noise = jax.random.split(jax.random.fold_in(key, 1))
        fate = jax.random.uniform(which, tokens.shape)
        inputs = jnp.where(hidden & (fate < o.kept + o.noise), jax.random.randint(noise, tokens.shape, 0, vocabulary), inputs)
        inputs = jnp.where(hidden & (fate < o.kept), tokens, inputs)
    return Hidden(inputs, hidden, weight, shown, time)


def _describe(
    o: ObjectiveConfig, key: Key, at: Float[Array, "b"], tokens: Int[Array, "b t"], scored: Bool[Array, "b t"], mask: int
) -> Hidden:
    """Code and masked words of the description before it under one loss mask; with hides="all" nothing is masked and everything counts, as
    of next tokens. The number of masked words is rounded."""
    if o.hides == "all":
        return Hidden(tokens, jnp.zeros_like(scored), masked.mean_over(jnp.ones_like(scored)), prefix=jnp.zeros_like(scored))
    words = jnp.cumsum(scored, 1) == 0  # what is not scored behind the code fills the row up, and describes nothing
    count = jnp.round((o.low + (o.high - o.low) * at) * words.sum(-1)).astype(jnp.int32)
    hidden = masking.hide(key, count, words, o.span)
    return Hidden(jnp.where(hidden, mask, tokens), hidden, masked.mean_over(hidden | scored), prefix=words)


def bounding(o: ObjectiveConfig) -> tuple[ObjectiveConfig, ObjectiveConfig | None]:
    """The objective whose loss bounds the likelihood, and how it hides where that is not its own way: any number of tokens (ARDM)."""
    if o.kind == "permuted" and o.order == "identity":
        return dataclasses.replace(o, low=1.0, high=1.0), None
    if o.kind == "diffusion":
        return o, None
    return o, dataclasses.replace(o, kind="any_order", visibility="", hides="scored", kept=0.0, noise=0.0)


def row_fields(o: ObjectiveConfig, given: Batch, hidden: Bool[Array, "b t"], told: Bool[Array, "b t"], prefix: Any) -> dict[str, Array]:
    """Eq. (3) of the start and of a row's slots, with those `given` [b, t]; `told` are the tokens that follow one another where a permuted
    objective keeps their order."""
    start, end = ((0, 0), (1, 0)), ((0, 0), (0, 1))
    found = {name: jnp.pad(value, end if o.shifted or o.kind == "prefix" else start, mode="edge") for name, value in given.items()}
    if "valid" in o.seen.fields:
        found["valid"] = jnp.pad(~hidden, start, constant_values=True).astype(jnp.int32)
    if o.kind in ("prefix", "described"):
        found["prefix"] = jnp.pad(prefix, start, constant_values=True).astype(jnp.int32)
    if o.kind == "permuted":
        found["noisy"] = jnp.pad(hidden, start).astype(jnp.int32)
        found["block"] = jnp.pad(jnp.where(hidden | told, 1 + jnp.arange(hidden.shape[1])[None], 0), start)
    return found


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Arranged:
    """What slots hold and predict, [b, u]: `targets` is -1 where nothing is."""

    held: Any
    targets: Any
    weight: Any
    fields: dict[str, Any]


def draw_spans(o: ObjectiveConfig, key: Key, num: int, t: int) -> tuple[Int[Array, "b m"], Int[Array, "b m"]]:
    """Where the spans of each row start and stop: one in each of as many equal parts of the row."""
    keys, room = jax.random.split(key), t // o.spans
    size = jax.random.randint(keys[0], (num, o.spans), o.shortest, o.longest + 1)
    at = jnp.floor(jax.random.uniform(keys[1], size.shape) * (room - size + 1)).astype(jnp.int32)
    starts = at + room * jnp.arange(o.spans)[None]
    return starts, starts + size


def spans_of(hidden: Bool[Array, "b t"], count: int) -> tuple[Int[Array, "b m"], Int[Array, "b m"]]:
    """Where the first `count` runs of `hidden` start and stop; runs that are not there are empty, at the end."""
    t = hidden.shape[1]
    edge = jnp.diff(jnp.pad(hidden.astype(jnp.int32), ((0, 0), (1, 1))), axis=1)

    def places(flags: Array) -> Array:
        return jax.vmap(lambda row: jnp.nonzero(row, size=count, fill_value=t)[0])(flags).astype(jnp.int32)

    return places(edge == 1), places(edge == -1)


def rotate(
    o: ObjectiveConfig, spans: tuple[Array, Array], tokens: Int[Array, "b t"], counts: Float[Array, "b t"], sentinel: int
) -> Arranged:
    """Spans at the end, each slot holding what the one before it predicts; `sentinel` is the first of m tokens that mark holes. Positions
    are those of the slots, or with `placed` those of the row, as in UniLMv2's pseudo-masks (Bao et al. 2020, sec. 3).

    `spans` are starts and stops, each [b, m].
    """
    num, t = tokens.shape
    arranged = jax.vmap(lambda a, b: layout.rotate_spans(t, a, b))(*spans)
    fill = sentinel + jnp.arange(o.spans)
    y = jax.vmap(lambda one, x: one.apply(x, fill))(arranged, tokens)
    weight = arranged.loss * jax.vmap(lambda one, x: one.apply(x))(arranged, counts)
    moved = arranged.fields["segment"] > 0
    weight = weight if o.rest else weight * moved
    shift = ((0, 0), (1, 0))
    fields = {"prefix": jnp.pad(~moved[:, :-1], shift, constant_values=True).astype(jnp.int32)}
    if o.placed:  # a token's slot is that after its place, as in a row that is read; a filler has that of the token before its span
        fields["position"] = jnp.pad((arranged.fields["position"] + (arranged.source >= 0))[:, :-1], shift)
    held = jnp.pad(y[:, :-1], shift, constant_values=START)
    return Arranged(held, jnp.where(arranged.source >= 0, y, -1), weight, fields)


def pseudo(
    tokens: Int[Array, "b t"], hidden: Bool[Array, "b t"], rank: Int[Array, "b t"], counts: Float[Array, "b t"], mask: int
) -> Arranged:
    """A pseudo-mask beside every token, after the start; those `hidden` are predicted by `rank`, from 1, the others known throughout."""
    num, t = tokens.shape
    step = jnp.where(hidden, rank, 0)
    arranged = jax.vmap(lambda step: layout.pseudo_mask(t, jnp.arange(t), step))(step)
    y = jax.vmap(lambda one, x: one.apply(x, mask))(arranged, tokens)
    first = ((0, 0), (1, 0))
    # pseudo-masks of what is known are blocks of their own: nobody sees them, and nothing is asked of them
    block = jnp.concatenate([step, jnp.where(hidden, rank, t + 1)], 1)
    fields = {"block": jnp.pad(block, first), "noisy": jnp.pad(jnp.broadcast_to(arranged.fields["noisy"], y.shape), first)}
    fields["position"] = jnp.pad(arranged.fields["position"] + 1, first)
    none = jnp.full((num, t + 1), -1)
    targets = jnp.concatenate([none, jnp.where(hidden, tokens, -1)], 1)
    weight = jnp.concatenate([jnp.zeros((num, t + 1)), counts * hidden], 1)
    return Arranged(jnp.pad(y, first, constant_values=START), targets, weight, fields)


def ranks(o: ObjectiveConfig, key: Key, hidden: Bool[Array, "b t"]) -> Int[Array, "b t"]:
    """The order in which a row's hidden tokens are predicted, from 1."""
    scores = jnp.broadcast_to(jnp.arange(hidden.shape[1]) / hidden.shape[1], hidden.shape)
    if o.order == "random":
        scores = jax.random.uniform(key, hidden.shape)
    return 1 + jnp.argsort(jnp.argsort(jnp.where(hidden, scores, 2.0), axis=-1), axis=-1).astype(jnp.int32)


def check_order(order: Int[np.ndarray, "... t"], length: int) -> None:
    """Raises `ConfigError` for an order that does not name every place once."""
    if order.shape[-1:] != (length,) or not (np.sort(order, -1) == np.arange(length)).all():
        raise ConfigError(f"order: not a permutation of 0..{length - 1}: {order.reshape(-1)[:8].tolist()}; name every place once")
