"""A rough picture for a diffusion decoder to finish: what an autoencoder draws of the factors' values and latents of its own.

    s = mu(e, y*)       e from the given picture, y* the factors under an intervention (models/picture_mechanism.py, eq. 2)     (1)
    decoder: net(x_t, t, z, s)                                                                                          (2)

DDIM's inversion hands on part of what it is given: where an intervention asks for other strokes, x_T remembers the old ones. A sketch in
which they are already right leaves x_T less to say. Source: DiffuseVAE, Pandey et al. 2022, there without causes. Letters: b batch,
h w c picture.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from causal_gen.models.picture_mechanism import Picture
from causal_gen.types import Array, Batch, Float, Key, Noise, Params


@dataclasses.dataclass(frozen=True)
class Frame:
    """Between pictures of `shape` in [0, 1] and the plane of a network: [-1, 1], with `pad` pixels of background (0) on every side."""

    shape: tuple[int, int, int]
    pad: int

    @property
    def padded(self) -> tuple[int, int, int]:
        """Shape of the plane."""
        h, w, c = self.shape
        return h + 2 * self.pad, w + 2 * self.pad, c

    def to_net(self, image: Float[Array, "b h w c"]) -> Array:
        """A picture on the plane."""
        return 2 * jnp.pad(image, ((0, 0), (self.pad, self.pad), (self.pad, self.pad), (0, 0))) - 1

    def from_net(self, x: Array) -> Float[Array, "b h w c"]:
        """What a plane shows."""
        h, w, _ = self.shape
        return jnp.clip((x[:, self.pad : self.pad + h, self.pad : self.pad + w] + 1) / 2, 0, 1)


@dataclasses.dataclass(frozen=True)
class Sketch:
    """Eq. (1) on the plane of the decoder."""

    picture: Picture
    frame: Frame

    def draw(self, params: Params, e: Noise, values: Mapping[str, Array]) -> Array:
        """The sketch that latents `e`, which may lie among other noise, give at the factors' values."""
        return self.frame.to_net(self.picture.predict(params, e, dict(values))[self.picture.name])

    def plain(self, params: Params, values: Mapping[str, Array]) -> Array:
        """The sketch at latents of 0, which no picture had a part in. A picture [b, h, w, c]."""
        num = len(next(iter(values.values())))
        return self.draw(params, jax.tree.map(jnp.zeros_like, self.picture.noise(jax.random.key(0), num)), values)

    def train(
        self, params: Params, key: Key, batch: Batch, values: Mapping[str, Array], labelled: Float[Array, "b"], fresh: Batch
    ) -> tuple[dict[str, Array], Float[Array, "b"], dict[str, Array]]:
        """A draw of the latents behind the pictures of `batch`, the sketch's own loss, and its terms.

        `values` are the factors as the encoder reads them, for rows without labels; `fresh` other factors, as the model draws them.
        """
        keys = jax.random.split(key, 2)
        known = {name: jnp.where(labelled > 0, batch.get(name, own), own) for name, own in jax.lax.stop_gradient(dict(values)).items()}
        loss, terms = self.picture.loss(params, keys[0], batch, known, step=0, train=True, fresh=fresh)
        return self.picture.draw(params, keys[1], batch, known), loss, {f"sketch_{name}": term for name, term in terms.items()}
