"""Unmask policies: from what the network says of the open places to which of them are filled next, and how many.

    policy(logits [b, t, v], state, step) -> score f32 [b, t], count i32 [b]      the `count` open places of highest score are filled   (1)

    random       g                                      g Gumbel noise, one a place, the "order" of the model's noise                   (2)
    confidence   log p(x_i) of the token drawn there    Chang et al., MaskGIT (2022), sec. 3.2                                          (3)
    margin       log(p_1 - p_2) of the two likeliest    Kim et al., Train for the worst, plan for the best (2025), sec. 4.1             (4)
    entropy      -H(p)                                  Ben-Hamu et al., Entropy bounded unmasking (2025)                               (5)
    order        minus the place's rank in an order     Uria et al., order-agnostic NADE (2014)                                         (6)

(3) to (5) add choice (1 - (k + 1) / K) g in step k of K, and, where the drawn token is the end of a text, log of r + (1 - r) k / (K - 1):
early rejection of end tokens, r its weight at first (Yang et al., EOSER, 2025). Of n places in K steps, after step k there are left

    even         floor(n (K - 1 - k) / K)                                                                                               (7)
    cosine       floor(n cos(pi/2 (k + 1) / K)), and at least one place is filled         MaskGIT, eq. 5                                (8)
    ascending    n - (1 + 2 + .. + 2^k)                                                   Yang et al., ASS (2025)                       (9)
    ancestral    a place is filled by step k if -log(-log(1 - alpha(1 - (k + 1) / K))) < g, which has the chance alpha, apart from
                 others: the reverse process of masked diffusion on a grid                Shi et al., MD4 (2024), eq. 6                 (10)
    plan         n less the planned numbers                                               Hoogeboom et al., ARDM (2022), sec. 3.2       (11)

and none after step K - 1. As (2) and (10) read the same noise, one draw of it is one order, whatever the number of steps.
Letters: b batch, t position, v vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.sampling.unmask_config import UnmaskConfig
from causal_gen.types import Array, Float, Int

Alpha: TypeAlias = Callable[[Array], Array]  # time in [0, 1] -> chance that a place is not masked then, 1 at time 0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """What a policy sees beside logits: `tokens` [b, t]; places `open` [b, t] to be filled, in this block; `drawn` [b, t], the token that
    each would get; `order` [b, t], its Gumbel noise; `free` [b], places of the block that
    were open at first; `budget` [b], steps of the block. A policy's step is [b] too."""

    tokens: Any
    open: Any
    drawn: Any
    order: Any
    free: Any
    budget: Any


Policy: TypeAlias = Callable[[Array, State, Array], tuple[Array, Array]]  # eq. (1)


def linear(time: Array) -> Array:
    """The schedule alpha(t) = 1 - t. At any shape [...] of t in 0..1."""
    return 1.0 - time


def policy_of(config: UnmaskConfig, alpha: Alpha = linear) -> Policy:
    """The policy that a config describes. `alpha` is the noising process's schedule, which (10) reads."""

    def policy(logits: Array, state: State, step: Array) -> tuple[Array, Array]:
        return scores(config, logits, state, step), counts(config, alpha, state, step)

    return policy


def scores(config: UnmaskConfig, logits: Float[Array, "b t v"], state: State, step: Array) -> Float[Array, "b t"]:
    """Eqs. (2-6)."""
    if config.policy == "random":
        return state.order
    if config.policy == "order":
        ranks = np.argsort(config.order) if config.order else np.arange(state.open.shape[1])
        return jnp.broadcast_to(-jnp.asarray(ranks, jnp.float32)[None], state.open.shape)
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    if config.policy == "confidence":
        score = jnp.take_along_axis(log_p, state.drawn[..., None], -1)[..., 0]
    elif config.policy == "margin":
        first, second = _two_largest(log_p)
        # p_1 (1 - p_2 / p_1): places that are all but certain keep their order, which a difference of floats would lose
        score = first + jnp.log1p(-jnp.minimum(jnp.exp(second - first), 1 - 1e-7))
    else:
        score = jnp.sum(jnp.exp(log_p) * jnp.where(log_p > -jnp.inf, log_p, 0), -1)
    if config.choice:
        score = score + config.choice * jnp.maximum(1 - (step + 1) / state.budget, 0)[:, None] * state.order
    if config.reject != 1:
        weight = config.reject + (1 - config.reject) * jnp.minimum(step / jnp.maximum(state.budget - 1, 1), 1)[:, None]
        score = score + jnp.where(state.drawn == config.end, jnp.log(jnp.maximum(weight, 1e-30)), 0)
    return score


def _two_largest(log_p: Float[Array, "b t v"]) -> tuple[Float[Array, "b t"], Float[Array, "b t"]]:
    best = jnp.argmax(log_p, -1)
    rest = jnp.where(jax.nn.one_hot(best, log_p.shape[-1], dtype=bool), -jnp.inf, log_p)
    return log_p.max(-1), rest.max(-1)


def counts(config: UnmaskConfig, alpha: Alpha, state: State, step: Array) -> Int[Array, "b"]:
    """Eqs. (7-11): how many places are filled in `step`; all that are left in the last one."""
    left = state.open.sum(-1)
    after = (step + 1) / state.budget
    if config.counts == "even":
        found = left - state.free * (state.budget - 1 - step) // state.budget
    elif config.counts == "cosine":
        goal = jnp.floor(state.free * jnp.cos(jnp.pi / 2 * after)).astype(jnp.int32)
        found = jnp.maximum(left - goal, 1)
    elif config.counts == "ascending":
        found = jnp.left_shift(1, jnp.clip(step, 0, 30))
    elif config.counts == "ancestral":
        threshold = -jnp.log(-jnp.log1p(-jnp.minimum(alpha(1 - after), 1 - 1e-7)))
        found = (state.open & (state.order > threshold[:, None])).sum(-1)
    else:
        planned = jnp.asarray(np.cumsum(config.plan), jnp.int32)
        found = left - (state.free - jnp.minimum(state.free, planned[jnp.clip(step, 0, len(config.plan) - 1)]))
    return jnp.where(step + 1 >= state.budget, left, jnp.clip(found, 0, left)).astype(jnp.int32)


def chosen(score: Float[Array, "b t"], candidates: Array, count: Int[Array, "b"]) -> Array:
    """The `count` candidates of highest score, bool [b, t]; ties go to the earlier place.

    By comparing all pairs, since a sort costs more on a CPU than these few places do.
    """
    score = jnp.where(candidates, score, -jnp.inf)
    place = jnp.arange(score.shape[1])
    earlier = (place[None, :] < place[:, None])[None]
    ahead = (score[:, None, :] > score[:, :, None]) | ((score[:, None, :] == score[:, :, None]) & earlier)
    return candidates & ((ahead & candidates[:, None, :]).sum(-1) < count[:, None])
