"""Autoregressive decoding: one jitted loop over a fixed cache, from functions that prefill and advance.

    prefill(prompt [b, p])              -> logits [b, p', v], cache      the last logits are those of the next token        (1)
    advance(cache, tokens [b, k], fields=None) -> logits [b, k, v], cache     the logits after each of the new tokens       (2)
    x_i = argmax(warp(logits_i) + g_i)                                                                                      (3)

`warp` is truncation.py, g Gumbel noise: drawn step by step in `generate`, given in `replay`, where a text is a deterministic function
of its noise. Guidance combines two models of one text, log p = (1 - omega) log p(x) + omega log p(x | c)  (Sanchez et al. 2023).
Nothing here knows what a cache is. Letters: b batch, p prompt, k new tokens, n tokens to draw, v vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from causal_gen.sampling import gumbel
from causal_gen.sampling.guidance import mix
from causal_gen.sampling.truncation import Constraint, DecodingConfig, warp
from causal_gen.types import Array, Bool, ConfigError, Float, Int, Key, PyTree, UserError

Prefill: TypeAlias = Callable[[Array], tuple[Array, PyTree]]  # eq. (1)
Advance: TypeAlias = Callable[..., tuple[Array, PyTree]]  # eq. (2)
Widen: TypeAlias = Callable[[PyTree], PyTree]  # a cache with more room
Halt: TypeAlias = Callable[[Array, Array], Array]  # (tokens [b, n], how many are there) -> bool [b]: stop this row


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Draws:
    """`tokens` i32 [b, n], padded after `length` [b] tokens (the one that ended a row counts); `log_prob` [b] under the warped law.

    `stuck` [b]: the constraint left a row without any token, where it ends.
    """

    tokens: Any
    length: Any
    log_prob: Any
    stuck: Any


@dataclasses.dataclass(frozen=True)
class Stop:
    """When a row ends: at one of the tokens `end`, or where `halt` says so; its rest is `pad`."""

    end: tuple[int, ...] = ()
    pad: int = 0
    halt: Halt | None = None

    def __call__(self, tokens: Int[Array, "b n"], count: Array) -> Bool[Array, "b"]:
        """Whether each row's last of `count` tokens ends it."""
        last = jax.lax.dynamic_index_in_dim(tokens, count - 1, 1, keepdims=False)
        done = jnp.zeros(last.shape, bool)
        for token in self.end:
            done = done | (last == token)
        return done if self.halt is None else done | self.halt(tokens, count)


def until(sequence: tuple[int, ...]) -> Halt:
    """A halt at the end of a sequence of tokens, as a stop word of a byte model is. Raises `ConfigError` for an empty sequence."""
    if not sequence:
        raise ConfigError("stop: an empty sequence would stop before the first token; give at least one token")

    def halt(tokens: Array, count: Array) -> Array:
        start = jnp.maximum(count - len(sequence), 0)
        tail = jax.lax.dynamic_slice_in_dim(tokens, start, len(sequence), 1)
        return (tail == jnp.asarray(sequence, jnp.int32).reshape(1, -1)).all(-1) & (count >= len(sequence))

    return halt


# -- one draw ----------------------------------------------------------------------------------------------------------------


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Progress:
    """What a draw depends on beside the logits: tokens seen [b, v] (None without a repetition penalty), the constraint's state."""

    seen: Any
    state: Any


def begin(prompt: Int[Array, "b p"], vocabulary: int, config: DecodingConfig, constraint: Constraint | None = None) -> Progress:
    """Before the first draw after `prompt`; the constraint is on what is drawn."""
    seen = None
    if config.repetition != 1:
        seen = jax.nn.one_hot(prompt, vocabulary, dtype=bool).any(1)
    return Progress(seen, constraint.start(prompt.shape[0]) if constraint is not None else None)


def law(
    logits: Float[Array, "b v"], progress: Progress, config: DecodingConfig, constraint: Constraint | None = None
) -> Float[Array, "b v"]:
    """The logits that a token is drawn from."""
    allowed = constraint.allowed(progress.state) if constraint is not None else None
    return warp(logits.astype(jnp.float32), config, progress.seen, allowed)


def follow(progress: Progress, tokens: Int[Array, "b"], constraint: Constraint | None = None) -> Progress:
    """After `tokens`."""
    seen = progress.seen
    if seen is not None:
        seen = seen | jax.nn.one_hot(tokens, seen.shape[-1], dtype=bool)
    return Progress(seen, constraint.follow(progress.state, tokens) if constraint is not None else None)


# -- loops -------------------------------------------------------------------------------------------------------------------


def generate(
    prefill: Prefill,
    advance: Advance,
    key: Key,
    prompt: Int[Array, "b p"],
    config: DecodingConfig,
    *,
    steps: int,
    stop: Stop | None = None,
    constraint: Constraint | None = None,
    stages: Sequence[tuple[int, Widen]] = (),
) -> Draws:
    """`steps` tokens after `prompt`, fewer where rows end sooner; eq. (3). Jit it whole: it is a loop over one cache.

    `stages` (n, widen), n rising, widen the cache when n tokens are drawn, and cut the loop there: a step reads all the room there is.

    Raises `ConfigError` for less than one step.
    """
    if steps < 1:
        raise ConfigError(f"sampling: {steps} tokens to draw; give at least 1")
    stop = stop or Stop()
    logits, cache = prefill(prompt)
    rows, vocabulary = prompt.shape[0], logits.shape[-1]

    def choose(i: Array, logits: Array, progress: Progress, draws: Draws, done: Array) -> tuple[Progress, Draws, Array]:
        warped = law(logits, progress, config, constraint)
        if config.greedy:
            token = jnp.argmax(warped, -1).astype(jnp.int32)
        else:
            token = gumbel.draw(warped, gumbel.prior(jax.random.fold_in(key, i), warped.shape))
        stuck = ~jnp.isfinite(warped).any(-1) & ~done
        over = done | stuck
        chosen = jnp.take_along_axis(jax.nn.log_softmax(warped), token[:, None], -1)[:, 0]
        token = jnp.where(over, stop.pad, token)
        tokens = jax.lax.dynamic_update_slice_in_dim(draws.tokens, token[:, None], i, 1)
        found = Draws(tokens, draws.length + ~over, draws.log_prob + jnp.where(over, 0, chosen), draws.stuck | stuck)
        return follow(progress, token, constraint), found, over | stop(tokens, i + 1)

    def body(carry: tuple) -> tuple:
        i, cache, progress, draws, done = carry
        last = jax.lax.dynamic_slice_in_dim(draws.tokens, i - 1, 1, 1)
        logits, cache = advance(cache, last)
        return (i + 1, cache, *choose(i, logits[:, -1], progress, draws, done))

    none = jnp.zeros((rows,), bool)
    draws = Draws(jnp.full((rows, steps), stop.pad, jnp.int32), jnp.zeros((rows,), jnp.int32), jnp.zeros((rows,)), none)
    first = choose(jnp.int32(0), logits[:, -1], begin(prompt, vocabulary, config, constraint), draws, none)
    carry = (jnp.int32(1), cache, *first)
    for until, widen in (*stages, (steps, None)):
        carry = jax.lax.while_loop(lambda carry, until=until: (carry[0] < until) & ~carry[-1].all(), body, carry)
        carry = carry if widen is None else (carry[0], widen(carry[1]), *carry[2:])
    return carry[3]


def replay(
    advance: Advance,
    cache: PyTree,
    first: Int[Array, "b"],
    noise: Float[Array, "b n v"],
    forced: Bool[Array, "b n"],
    values: Int[Array, "b n"],
    config: DecodingConfig,
    constraint: Constraint | None = None,
    stages: Sequence[tuple[int, Widen]] = (),
) -> tuple[Int[Array, "b n"], Float[Array, "b n v"]]:
    """Tokens as a function of their noise, eq. (3), with `values` put where `forced`; and the laws that they were drawn from.

    `first` is the token that starts the text, `stages` are those of `generate`. Abduction and prediction both come through here, so that
    they see the same logits.
    """
    progress = begin(first[:, None][:, :0], noise.shape[-1], config, constraint)

    def step(carry: tuple, xs: tuple) -> tuple:
        cache, progress, last = carry
        g, force, value = xs
        logits, cache = advance(cache, last[:, None])
        warped = law(logits[:, -1], progress, config, constraint)
        token = jnp.where(force, value, gumbel.draw(warped, g))
        return (cache, follow(progress, token, constraint), token), (token, warped)

    xs = (jnp.swapaxes(noise, 0, 1), forced.T, values.T)
    carry, begun, found = (cache, progress, first), 0, []
    for until, widen in (*stages, (noise.shape[1], None)):
        carry, part = jax.lax.scan(step, carry, jax.tree.map(lambda x, a=begun, b=until: x[a:b], xs))
        found.append(part)
        carry, begun = carry if widen is None else (widen(carry[0]), *carry[1:]), until
    tokens, laws = found[0] if len(found) == 1 else (jnp.concatenate(parts) for parts in zip(*found, strict=True))
    return tokens.T, jnp.swapaxes(laws, 0, 1)


def guide(given: Advance, free: Advance, omega: float) -> Advance:
    """Classifier-free guidance: an `advance` over the pair of caches of a conditional and an unconditional model of one text."""

    def advance(caches: tuple[PyTree, PyTree], tokens: Array, fields: Any = None) -> tuple[Array, PyTree]:
        conditional, first = given(caches[0], tokens, fields)
        unconditional, second = free(caches[1], tokens, fields)
        return mix(conditional, unconditional, omega), (first, second)

    return advance


# -- the border --------------------------------------------------------------------------------------------------------------


def whole(array: Any) -> np.ndarray:
    """As a host array; one that is spread over several processes on all of them. Call it outside of jit, on all.

    Of any shape [...], which it keeps.
    """
    if isinstance(array, jax.Array) and not array.is_fully_addressable and not array.is_fully_replicated:
        array = multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array)


def check_prompt(tokens: Any, vocabulary: int, room: int) -> None:
    """Raises `UserError` for a prompt that does not fit into `room` tokens or holds one out of range. Call it outside of jit."""
    tokens = whole(tokens)
    if tokens.ndim != 2 or not np.issubdtype(tokens.dtype, np.integer):
        raise UserError(f"prompt: expected integer tokens [b, p], got {tokens.dtype} {tokens.shape}; give one row a text")
    if tokens.shape[1] > room:
        raise UserError(f"prompt: {tokens.shape[1]} tokens are more than the {room} that fit; shorten it, or give the cache more slots")
    wrong = np.argwhere((tokens < 0) | (tokens >= vocabulary))
    if len(wrong):
        row, place = wrong[0]
        raise UserError(
            f"prompt: token {tokens[row, place]} at place {place} of row {row} is out of range; the vocabulary has ids 0..{vocabulary - 1}"
        )


def check_noise(tokens: Any, noise: Any) -> None:
    """Raises `UserError` for tokens [b, t] that sampling could not have drawn: their noise [b, t, v] is NaN. Call it outside of jit."""
    wrong = np.argwhere(whole(jnp.isnan(jnp.asarray(noise)).any(-1)))
    if len(wrong):
        row, place = wrong[0]
        raise UserError(
            f"evidence: token {int(whole(tokens)[row, place])} at place {place} of row {row} has probability 0 under sampling.top_k, "
            "top_p or min_p; set them to none to ask about it"
        )


def check_draws(draws: Draws) -> Draws:
    """The draws themselves. Raises `UserError` where a constraint left no token to draw. Call it outside of jit."""
    stuck = np.flatnonzero(whole(draws.stuck))
    if len(stuck):
        place = int(whole(draws.length)[stuck[0]])
        raise UserError(f"constraint: it forbids every token at place {place} of row {stuck[0]}; let it allow one, such as an end token")
    return draws
