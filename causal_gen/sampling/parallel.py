"""Many short continuations of one prompt at once: each its own branch of a tree below it, blind to the others.

    x_j1 = the j-th most likely token after the prompt,  x_ji = argmax p(. | prompt, x_j1 .. x_j,i-1)                        (1)
    log p_j = sum_i log p(x_ji | prompt, x_j1 .. x_j,i-1),   by which the continuations are ranked                            (2)

The prompt is read once; a step writes the next token of all branches in one call, where a token sees the prompt and its own branch
(`tree` of structure/masks.py). So k continuations take as many calls as one, and each is what it would be alone. Source: Yue, Chen,
Geiping, Li, Goldstein and Lim, Object recognition as next token prediction (2024), one-shot sampling. Letters: b batch, p prompt, k
branches, n tokens of one, v vocabulary.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from causal_gen.sampling.ar import Advance, Prefill
from causal_gen.types import Array, ConfigError, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Branches:
    """`tokens` i32 [b, k, n] and `log_prob` [b, k], eqs. (1, 2), the likeliest branch first."""

    tokens: Any
    log_prob: Any


def one_shot(prefill: Prefill, advance: Advance, prompt: Int[Array, "b p"], *, ways: int, steps: int) -> Branches:
    """Eqs. (1, 2) for `ways` continuations of `steps` tokens; the cache needs room for ways (steps - 1) tokens after the prompt.

    Jit it whole.

    Raises `ConfigError` for less than one continuation or token, or more continuations than the vocabulary has.
    """
    logits, cache = prefill(prompt)
    if steps < 1 or not 1 <= ways <= logits.shape[-1]:
        raise ConfigError(f"one-shot: {ways} continuations of {steps} tokens; give at least 1 of each, and no more than the vocabulary")
    first, token = jax.lax.top_k(jax.nn.log_softmax(logits[:, -1]), ways)
    token = token.astype(jnp.int32)
    branch = jnp.arange(ways, dtype=jnp.int32)[None]
    start = 1 + steps * branch  # place of a branch's first token in a walk through the tree

    def step(carry: tuple[Array, Any], depth: Array) -> tuple[tuple[Array, Any], tuple[Array, Array]]:
        token, cache = carry
        node = depth * ways + branch
        fields = {"depth": jnp.full_like(node, depth), "node": node, "parent": jnp.maximum(node - ways, -1)}
        fields |= {"enter": start + depth, "leave": start + steps}
        logits, cache = advance(cache, token, fields)
        log_p = jax.nn.log_softmax(logits)
        token = jnp.argmax(log_p, -1).astype(jnp.int32)
        return (token, cache), (token, log_p.max(-1))

    _, (rest, gained) = jax.lax.scan(step, (token, cache), jnp.arange(steps - 1, dtype=jnp.int32))
    tokens = jnp.concatenate([token[..., None], jnp.moveaxis(rest, 0, -1)], -1)
    log_prob, order = jax.lax.top_k(first + gained.sum(0), ways)
    return Branches(jnp.take_along_axis(tokens, order[..., None], 1), log_prob)
