"""Convolutional encoder of an image to a diagonal Gaussian."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from causal_gen.nn.norm import BatchNorm, GroupNorm
from causal_gen.nn.unet import coordinate_channels
from causal_gen.types import Array, Float

Moments = tuple[tuple[Array, Array], ...]  # (mean [c], variance [c]) of each normalised layer


class GaussianEncoder(nn.Module):
    """Strided 3x3 convolutions, then two linear heads: mean and log-variance, each [b, size].

    `norm` is "group" or "batch"; with "batch", `running` holds the moments of every layer and the batch's are returned.
    """

    size: int
    widths: tuple[int, ...] = (32, 64, 96, 128)
    hidden: int = 256
    norm: str = "group"
    groups: int = 8
    low: float = -12.0
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], running: Moments | None, train: bool
    ) -> tuple[Float[Array, "b size"], Float[Array, "b size"], Moments | None]:
        moments = []
        h = jnp.concatenate([x, coordinate_channels(x)], -1).astype(self.dtype)
        for i, width in enumerate(self.widths):
            h = nn.Conv(width, (3, 3), (2, 2), padding=((1, 1), (1, 1)), dtype=self.dtype, name=f"conv_{i}")(h)
            if self.norm == "batch":
                assert running is not None
                h, batch_moments = BatchNorm(name=f"norm_{i}")(h, running[i], train)
                moments.append(batch_moments)
            else:
                h = GroupNorm(min(self.groups, width), name=f"norm_{i}")(h)
            h = nn.silu(h)
        h = h.reshape(h.shape[0], -1).astype(jnp.float32)
        if self.hidden:
            h = nn.silu(nn.Dense(self.hidden, name="hidden")(h))
        mean = nn.Dense(self.size, name="mean")(h)
        # started narrow: a wide posterior would hide the labels from the mechanisms for the first steps
        log_variance = nn.Dense(
            self.size, kernel_init=nn.initializers.zeros, bias_init=nn.initializers.constant(-4.0), name="log_variance"
        )(h)
        return mean, jnp.clip(log_variance, self.low, 4.0), tuple(moments) or None
