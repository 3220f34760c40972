"""A network from features of the parents to the numbers of a mechanism."""

from __future__ import annotations

import dataclasses
import functools

import flax.linen as nn
import jax.numpy as jnp

from causal_gen.types import Array, Float, Key, Params


class Perceptron(nn.Module):
    """SiLU layers of `widths`, then a linear one that starts at zero: all that is conditioned starts as the identity."""

    outputs: int
    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Float[Array, "*s f"]) -> Float[Array, "*s k"]:
        for i, width in enumerate(self.widths):
            x = nn.silu(nn.Dense(width, name=f"hidden_{i}")(x))
        return nn.Dense(self.outputs, kernel_init=nn.initializers.zeros, name="out")(x)


@dataclasses.dataclass(frozen=True)
class Net:
    """`Perceptron` as a `Conditioner` (scm/mechanism.py) of `inputs` features; without widths it is linear."""

    inputs: int
    outputs: int
    widths: tuple[int, ...] = (32, 32)

    @functools.cached_property
    def _module(self) -> Perceptron:
        return Perceptron(self.outputs, self.widths)

    def init(self, key: Key) -> Params:
        return self._module.init(key, jnp.zeros((1, self.inputs)))["params"]

    def apply(self, params: Params, features: Float[Array, "b f"]) -> Float[Array, "b k"]:
        return self._module.apply({"params": params}, features)  # pyright: ignore[reportReturnType]
