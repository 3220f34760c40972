"""How to spend a budget of network calls: the numbers of places to fill a step that lose least, by dynamic programming.

    L_i = E[-log p(x_k | the i places filled before)],  k any other place, in nats        i = 0 .. n - 1                     (1)
    loss of filling s places at once after i others = s L_i                                                               (2)
    C_j(m) = min over i < j of C_i(m - 1) + (j - i) L_i,  C_0(0) = 0          best plan: the path that ends in C_n(K)        (3)

(2) is what the bound on the likelihood pays where places are drawn independently of one another. Source: Hoogeboom et al.,
Autoregressive diffusion models (2022), sec. 3.2 and app. D. Letters: b batch, t position, n places, K budget.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.sampling.unmask import Predict
from causal_gen.types import Array, ConfigError, Float, Int, Key


def plan(losses: Sequence[float] | np.ndarray, budget: int) -> tuple[int, ...]:
    """Places to fill in each of `budget` steps, eq. (3); `losses` are L_0 .. L_n-1 of (1).

    Raises `ConfigError` for a budget that is not in 1 .. n, or losses that are not finite.

    `losses` [n].
    """
    told = np.asarray(losses, np.float64)
    n = len(told)
    if not 1 <= budget <= n:
        raise ConfigError(f"planner: {budget} steps for {n} places; give 1 at least, and no more than places")
    if not np.isfinite(told).all():
        raise ConfigError(f"planner: the loss after {int(np.argmin(np.isfinite(told)))} places is not finite; measure it on more rows")
    jump = (np.arange(n + 1)[None] - np.arange(n)[:, None]) * told[:, None]  # [i, j], eq. (2)
    jump = np.where(np.arange(n + 1)[None] > np.arange(n)[:, None], jump, np.inf)
    cost, came = np.where(np.arange(n + 1) == 0, 0.0, np.inf), []
    for _ in range(budget):
        through = cost[:n, None] + jump
        came.append(through.argmin(0))
        cost = through.min(0)
    ends = [n]
    for origin in reversed(came):
        ends.append(int(origin[ends[-1]]))
    return tuple(int(step) for step in np.diff(ends[::-1]))


def price(losses: Sequence[float] | np.ndarray, counts: Sequence[int]) -> float:
    """Nats that a plan loses a row, the sum of (2). `losses` [n]."""
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return float(np.sum(np.asarray(counts) * np.asarray(losses, np.float64)[starts]))


def even(places: int, budget: int) -> tuple[int, ...]:
    """Equally many places a step, as the unmasking loop fills them without a plan."""
    left = places * (budget - np.arange(budget + 1)) // budget
    return tuple(int(step) for step in -np.diff(left))


def profile(predict: Predict, key: Key, tokens: Int[Array, "b t"], mask: int) -> Float[Array, "t"]:
    """Eq. (1), measured on `tokens`, each row in a random order of its own: t calls."""
    rank = jnp.argsort(jnp.argsort(jax.random.uniform(key, tokens.shape), axis=-1), axis=-1)

    def step(_: None, k: Array) -> tuple[None, Array]:
        hidden = rank >= k
        logits = predict(jnp.where(hidden, mask, tokens), hidden.mean(-1).astype(jnp.float32))
        told = jnp.take_along_axis(jax.nn.log_softmax(logits.astype(jnp.float32)), tokens[..., None], -1)[..., 0]
        return None, -(jnp.where(hidden, told, 0).sum(-1) / hidden.sum(-1)).mean()

    return jax.lax.scan(step, None, jnp.arange(tokens.shape[1]))[1]
