"""A small convolutional classifier: an instrument that reads a class from an image, no part of any generative model."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from causal_gen.types import Array, Float


class Classifier(nn.Module):
    """Two strided 5x5 convolutions and one hidden layer, to logits [b, classes]; or, asked for `features`, the hidden layer [b, hidden]."""

    classes: int = 10
    widths: tuple[int, ...] = (16, 32)
    hidden: int = 128

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], features: bool = False) -> Float[Array, "b k"]:
        for i, width in enumerate(self.widths):
            x = nn.relu(nn.Conv(width, (5, 5), (2, 2), name=f"conv_{i}")(x))
        x = nn.relu(nn.Dense(self.hidden, name="hidden")(x.reshape(x.shape[0], -1)))
        return x.astype(jnp.float32) if features else nn.Dense(self.classes, name="out")(x).astype(jnp.float32)
