"""Per-example losses between diagonal Gaussians, in nats. Letters: b batch; further axes are reduced by the caller's choice."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.types import Array, Float


def kl(mean: Array, log_variance: Array, prior_mean: Array, prior_log_variance: Array) -> Array:
    """KL(N(mean, var) | N(prior_mean, prior_var)), entry by entry; the arguments have one shape.

    All [b, ...], and so is the answer, in nats.
    """
    ratio = jnp.exp(log_variance - prior_log_variance)
    return 0.5 * (ratio + (mean - prior_mean) ** 2 * jnp.exp(-prior_log_variance) - 1 + prior_log_variance - log_variance)


def nll(value: Array, mean: Array, log_variance: Array) -> Array:
    """-log N(value; mean, var), entry by entry. All [b, ...], and so is the answer, in nats."""
    return 0.5 * ((value - mean) ** 2 * jnp.exp(-log_variance) + log_variance + np.log(2 * np.pi))


def fit(value: Array, mean: Array, log_variance: Array) -> Array:
    """`nll`, but with the gradient of least squares for `mean`.

    Where an entry has one variance in all examples the maximum is the same. The likelihood weighs entries by 1 / var, so that in a
    network which gives several, those of pure noise drown the others.

    All [b, ...].
    """
    square = 0.5 * (value - mean) ** 2
    return nll(value, jax.lax.stop_gradient(mean), log_variance) + square - jax.lax.stop_gradient(square)


def per_example(terms: Float[Array, "b ..."], reduction: str) -> Float[Array, "b"]:
    """Sum or mean of everything but the batch axis; `reduction` is "sum" or "mean"."""
    flat = terms.reshape(terms.shape[0], -1)
    return flat.sum(-1) if reduction == "sum" else flat.mean(-1)


def squared_error(prediction: Float[Array, "b ..."], target: Float[Array, "b ..."]) -> Float[Array, "b"]:
    """Mean squared error of each example."""
    return per_example((prediction - target) ** 2, "mean")
