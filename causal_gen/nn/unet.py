"""U-Net noise predictor for images, conditioned on a time and a vector.

Residual blocks of GroupNorm, SiLU and 3x3 convolutions with the embedding of (t, condition) entering between the
two convolutions, skip connections from every block of the way down, attention at chosen levels and in the middle.
Sources: Ho et al. 2020, app. B; scale-shift modulation from Nichol & Dhariwal 2021, sec. 2.
Letters: b batch, h w c image, d embedding width.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.nn.norm import GroupNorm
from causal_gen.nn.remat import POLICIES
from causal_gen.types import Array, Float, Int


def timestep_embedding(t: Int[Array, "b"] | Float[Array, "b"], width: int, longest: float = 10_000.0) -> Float[Array, "b d"]:
    """Sines and cosines of t at geometric frequencies (Vaswani et al. 2017, sec. 3.5). `width` is even."""
    rates = jnp.exp(-jnp.log(longest) * jnp.arange(width // 2) / (width // 2))
    angles = t.astype(jnp.float32)[:, None] * rates.reshape(1, -1)
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], -1)


class ResBlock(nn.Module):
    """GroupNorm-SiLU-conv twice around the embedding; `modulation` is "shift" or "scale_shift"."""

    channels: int
    groups: int = 32
    modulation: str = "scale_shift"
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], embedding: Float[Array, "b d"]) -> Float[Array, "b h w e"]:
        h = nn.Conv(self.channels, (3, 3), dtype=self.dtype, name="conv_in")(nn.silu(GroupNorm(self.groups, name="norm_in")(x)))
        twice = 2 if self.modulation == "scale_shift" else 1
        mod = nn.Dense(twice * self.channels, dtype=self.dtype, name="modulation")(nn.silu(embedding))[:, None, None, :]
        norm = GroupNorm(self.groups, name="norm_out")
        if twice == 2:
            scale, shift = jnp.split(mod, 2, -1)
            h = norm(h) * (1 + scale) + shift
        else:
            h = norm(h + mod)
        # a block starts as the identity, so that depth costs nothing at the start of training
        h = nn.Conv(self.channels, (3, 3), dtype=self.dtype, kernel_init=nn.initializers.zeros, name="conv_out")(nn.silu(h))
        if x.shape[-1] != self.channels:
            x = nn.Conv(self.channels, (1, 1), dtype=self.dtype, name="skip")(x)
        return x + h


class SpatialAttention(nn.Module):
    """Residual self-attention over all pixels with heads of width `head_dim`."""

    head_dim: int = 32
    groups: int = 32
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        b, h, w, c = x.shape
        qkv = nn.Dense(3 * c, dtype=self.dtype, name="qkv")(GroupNorm(self.groups, name="norm")(x).reshape(b, h * w, c))
        q, k, v = jnp.split(qkv.reshape(b, h * w, 3 * c // self.head_dim, self.head_dim), 3, 2)
        out = jax.nn.dot_product_attention(q, k, v).reshape(b, h * w, c)
        return x + nn.Dense(c, dtype=self.dtype, kernel_init=nn.initializers.zeros, name="out")(out).reshape(b, h, w, c)


class Down(nn.Module):
    """Halve the resolution with a strided 3x3 convolution."""

    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Array:
        return nn.Conv(x.shape[-1], (3, 3), (2, 2), padding=((1, 1), (1, 1)), dtype=self.dtype, name="conv")(x)


class Up(nn.Module):
    """Double the resolution: nearest neighbour, then a 3x3 convolution, computed as four 2x2 convolutions of the small picture.

    Of the 3x3 entries around a pixel of the doubled picture only 2x2 differ, so that kernel entries which meet the same one
    are added first: 16 products for the 36 of the plain way. One product yields the four phases (rows and columns, even and odd)
    side by side; odd ones start one pixel later.
    """

    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Array:
        b, h, w, c = x.shape
        kernel, bias = Kernel((3, 3, c, c), name="conv")()
        # [phase, entry of 2, entry of 3]: an even row sees (above, itself twice), an odd one (itself twice, below)
        merge = jnp.asarray([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], kernel.dtype)
        phases = jnp.einsum("pai,qbj,ijco->abcpqo", merge, merge, kernel).reshape(4 * c, 4 * c)
        # a matrix product over the 2x2 patches: its gradient is one too, which XLA's CPU convolutions of even width are not
        x = jnp.pad(x.astype(self.dtype), ((0, 0), (1, 1), (1, 1), (0, 0)))
        patches = jnp.concatenate([x[:, i : i + h + 1, j : j + w + 1] for i in (0, 1) for j in (0, 1)], -1)
        y = (patches @ phases.astype(self.dtype)).reshape(b, h + 1, w + 1, 2, 2, c)
        rows = [jnp.stack([y[:, p : p + h, q : q + w, p, q] for q in (0, 1)], 3) for p in (0, 1)]
        return jnp.stack(rows, 2).reshape(b, 2 * h, 2 * w, c) + bias.astype(self.dtype).reshape(1, 1, 1, -1)


class Kernel(nn.Module):
    """The parameters of a convolution, for a layer that computes it in its own way."""

    shape: tuple[int, ...]

    @nn.compact
    def __call__(self) -> tuple[Array, Float[Array, "o"]]:
        kernel = self.param("kernel", nn.initializers.lecun_normal(), self.shape)
        return kernel, self.param("bias", nn.initializers.zeros, self.shape[-1:])


class Canvas(nn.Module):
    """A picture-sized map [b, n, h, w, c] for each of the factors [b, n, f], through two dense layers a factor.

    Dense layers place things exactly at the cost of a small matrix product; that no factor's map depends on another keeps
    what one factor draws still when another is intervened upon.
    """

    shape: tuple[int, int, int]
    hidden: int = 64

    @nn.compact
    def __call__(self, factors: Float[Array, "b n f"]) -> Float[Array, "b n h w c"]:
        b, n, f = factors.shape
        init = nn.initializers.lecun_normal(in_axis=-2, out_axis=-1, batch_axis=(0,))
        w_in = self.param("w_in", init, (n, f, self.hidden))
        b_in = self.param("b_in", nn.initializers.normal(0.5), (n, self.hidden))
        w_out = self.param("w_out", init, (n, self.hidden, int(np.prod(self.shape))))
        h = nn.silu(jnp.einsum("bnf,nfd->bnd", factors, w_in) + b_in[None])
        return jnp.einsum("bnd,ndp->bnp", h, w_out).reshape(b, n, *self.shape)


class UNet(nn.Module):
    """`x` [b, h, w, c] at time `t` [b] under `condition` [b, n, f] (n factors with f features, or None) -> [b, h, w, out].

    Sides must divide by patch * 2^(levels - 1); `attention` lists levels by index, the middle attends if `middle_attention`.
    `coordinates` appends sines and cosines of the pixel's place at that many frequencies, which a convolution cannot know.
    `sketch` is a picture, as good as something simpler draws it, which the first layer sees beside x.
    `patch` folds patch x patch pixels into channels on the way in and out: wide convolutions on a small plane run nearer to a
    machine's peak. The condition modulates every block (`modulate`), or draws a map of `canvas` channels that the first and
    the last layer see, or both. `remat` names what the backward pass recomputes of each block (nn/remat.py).
    """

    out: int
    channels: int = 64
    multipliers: tuple[int, ...] = (1, 2, 2)
    blocks: int = 1
    groups: int = 32
    head_dim: int = 32
    attention: tuple[int, ...] = ()
    middle_attention: bool = True
    modulation: str = "scale_shift"
    coordinates: int = 0
    patch: int = 1
    canvas: int = 0
    modulate: bool = True
    remat: str = "none"
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        t: Int[Array, "b"],
        condition: Float[Array, "b n f"] | None = None,
        sketch: Float[Array, "b h w s"] | None = None,
    ) -> Float[Array, "b h w out"]:
        width = 4 * self.channels
        embedding = nn.Dense(width, name="time_in")(timestep_embedding(t, self.channels))
        embedding = nn.Dense(width, name="time_out")(nn.silu(embedding))
        if condition is not None and self.modulate:
            hidden = nn.silu(nn.Dense(width, name="condition_in")(condition.reshape(condition.shape[0], -1)))
            embedding = embedding + nn.Dense(width, name="condition_out")(hidden)
        block_class: Any = ResBlock if self.remat == "none" else nn.remat(ResBlock, policy=POLICIES[self.remat])

        def block(channels: int, name: str, h: Array) -> Array:
            return block_class(channels, self.groups, self.modulation, self.dtype, name=name)(h, embedding)

        def attend(level: int, name: str, h: Array) -> Array:
            return SpatialAttention(self.head_dim, self.groups, self.dtype, name=name)(h) if level in self.attention else h

        x = fold(x.astype(self.dtype), self.patch)
        canvas = None
        if condition is not None and self.canvas:
            # the background is a constant of the layer, so that no factor has to draw it
            ground = self.param("ground", nn.initializers.zeros, (*x.shape[1:3], self.canvas))
            maps = Canvas((x.shape[1], x.shape[2], self.canvas), name="canvas")(condition)
            canvas = (maps.sum(1) + ground[None]).astype(self.dtype)
            x = jnp.concatenate([x, canvas], -1)
        if sketch is not None:
            x = jnp.concatenate([x, fold(sketch.astype(self.dtype), self.patch)], -1)
        if self.coordinates:
            x = jnp.concatenate([x, coordinate_channels(x, self.coordinates)], -1)
        h = nn.Conv(self.channels, (3, 3), dtype=self.dtype, name="conv_in")(x)
        skips = [h]
        levels = len(self.multipliers)
        for level, multiplier in enumerate(self.multipliers):
            for i in range(self.blocks):
                h = attend(level, f"down_{level}_{i}_attention", block(multiplier * self.channels, f"down_{level}_{i}", h))
                skips.append(h)
            if level < levels - 1:
                h = Down(self.dtype, name=f"down_{level}")(h)
                skips.append(h)
        h = block(h.shape[-1], "middle_0", h)
        if self.middle_attention:
            h = SpatialAttention(self.head_dim, self.groups, self.dtype, name="middle_attention")(h)
        h = block(h.shape[-1], "middle_1", h)
        for level, multiplier in reversed(list(enumerate(self.multipliers))):
            for i in range(self.blocks + 1):
                h = jnp.concatenate([h, skips.pop()], -1)
                h = attend(level, f"up_{level}_{i}_attention", block(multiplier * self.channels, f"up_{level}_{i}", h))
            if level:
                h = Up(self.dtype, name=f"up_{level}")(h)
        h = nn.silu(GroupNorm(self.groups, name="norm_out")(h))
        if canvas is not None:
            h = jnp.concatenate([h, canvas], -1)
        out = nn.Conv(self.out * self.patch**2, (3, 3), kernel_init=nn.initializers.zeros, name="conv_out")(h.astype(jnp.float32))
        return unfold(out, self.patch)


def footprint(maps: Float[Array, "b n h w c"], price: Float[Array, "n"]) -> Float[Array, "b"]:
    """How much of the picture the factors draw: the length of each factor's map at each pixel times its price, summed over factors.

    A group lasso (Yuan & Lin 2006) with one group a factor and pixel: of factors that could both draw a thing, the cheapest
    few are left to do it. Meaned over pixels.
    """
    return (jnp.sqrt((maps**2).sum(-1) + 1e-6) * price.reshape(1, -1, 1, 1)).sum(1).mean((1, 2))


def fold(x: Float[Array, "b h w c"], patch: int) -> Array:
    """Space to depth: [b, h, w, c] -> [b, h / patch, w / patch, patch^2 c]."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // patch, patch, w // patch, patch, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // patch, w // patch, patch * patch * c)


def unfold(x: Float[Array, "b h w c"], patch: int) -> Array:
    """Depth to space: the inverse of `fold`. The answer is [b, patch h, patch w, c / patch^2]."""
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, patch, patch, c // patch**2)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h * patch, w * patch, c // patch**2)


def coordinate_channels(x: Float[Array, "b h w c"], frequencies: int = 0) -> Float[Array, "b h w e"]:
    """Row and column of each pixel from -1 to 1, then sines and cosines of both at pi / 2 times 1, 2, 4, ...; e = 2 + 4 frequencies.

    A product of such a channel with one made from the condition is a wave at a place that the condition sets.
    """
    b, h, w, _ = x.shape
    rows = jnp.broadcast_to(jnp.linspace(-1, 1, h).reshape(h, 1, 1), (h, w, 1))
    columns = jnp.broadcast_to(jnp.linspace(-1, 1, w).reshape(1, w, 1), (h, w, 1))
    place = jnp.concatenate([rows, columns], -1)
    waves = [wave(np.pi / 2 * 2.0**i * place) for i in range(frequencies) for wave in (jnp.sin, jnp.cos)]
    return jnp.broadcast_to(jnp.concatenate([place, *waves], -1)[None], (b, h, w, 2 + 4 * frequencies)).astype(x.dtype)
