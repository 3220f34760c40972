"""Beam search: the n most probable continuations that a beam of width w can find.

    score(x) = sum_i log p(x_i | x_<i),   ranked at the end by score / length^alpha                                          (1)

Ended texts stay in the beam at their score. With w >= v^(n-1) nothing is ever cut and the search is exhaustive. Source for alpha: Wu et
al. 2016, eq. 14, in its plain form. Letters: b batch, w beams, n tokens, v vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from causal_gen.sampling.ar import Advance, Prefill
from causal_gen.sampling.truncation import Constraint
from causal_gen.types import Array, ConfigError, Int, PyTree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Beams:
    """`tokens` i32 [b, w, n] best first, `score` [b, w] (-inf: a constraint left fewer texts), `length` [b, w], the end included."""

    tokens: Any
    score: Any
    length: Any


def beam(
    prefill: Prefill,
    advance: Advance,
    fork: Callable[[PyTree, Array], PyTree],
    prompt: Int[Array, "b p"],
    *,
    beams: int,
    steps: int,
    end: int | None = None,
    pad: int = 0,
    length_penalty: float = 0.0,
    constraint: Constraint | None = None,
) -> Beams:
    """Eq. (1). `fork(cache, rows)` copies rows of the cache (sampling/cache.py). Jit it whole.

    Raises `ConfigError` for less than one beam or one step.
    """
    if beams < 1 or steps < 1:
        raise ConfigError(f"beam search: {beams} beams of {steps} tokens; both are at least 1")
    logits, cache = prefill(prompt)
    num, vocabulary = prompt.shape[0], logits.shape[-1]
    copies = jnp.repeat(jnp.arange(num), beams)
    state = constraint.start(num * beams) if constraint is not None else ()

    def extend(i: Array, logits: Array, found: Beams, done: Array, state: PyTree) -> tuple[Beams, Array, PyTree, Array]:
        """The best w of all continuations by one token, and the row of the old beam that each comes from."""
        log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
        if constraint is not None:
            log_p = jnp.where(constraint.allowed(state), log_p, -jnp.inf)
        log_p = log_p.reshape(num, beams, vocabulary)
        stay = jnp.where(jnp.arange(vocabulary) == pad, 0.0, -jnp.inf).reshape(1, 1, -1)
        total = found.score[:, :, None] + jnp.where(done[:, :, None], stay, log_p)
        score, best = jax.lax.top_k(total.reshape(num, beams * vocabulary), beams)
        parent, token = best // vocabulary, (best % vocabulary).astype(jnp.int32)
        done, length = (jnp.take_along_axis(x, parent, 1) for x in (done, found.length))
        tokens = jnp.take_along_axis(found.tokens, parent[:, :, None], 1)
        tokens = jax.lax.dynamic_update_slice_in_dim(tokens, token[:, :, None], i, 2)
        rows = (parent + beams * jnp.arange(num)[:, None]).reshape(-1)
        if constraint is not None:
            state = constraint.follow(jax.tree.map(lambda x: x[rows], state), token.reshape(-1))
        ended = done if end is None else done | (token == end)
        return Beams(tokens, score, length + ~done), ended, state, rows

    def body(carry: tuple) -> tuple:
        i, cache, found, done, state, rows = carry
        last = jax.lax.dynamic_index_in_dim(found.tokens, i - 1, 2, keepdims=False)
        logits, cache = advance(fork(cache, rows), last.reshape(-1, 1))
        return (i + 1, cache, *extend(i, logits[:, -1], found, done, state))

    # at first all beams are one: a single row of them counts
    start = jnp.where(jnp.arange(beams) == 0, 0.0, -jnp.inf)
    found = Beams(
        jnp.full((num, beams, steps), pad, jnp.int32),
        jnp.broadcast_to(start, (num, beams)),
        jnp.zeros((num, beams), jnp.int32),
    )
    first = extend(jnp.int32(0), logits[:, -1][copies], found, jnp.zeros((num, beams), bool), state)
    carry = (jnp.int32(1), fork(cache, copies), *first)
    found = jax.lax.while_loop(lambda carry: (carry[0] < steps) & ~carry[3].all(), body, carry)[2]
    return _ranked(found, length_penalty)


def _ranked(found: Beams, length_penalty: float) -> Beams:
    """The best first, by eq. (1) with its penalty."""
    ranked = found.score / jnp.maximum(found.length, 1) ** length_penalty
    order = jnp.argsort(-ranked, axis=1)
    tokens = jnp.take_along_axis(found.tokens, order[:, :, None], 1)
    return Beams(tokens, jnp.take_along_axis(found.score, order, 1), jnp.take_along_axis(found.length, order, 1))
