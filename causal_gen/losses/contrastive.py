"""Contrastive losses of pairs in a batch, in nats an example: the others' partners are the negatives.

    s_ij = cos(q_i, k_j) / temperature,   loss_i = log( e^{s_ii} + sum_{j in N_i} e^{s_ij} ) - s_ii                           (1)

N_i is every j != i, or with `hard` the so many of them with the largest s_ij as the model sees them now: negatives that are mined anew at
every step, and so stay hard while the model learns. Sources: (1) van den Oord et al. 2018 (InfoNCE); mining: Li et al.,
Conan-embedding-v2 (2025). Letters: b batch, d width.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from causal_gen.types import Array, Float


def cosines(queries: Float[Array, "b d"], keys: Float[Array, "n d"]) -> Float[Array, "b n"]:
    """The cosine of every query with every key."""
    return _unit(queries) @ _unit(keys).T


def _unit(x: Array) -> Array:
    return x * jax.lax.rsqrt(jnp.maximum((x * x).sum(-1, keepdims=True), 1e-12))


def mined(scores: Float[Array, "b b"], hard: int) -> Float[Array, "b n"]:
    """s_ij of N_i: the `hard` largest off the diagonal, all of them where `hard` is 0 or there are no more."""
    num = scores.shape[0]
    others = jnp.where(jnp.eye(num, dtype=bool), -jnp.inf, scores)
    return jax.lax.top_k(others, min(hard, num - 1) if hard else num - 1)[0]


def info_nce(scores: Float[Array, "b b"], hard: int = 0) -> Float[Array, "b"]:
    """Eq. (1) of scores over temperature, the partners on the diagonal."""
    own = jnp.diagonal(scores)
    return jax.nn.logsumexp(jnp.concatenate([own[:, None], mined(scores, hard)], 1), -1) - own
