"""Losses of masked predictions, in nats, an entry a position; which positions count, and how much, is the weight that they are given.

    loss = sum_i weight_i term_i                                                                                              (1)
    weight_i = hidden_i / #hidden                              the mean over hidden tokens (BERT)                             (2)
    weight_i = hidden_i / #hidden,  #hidden uniform            the bound over orders of ARDM, a token                         (3)
    weight_i = hidden_i h'(t) / h(t) / #scored                 the bound of masked diffusion, a token (process/masking.py)    (4)

    rates:  term_i = sum_v w_v mu_v - w_x (1 + log mu_x)       masking at a rate a token (process/masking.py, eq. 8)          (5)
    parts:  term_i = sum_{j masked} -log sum_{v agrees, v_j = x_j} mu_v / sum_{v agrees} mu_v                                 (6)

In (6) v agrees if its digits are those of x_i where they are shown. Sources: (2) Devlin et al. 2019; (3) Hoogeboom et al. 2022, eq. 3 and
algorithm 2; (4, 5) Shi et al. 2024, eq. 9 and sec. 6; (6) Chao et al. 2025. Letters: b batch, t position, l digits, v vocabulary.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from causal_gen.types import Array, Bool, Float, Int


def mean_over(counted: Bool[Array, "b t"] | Float[Array, "b t"]) -> Float[Array, "b t"]:
    """The weight of eqs. (2, 3); 0 throughout where nothing is counted."""
    counted = counted.astype(jnp.float32)
    return counted / jnp.maximum(counted.sum(-1, keepdims=True), 1)


def over_time(hidden: Bool[Array, "b t"], weight: Float[Array, "b"], scored: Bool[Array, "b t"]) -> Float[Array, "b t"]:
    """The weight of eq. (4)."""
    return hidden * weight[:, None] / jnp.maximum(scored.sum(-1, keepdims=True), 1)


def rates(logits: Float[Array, "b t v"], targets: Int[Array, "b t"], w: Float[Array, "v"]) -> Float[Array, "b t"]:
    """Eq. (5), of which w = 1 throughout is -log mu_x."""
    log_mu = jax.nn.log_softmax(logits.astype(jnp.float32))
    chosen, w = jax.nn.one_hot(targets, logits.shape[-1], dtype=bool), w[None, None]
    own, told = jnp.where(chosen, w, 0).sum(-1), jnp.where(chosen, log_mu, 0).sum(-1)
    return (w * jnp.exp(log_mu)).sum(-1) - own * (1 + told)


def parts(
    logits: Float[Array, "b t v"], targets: Int[Array, "b t"], shown: Bool[Array, "b t l"], digits: Int[Array, "v l"]
) -> Float[Array, "b t"]:
    """Eq. (6); 0 where all digits are shown."""
    logits, digits = logits.astype(jnp.float32), jnp.asarray(digits)
    same = digits[targets][:, :, :, None] == digits.T[None, None]  # [b, t, l, v]: token v has the digit that x has
    agrees = (same | ~shown[..., None]).all(2)
    total = jax.nn.logsumexp(jnp.where(agrees, logits, -jnp.inf), -1)
    right = jax.nn.logsumexp(jnp.where(agrees[:, :, None] & same, logits[:, :, None], -jnp.inf), -1)
    return jnp.where(shown, 0, total[..., None] - right).sum(-1)
