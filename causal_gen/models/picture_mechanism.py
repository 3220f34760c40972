"""The mechanism of a node that is a picture: an autoencoder whose latents are the picture's exogenous noise.

    x = mu(e, pa) + s eps                      e ~ N(0, 1) the latents' noise, eps of the pixels, of a standard law         (1)
    mu = min(1, 1.3 level sigmoid(logits))     where a parent is the brightness, level = it / 255; else sigmoid(logits)       (2)
    -log p(x | pa) <= E_q[-log p(x | e, pa)] + KL(q(e | x, pa) | N(0, 1))                                                (3)
    loss = (3), its divergence times beta, + weight.effectiveness |r(mu(e, pa')) - pa'|^2 + |r(x) - pa|^2                     (4)

In (4) e is a draw of q(e | x, pa), pa' are parents drawn afresh from the model of the nodes above, and r is a network that reads the
parents from a picture: its first appearance does not train r, the second trains nothing else. That is counterfactual training: without
it latents that know the parents hide part of an intervention's effect. Parents drawn independently of each other would ask r about
pictures of a kind that it has never seen: having learned that bright strokes are thick, it would have the decoder thicken what is lit.
Abduction takes the mean of q; without `residual` predictions are mu and eps is nowhere. Sources: (1, 3) Pawlowski et al. 2020; (4) De
Sousa Ribeiro et al. 2023, sec. 3.4, there with a fixed reader and a Lagrangian. Letters: b batch, h w c picture, p = h w c, f features
of the parents, k latents.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.losses import gaussian
from causal_gen.models.picture_config import PictureConfig
from causal_gen.nn.autoencoder import Autoencoder
from causal_gen.nn.conditioner import Perceptron
from causal_gen.scm.intervention import Acts
from causal_gen.scm.mechanism import Column, features_of
from causal_gen.types import Array, Batch, Float, Key, Noise, Params

HEADROOM = 1.3  # of eq. (2): the brightness is a median, some pixels lie above it
WAVES = np.pi / 4 * 2.0 ** np.arange(3)  # of the sines and cosines that place a real parent precisely
READER = (256, 256)
READING = 10.0  # weight of what trains the reader, whose gradient meets nothing else


@dataclasses.dataclass(frozen=True)
class Picture:
    """Eqs. (1-4) for node `name` of `shape` [h, w, c] in [0, 1]; its parents are real or discrete."""

    name: str
    parents: tuple[Column, ...]
    shape: tuple[int, int, int]
    config: PictureConfig

    exact: bool = dataclasses.field(default=False, init=False)

    @property
    def nodes(self) -> tuple[str, ...]:
        return (self.name,)

    @functools.cached_property
    def _net(self) -> Autoencoder:
        c = self.config
        return Autoencoder(math.prod(self.shape), c.latents, c.widths, c.prior == "mediator")

    @functools.cached_property
    def _reader(self) -> Perceptron:
        return Perceptron(sum(parent.width for parent in self.parents), READER)

    def init(self, key: Key) -> Params:
        """Fresh parameters {"net", "log_scale", "reader"?}."""
        keys, x = jax.random.split(key, 2), jnp.zeros((1, math.prod(self.shape)))
        c = self._conditions({parent.name: jnp.zeros((1,)) for parent in self.parents}, 1)
        params = {"net": self._net.init(keys[0], x, c)["params"], "log_scale": jnp.full((), -2.0, jnp.float32)}
        return params | ({"reader": self._reader.init(keys[1], x)["params"]} if self.config.effectiveness else {})

    def _conditions(self, parents: Batch, num: int) -> Float[Array, "b f"]:
        """What encoder and decoder are told of the parents."""
        if not self.parents:
            return jnp.zeros((num, 1))
        features = [features_of(self.parents, parents)]
        for parent in self.parents:
            if parent.scaling is not None:
                angles = parent.unit(parents[parent.name])[:, None] * jnp.asarray(WAVES, jnp.float32)[None]
                features += [jnp.sin(angles), jnp.cos(angles)]
        return jnp.concatenate(features, -1)

    def _level(self, parents: Batch) -> Float[Array, "b 1"] | None:
        """Brightness as a share of full range."""
        return None if self.config.level is None else jnp.asarray(parents[self.config.level], jnp.float32)[:, None] / 255

    def _flat(self, value: Batch) -> Float[Array, "b p"]:
        picture = jnp.asarray(value[self.name], jnp.float32)
        return picture.reshape(picture.shape[0], -1)

    def _infer(self, params: Params, x: Array, parents: Batch, e: tuple[Array, ...] | None) -> Any:
        level = self._level(parents)
        shown = 2 * (x if level is None else x / jnp.maximum(level, 1e-3)) - 0.3  # about centred, for pictures that are mostly dark
        return self._net.apply({"params": params["net"]}, shown, self._conditions(parents, x.shape[0]), e, method="infer")

    def _mean(self, params: Params, e: tuple[Array, ...], parents: Batch) -> Float[Array, "b p"]:
        """Eq. (2)."""
        logits: Any = self._net.apply({"params": params["net"]}, e, self._conditions(parents, e[0].shape[0]), method="generate")
        level = self._level(parents)
        return jax.nn.sigmoid(logits) if level is None else jnp.minimum(1.0, HEADROOM * level * jax.nn.sigmoid(logits))

    def _draws(self, key: Key, num: int) -> tuple[Array, ...]:
        keys = jax.random.split(key, len(self.config.latents))
        return tuple(jax.random.normal(own, (num, size)) for own, size in zip(keys, self.config.latents, strict=True))

    # ---- training ------------------------------------------------------------------------------------------------------------

    def _posterior(self, params: Params, key: Key, x: Array, parents: Batch) -> tuple[Float[Array, "b"], tuple[Array, ...]]:
        """The divergence of q(e | x, pa) from the prior, at a draw of it, and that draw."""
        moments, e = self._infer(params, x, parents, self._draws(key, x.shape[0]))
        return sum((gaussian.kl(m, v, jnp.zeros_like(m), jnp.zeros_like(v)).sum(-1) for m, v in moments), jnp.zeros(())), e

    def _bound(self, params: Params, key: Key, x: Array, parents: Batch) -> tuple[Array, Array, tuple[Array, ...]]:
        """Both parts of eq. (3), each [b], at one draw of the noise, and that draw."""
        kl, e = self._posterior(params, key, x, parents)
        gap, log_scale = x - self._mean(params, e, parents), params["log_scale"]
        if self.config.likelihood == "normal":
            nll = gaussian.nll(gap, jnp.zeros_like(gap), jnp.full_like(gap, 2 * log_scale))
        else:
            nll = jnp.abs(gap) * jnp.exp(-log_scale) + log_scale + math.log(2)
        return nll.sum(-1), kl, e

    def _read(self, reader: Params, x: Array) -> Array:
        found: Any = self._reader.apply({"params": reader}, 2 * x - 0.3)
        return found

    @property
    def fresh(self) -> bool:
        """Whether `loss` wants parents drawn afresh."""
        return self.config.effectiveness > 0

    def loss(
        self, params: Params, key: Key, value: Batch, parents: Batch, *, step: Any, train: bool, fresh: Batch | None = None
    ) -> tuple[Array, dict[str, Array]]:
        """Eq. (4) under `fresh` parents; terms "nll" of the pixels, "kl", and with readers "read" and "effect", their squared errors on
        unit scale. Without `fresh` the readers have no part in it."""
        del step, train
        x = self._flat(value)
        nll, kl, e = self._bound(params, key, x, parents)
        total, terms = nll + self.config.beta * kl, {"nll": nll, "kl": kl}
        if self.config.effectiveness and fresh is not None:
            answer = self._mean(params, e, fresh)
            terms["read"] = ((self._read(params["reader"], x) - features_of(self.parents, parents)) ** 2).sum(-1)
            told = self._read(jax.lax.stop_gradient(params["reader"]), answer)
            terms["effect"] = ((told - features_of(self.parents, fresh)) ** 2).sum(-1)
            total = total + READING * terms["read"] + self.config.effectiveness * terms["effect"]
        return total, terms

    def log_prob(self, params: Params, key: Key, value: Batch, parents: Batch) -> Float[Array, "b"]:
        """A draw of the bound (3), in nats, of pixels in [0, 1]."""
        nll, kl, _ = self._bound(params, key, self._flat(value), parents)
        return -nll - kl

    # ---- the causal interface ------------------------------------------------------------------------------------------------

    def noise(self, key: Key, num: int) -> dict[str, Array]:
        """{"latent0": [b, k], ..}, and with `residual` {"pixels": [b, h, w, c]}, all standard."""
        found = {f"latent{i}": e for i, e in enumerate(self._draws(key, num))}
        if self.config.residual:
            draw = jax.random.normal if self.config.likelihood == "normal" else jax.random.laplace
            found["pixels"] = draw(jax.random.fold_in(key, 1), (num, *self.shape))
        return found

    def _latents(self, noise: Noise) -> tuple[Array, ...]:
        return tuple(noise[f"latent{i}"] for i in range(len(self.config.latents)))

    def predict(self, params: Params, noise: Noise, parents: Batch, do: Acts | None = None) -> dict[str, Float[Array, "b h w c"]]:
        """Eq. (1), within [0, 1]; a picture is not set by hand."""
        del do
        e = self._latents(noise)
        picture = self._mean(params, e, parents).reshape(e[0].shape[0], *self.shape)
        if self.config.residual:
            picture = picture + jnp.exp(params["log_scale"]) * noise["pixels"]
        return {self.name: jnp.clip(picture, 0.0, 1.0)}

    def abduct(self, params: Params, key: Key, value: Batch, parents: Batch) -> dict[str, Array]:
        """The mean of q(e | x, pa), and the pixels' noise that is left by it."""
        del key
        x = self._flat(value)
        _, e = self._infer(params, x, parents, None)
        found = {f"latent{i}": own for i, own in enumerate(e)}
        if self.config.residual:
            gap = (x - self._mean(params, e, parents)) * jnp.exp(-params["log_scale"])
            found["pixels"] = gap.reshape(-1, *self.shape)
        return found

    def draw(self, params: Params, key: Key, value: Batch, parents: Batch) -> dict[str, Array]:
        """A draw of q(e | x, pa), in place of its mean; without the pixels' noise."""
        return self.sounded(params, key, value, parents)[0]

    def sounded(self, params: Params, key: Key, value: Batch, parents: Batch) -> tuple[dict[str, Array], Float[Array, "b"]]:
        """`draw`, and the divergence of q(e | x, pa) from the prior."""
        kl, e = self._posterior(params, key, self._flat(value), parents)
        return {f"latent{i}": own for i, own in enumerate(e)}, kl

    def conditional(self, params: Params, parents: Batch, num: int) -> dict[str, tuple[Array, Array]]:
        """Mean [b, h, w, c] of the picture at latents of 0, which no picture had a part in, and the pixels' scale."""
        e = tuple(jnp.zeros((num, size)) for size in self.config.latents)
        mean = self._mean(params, e, parents).reshape(num, *self.shape)
        return {self.name: (mean, jnp.full_like(mean, jnp.exp(params["log_scale"])))}
