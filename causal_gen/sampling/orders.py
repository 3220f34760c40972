"""Likelihoods of a model that predicts any places from any others, as pure functions of its predict function (sampling/unmask.py, eq. 1).

    log p(x | o) = sum_k log p(x_o(k) | x_o(<k))                                 exact for a given order o                     (1)
    log p(x)    >= E_o log p(x | o) = n E_k E_o [ mean over j >= k of log p(x_o(j) | x_o(<k)) ]        a bound over orders     (2)
    pseudo       = sum_i log p(x_i | all others)                                 no likelihood: a score that ranks texts       (3)

A draw of (2) costs a call of the network and not n of them, where k is uniform. Where all orders agree, (1) is the likelihood and (2) has
nothing to lose. (3) is what minimal pairs are judged by. Sources: (2) Uria et al. (2014), Hoogeboom et al., ARDM (2022), eq. 3;
(3) Besag (1975), Salazar et al. (2020). Letters: b batch, t position, n places, v vocabulary.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.sampling.unmask import Predict
from causal_gen.types import Array, Bool, ConfigError, Float, Int, Key


def check_order(order: object, length: int) -> None:
    """Raises `ConfigError` for an order [.., t] that is not a permutation of the places. Call it outside of jit."""
    told = np.asarray(order)
    if told.shape[-1:] != (length,) or not (np.sort(told, -1) == np.arange(length)).all():
        raise ConfigError(f"order: not a permutation of 0..{length - 1}: {told.reshape(-1)[:8].tolist()}; name every place once")


def in_order(predict: Predict, tokens: Int[Array, "b t"], order: Int[Array, "t"] | Int[Array, "b t"], mask: int) -> Float[Array, "b"]:
    """Eq. (1) in nats, by t calls; `order` names places, first to last."""
    num, length = tokens.shape
    rank = jnp.argsort(order, axis=-1)
    rank = jnp.broadcast_to(rank if rank.ndim == 2 else rank[None], tokens.shape)

    def step(total: Array, k: Array) -> tuple[Array, None]:
        told = _told(predict, tokens, rank >= k, mask)
        return total + jnp.where(rank == k, told, 0).sum(-1), None

    return jax.lax.scan(step, jnp.zeros((num,)), jnp.arange(length))[0]


def order_bound(
    predict: Predict, key: Key, tokens: Int[Array, "b t"], mask: int, draws: int = 1, scored: Bool[Array, "b t"] | None = None
) -> Float[Array, "b"]:
    """An unbiased estimate of (2), in nats a row, from `draws` calls; the other places than `scored` are always seen.

    Draws of k are spread over a row's places, a stratum each, which lowers the variance.
    """
    scored = jnp.ones(tokens.shape, bool) if scored is None else scored
    n = scored.sum(-1)

    def one(total: Array, draw: Array) -> tuple[Array, None]:
        at, where = jax.random.split(jax.random.fold_in(key, draw))
        share = (draw + jax.random.uniform(at, n.shape)) / draws
        known = jnp.minimum((share * n).astype(jnp.int32), jnp.maximum(n - 1, 0))
        rank = _ranks(jnp.where(scored, jax.random.uniform(where, tokens.shape), 2.0))
        hidden = scored & (rank >= known[:, None])
        told = _told(predict, tokens, hidden, mask)
        return total + n * jnp.where(hidden, told, 0).sum(-1) / jnp.maximum(n - known, 1), None

    return jax.lax.scan(one, jnp.zeros(n.shape), jnp.arange(draws))[0] / draws


def profile(predict: Predict, key: Key, tokens: Int[Array, "b t"], mask: int) -> Float[Array, "t"]:
    """Mean nats of a hidden token given 0, 1, .. t-1 others, in a random order a row: the losses that sampling/planner.py reads."""
    rank = _ranks(jax.random.uniform(key, tokens.shape))

    def step(_: None, k: Array) -> tuple[None, Array]:
        hidden = rank >= k
        told = jnp.where(hidden, _told(predict, tokens, hidden, mask), 0).sum(-1) / hidden.sum(-1)
        return None, -told.mean()

    return jax.lax.scan(step, None, jnp.arange(tokens.shape[1]))[1]


def pseudo(predict: Predict, tokens: Int[Array, "b t"], mask: int) -> Float[Array, "b"]:
    """Eq. (3) in nats, by t calls."""
    num, length = tokens.shape

    def step(total: Array, i: Array) -> tuple[Array, None]:
        hidden = jnp.broadcast_to(jnp.arange(length)[None] == i, tokens.shape)
        return total + jnp.where(hidden, _told(predict, tokens, hidden, mask), 0).sum(-1), None

    return jax.lax.scan(step, jnp.zeros((num,)), jnp.arange(length))[0]


def _told(predict: Predict, tokens: Array, hidden: Array, mask: int) -> Float[Array, "b t"]:
    """Log-probability of every token given those that are not hidden."""
    logits = predict(jnp.where(hidden, mask, tokens), hidden.mean(-1).astype(jnp.float32))
    return jnp.take_along_axis(jax.nn.log_softmax(logits.astype(jnp.float32)), tokens[..., None], -1)[..., 0]


def _ranks(values: Float[Array, "b t"]) -> Int[Array, "b t"]:
    return jnp.argsort(jnp.argsort(values, axis=-1), axis=-1)
