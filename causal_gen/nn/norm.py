"""Normalisation layers that are cheap on every backend, and without hidden state."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from causal_gen.types import Array, Float


class GroupNorm(nn.Module):
    """Group normalisation over space and the channels of a group (Wu & He 2018), in float32 whatever the compute dtype.

    Raises ValueError where the channels do not divide into `groups`.
    """

    groups: int = 32
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        b, h, w, c = x.shape
        if c % self.groups:
            raise ValueError(f"{c} channels do not divide into {self.groups} groups")
        scale = self.param("scale", nn.initializers.ones, (c,))
        bias = self.param("bias", nn.initializers.zeros, (c,))
        flat = x.astype(jnp.float32).reshape(b, h * w, self.groups, c // self.groups)
        # two reductions of one pass: the mean of squares is safe in float32 for activations near unit scale
        mean = flat.mean((1, 3), keepdims=True)
        variance = jnp.maximum((flat * flat).mean((1, 3), keepdims=True) - mean**2, 0)
        # folded into one multiply-add a channel, so that the big array is read once
        factor = (jax.lax.rsqrt(variance + self.epsilon) * scale.reshape(1, 1, self.groups, -1)).reshape(b, 1, 1, c)
        offset = bias.reshape(1, 1, 1, c) - jnp.broadcast_to(mean, (b, 1, self.groups, c // self.groups)).reshape(b, 1, 1, c) * factor
        return (x.astype(jnp.float32) * factor + offset).astype(x.dtype)


class BatchNorm(nn.Module):
    """Batch normalisation whose running moments are an input and whose batch moments are an output.

    `running` is (mean [c], variance [c]); in training the batch's own moments are used and returned, else `running`.
    """

    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], running: tuple[Array, Array], train: bool) -> tuple[Array, tuple[Array, Array]]:
        c = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (c,)).reshape(1, 1, 1, c)
        bias = self.param("bias", nn.initializers.zeros, (c,)).reshape(1, 1, 1, c)
        moments = (x.mean((0, 1, 2)), x.var((0, 1, 2))) if train else running
        mean, variance = (m.reshape(1, 1, 1, c) for m in moments)
        return (x - mean) * jax.lax.rsqrt(variance + self.epsilon) * scale + bias, moments


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis (Ba et al. 2016), in float32 whatever the compute dtype."""

    epsilon: float = 1e-5
    bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "*s d"]) -> Float[Array, "*s d"]:
        wide = x.astype(jnp.float32)
        centred = wide - wide.mean(-1, keepdims=True)
        y = centred * jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + self.epsilon)
        y = y * _last(self.param("scale", nn.initializers.ones, x.shape[-1:]), x)
        if self.bias:
            y = y + _last(self.param("bias", nn.initializers.zeros, x.shape[-1:]), x)
        return y.astype(x.dtype)


class RMSNorm(nn.Module):
    """Division by the root mean square of the last axis (Zhang & Sennrich 2019), in float32 whatever the compute dtype."""

    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Float[Array, "*s d"]) -> Float[Array, "*s d"]:
        wide = x.astype(jnp.float32)
        y = wide * jax.lax.rsqrt((wide * wide).mean(-1, keepdims=True) + self.epsilon)
        return (y * _last(self.param("scale", nn.initializers.ones, x.shape[-1:]), x)).astype(x.dtype)


def make_norm(kind: str, name: str) -> Callable[[Array], Array]:
    """The norm that a config calls "layer" or "rms"; "none" leaves things as they are, and has no parameters."""
    if kind == "none":
        return lambda x: x
    return RMSNorm(name=name) if kind == "rms" else LayerNorm(name=name)


def _last(vector: Array, x: Array) -> Array:
    return vector.reshape((1,) * (x.ndim - 1) + (-1,))
