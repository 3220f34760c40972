"""Networks from values of the parents to the numbers of a mechanism. Letters: n nodes, w hidden units a node, k numbers a node."""

from __future__ import annotations

import dataclasses
import functools

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

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
        """The network's numbers for some features."""
        return self._module.apply({"params": params}, features)  # pyright: ignore[reportReturnType]


class MaskedPerceptron(nn.Module):
    """One network for all nodes of a graph: the numbers of node i see the values of its parents and nothing else.

    `sees[i][j]` says that j is a parent of i. Every layer has w units for each node; those of node j know of j's parents, and so feed
    those of node i exactly where all parents of j are parents of i: nodes with nested parents share what they compute.
    """

    sees: tuple[tuple[bool, ...], ...]
    outputs: int
    width: int
    layers: int

    @nn.compact
    def __call__(self, x: Float[Array, "b n"]) -> Float[Array, "b n k"]:
        sees = np.asarray(self.sees, bool)
        nested = np.array([[bool(np.all(mine[other])) for mine in sees] for other in sees])  # [j, i]: j's parents are among i's
        h, mask = x, sees.T
        for layer in range(self.layers):
            mask = np.repeat(mask, self.width, 1)
            h = nn.silu(self._dense(f"hidden_{layer}", h, mask, nn.initializers.lecun_normal()))
            mask = np.repeat(nested, self.width, 0)
        out = self._dense("out", h, np.repeat(mask, self.outputs, 1), nn.initializers.zeros)
        return out.reshape(x.shape[0], len(sees), self.outputs)

    def _dense(self, name: str, h: Array, mask: np.ndarray, start: nn.initializers.Initializer) -> Array:
        kernel = self.param(f"{name}/kernel", start, mask.shape)
        bias = self.param(f"{name}/bias", nn.initializers.zeros, mask.shape[1:])
        return h @ (kernel * jnp.asarray(mask, h.dtype)) + bias[None]
