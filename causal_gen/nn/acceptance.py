"""What a draft's own doubt says of its candidates: the chance that the target will accept them, learned.

    a(logits) = sigmoid(W_3 gelu(W_2 gelu(W_1 f))),   f = (entropy of q, its 8 largest log-probabilities),  q = softmax(logits)      (1)
    loss      = - alpha log a - (1 - alpha) log(1 - a),   alpha = sum_v min(p_v, q_v)                                        (2)

alpha is the probability that a candidate drawn from q is accepted against the target's p, so that (2) is smallest where a is its
expectation given f. (1) sees the draft alone, and may so stop a draft without a word of the target.
Sources: (1, 2) Lu et al. 2024 (a decision model of three layers; theirs is trained on what was accepted); alpha Leviathan et al. 2023,
theorem 3.5. Letters: v vocabulary, f features, d width.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from causal_gen.types import Array, Float, Key, Params

TOP = 8  # largest log-probabilities that the head reads
LEAST = -20.0  # and what stands for anything below


def init(key: Key, width: int) -> Params:
    """Fresh parameters of a head with two hidden layers of `width`."""
    sizes = (TOP + 1, width, width, 1)
    make = jax.nn.initializers.lecun_normal()
    keys = jax.random.split(key, 3)
    return {f"layer_{i}": {"kernel": make(keys[i], sizes[i : i + 2]), "bias": jnp.zeros(sizes[i + 1])} for i in range(3)}


def score(params: Params, logits: Float[Array, "*s v"]) -> Float[Array, "*s"]:
    """The logit of (1); a vocabulary of less than 8 tokens is read as if it had more, of probability zero."""
    log_q = jax.nn.log_softmax(logits.astype(jnp.float32))
    entropy = -(jnp.exp(log_q) * jnp.maximum(log_q, LEAST)).sum(-1, keepdims=True)
    k = min(TOP, log_q.shape[-1])
    top = jnp.maximum(jax.lax.top_k(log_q, k)[0], LEAST)
    h = jnp.concatenate([entropy, jnp.pad(top, [(0, 0)] * (top.ndim - 1) + [(0, TOP - k)], constant_values=LEAST)], -1)
    for i in range(3):
        layer = params[f"layer_{i}"]
        h = (jax.nn.gelu(h) if i else h) @ layer["kernel"] + layer["bias"].reshape((1,) * (h.ndim - 1) + (-1,))
    return h[..., 0]


def log_chance(params: Params, logits: Float[Array, "*s v"]) -> Float[Array, "*s"]:
    """log a of (1), from the draft's logits."""
    return jax.nn.log_sigmoid(score(params, logits))


def loss(params: Params, target: Float[Array, "*s v"], draft: Float[Array, "*s v"]) -> Float[Array, "*s"]:
    """(2) from the logits of both, which get no gradient of it."""
    target, draft = jax.lax.stop_gradient((target.astype(jnp.float32), draft.astype(jnp.float32)))
    alpha = jnp.minimum(jax.nn.softmax(target), jax.nn.softmax(draft)).sum(-1)
    x = score(params, draft)
    return -(alpha * jax.nn.log_sigmoid(x) + (1 - alpha) * jax.nn.log_sigmoid(-x))
