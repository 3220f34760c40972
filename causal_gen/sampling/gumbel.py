"""Exogenous noise of categorical draws: standard Gumbel noise, and its exact posterior given the draws.

    x = argmax_j (logits_j + g_j),   g_j ~ Gumbel(0) independent      =>   x ~ softmax(logits)                       (1)
    top = max_j (lp_j + g_j) ~ Gumbel(0), independent of x            where lp = log_softmax(logits)                 (2)
    given x and top:  lp_j + g_j, j != x, are Gumbel(lp_j) truncated to lie below top                                (3)
    -log(e^-top + E_j / p_j) with E_j ~ Exp(1) is a draw of (3); in log space  -logaddexp(-top, log E_j - lp_j)      (4)

So the posterior is drawn top down: first the maximum, then everything below it. Entries of probability zero say nothing about their
noise and keep a draw of the prior. Sources: Maddison, Tarlow and Minka 2014, sec. 3; Oberst and Sontag 2019, sec. 3.2 (Gumbel-max SCM).

(1) must return the observed token from the abducted noise exactly, in float32 and from logits that another compilation of the same
network may round differently; so losers are kept 16 roundings of the largest term below the winner. That moves the posterior by about
1e-5 in total variation. Letters: v vocabulary.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.types import Array, Float, Int, Key

ROUNDINGS = 16 * float(np.finfo(np.float32).eps)


def draw(logits: Float[Array, "... v"], gumbel: Float[Array, "... v"]) -> Int[Array, "..."]:
    """Eq. (1); -inf logits are never drawn."""
    return jnp.argmax(logits + gumbel, -1).astype(jnp.int32)


def prior(key: Key, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Standard Gumbel draws. Both tails are full: a float32 uniform alone would end the upper one at 16.6."""
    return jax.random.gumbel(key, shape, jnp.float32, mode="high")


def posterior(key: Key, logits: Float[Array, "... v"], tokens: Int[Array, "..."]) -> Float[Array, "... v"]:
    """A draw of g given that eq. (1) gave `tokens`, eq. (2-4). A token of probability zero has no such g: all entries are NaN there."""
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    free = prior(key, log_p.shape)  # -log E_j, and at the observed entry the maximum itself
    observed = jax.nn.one_hot(tokens, log_p.shape[-1], dtype=bool)
    top = jnp.sum(jnp.where(observed, free, 0), -1, keepdims=True)
    possible = jnp.isfinite(log_p)
    safe = jnp.where(possible, log_p, 0)
    below = -jnp.logaddexp(-top, -free - safe) - safe
    found = jnp.where(observed, top - safe, jnp.where(possible, below, free))
    found = _keep_below(jnp.where(possible, logits.astype(jnp.float32), -jnp.inf), found, observed)
    return jnp.where((observed & possible).any(-1, keepdims=True), found, jnp.nan)


def _keep_below(logits: Array, gumbel: Array, observed: Array) -> Array:
    """The same noise with every loser at least a margin below the winner, as eq. (1) will add them up."""
    total = logits + gumbel
    winner = jnp.sum(jnp.where(observed, total, 0), -1, keepdims=True)
    safe = jnp.where(jnp.isfinite(logits), logits, 0)
    limit = winner - ROUNDINGS * (jnp.abs(winner) + jnp.abs(safe) + jnp.abs(gumbel))
    return jnp.where(~observed & (total > limit), limit - safe, gumbel)
