"""The two networks that a bidirectional model plays against each other: from codes to a picture, and a judge of pairs of both.

    G(z) = sigmoid(perceptron(z))                                                                   (1)
    D(x, z) = (s_x(h) + s_z(g) + h . V g) / 3,     h = perceptron(x),  g = perceptron(z)             (2)

D is a judge of each half and of how they go together, a third each; the last score is a product of both halves' features, which tells
from the first step on which pixels belong to which code. Codes are seen with sines and cosines of every entry, which place things
precisely. Dense layers, as in nn/autoencoder.py. Sources: Donahue & Simonyan 2019 (BigBiGAN) for the three scores, Miyato & Koyama 2018
for the product. Letters: b batch, p pixels, k entries of a code.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from causal_gen.types import Array, Float

WAVES = np.pi / 4 * 2.0 ** np.arange(4)  # rates of the sines and cosines


def waves(z: Float[Array, "b k"]) -> Float[Array, "b f"]:
    """Entries of a code, and their sines and cosines."""
    angles = (z[:, :, None] * jnp.asarray(WAVES, jnp.float32).reshape(1, 1, -1)).reshape(z.shape[0], -1)
    return jnp.concatenate([z, jnp.sin(angles), jnp.cos(angles)], -1)


def _perceptron(name: str, widths: tuple[int, ...], h: Array) -> Array:
    for i, width in enumerate(widths):
        h = nn.silu(nn.Dense(width, name=f"{name}_{i}")(h))
    return h


class Generator(nn.Module):
    """Eq. (1)."""

    pixels: int
    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, z: Float[Array, "b k"]) -> Float[Array, "b p"]:
        h = _perceptron("hidden", self.widths, waves(z))
        return nn.sigmoid(nn.Dense(self.pixels, name="out")(h))


class Critic(nn.Module):
    """Eq. (2): `widths` of the perceptron of pictures in [0, 1], that of codes has the last of them twice."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Float[Array, "b p"], z: Float[Array, "b k"]) -> Float[Array, "b"]:
        h = _perceptron("picture", self.widths, 2 * x - 1)
        g = _perceptron("code", (self.widths[-1],) * 2, waves(z))
        pair = (h * nn.Dense(self.widths[-1], name="pair")(g)).sum(-1) / np.sqrt(self.widths[-1])
        alone = nn.Dense(1, name="picture_score")(h)[:, 0] + nn.Dense(1, name="code_score")(g)[:, 0]
        return (alone + pair) / 3
