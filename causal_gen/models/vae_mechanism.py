"""A conditional variational autoencoder as the mechanism of one real node.

    u = m(z, parents) + s e,   z ~ N(0, I) in k dimensions, e ~ N(0, 1), s a constant                            (1)
    q(z | u, parents) = N(mu, diag sigma^2), both from a network                                                (2)
    log p(u | parents) >= E_q log N(u; m, s) - KL(q | N(0, I))                                                  (3)

The noise of the node is (z, e). Abduction draws z from (2) and then takes e from (1), so that a null intervention gives the value back
whatever z was drawn; that z has the law of (1) is only as true as (3) is tight. Sources: Kingma & Welling 2014; as a mechanism Pawlowski
et al. 2020, sec. 3. Letters: b batch, k entries of z.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.losses import gaussian
from causal_gen.nn.conditioner import Net
from causal_gen.scm.intervention import Acts
from causal_gen.scm.mechanism import Column, Moments, acted, features_of
from causal_gen.scm.transform import scale_of
from causal_gen.types import Array, Batch, Float, Key, Noise, Params

DRAWS = 64  # of z, over which moments are summed


@dataclasses.dataclass(frozen=True)
class Variational:
    """Eqs. (1-3); `encoder` gives mu and log sigma [b, 2 k] from the value and the parents, `decoder` m [b, 1] from z and the parents."""

    column: Column
    parents: tuple[Column, ...]
    latents: int
    encoder: Net
    decoder: Net

    exact: bool = dataclasses.field(default=False, init=False)

    @property
    def nodes(self) -> tuple[str, ...]:
        return (self.column.name,)

    def init(self, key: Key) -> Params:
        """A decoder that starts near the identity of z's first entry, since one that ignores z would be left alone by (2)."""
        encoder, decoder, last = jax.random.split(key, 3)
        params = {"encoder": self.encoder.init(encoder), "decoder": self.decoder.init(decoder), "scale": jnp.zeros(())}
        kernel = params["decoder"]["out"]["kernel"]
        params["decoder"]["out"]["kernel"] = 0.3 * jax.random.normal(last, kernel.shape) / kernel.shape[0] ** 0.5
        return params

    def _mean(self, params: Params, z: Float[Array, "b k"], given: Float[Array, "b f"]) -> Float[Array, "b"]:
        return self.decoder.apply(params["decoder"], jnp.concatenate([z, given], -1))[:, 0]

    def _posterior(self, params: Params, u: Float[Array, "b"], given: Float[Array, "b f"]) -> tuple[Array, Array]:
        """mu and log sigma [b, k] of eq. (2)."""
        told = self.encoder.apply(params["encoder"], jnp.concatenate([u[:, None], given], -1))
        return told[:, : self.latents], told[:, self.latents :]

    def loss(self, params: Params, key: Key, value: Batch, parents: Batch, *, step: Any, train: bool) -> tuple[Array, dict[str, Array]]:
        """The negative of eq. (3) on unit scale, at one draw of z."""
        del step, train
        u = self.column.unit(value[self.column.name])
        given = features_of(self.parents, parents, u.shape[0])
        mu, log_sigma = self._posterior(params, u, given)
        z = mu + jnp.exp(log_sigma) * jax.random.normal(key, mu.shape)
        log_variance = jnp.broadcast_to(2 * jnp.log(scale_of(params["scale"])), u.shape)
        fit = gaussian.nll(u, self._mean(params, z, given), log_variance)
        kl = gaussian.kl(mu, 2 * log_sigma, jnp.zeros_like(mu), jnp.zeros_like(mu)).sum(-1)
        return fit + kl, {"nll": fit + kl, "kl": kl}

    def log_prob(self, params: Params, key: Key, value: Batch, parents: Batch) -> Float[Array, "b"]:
        """Eq. (3) in nats, in the node's own units: a bound."""
        bound = -self.loss(params, key, value, parents, step=0, train=False)[0]
        return bound + self.column.real.log_slope(jnp.asarray(value[self.column.name], jnp.float32))

    def noise(self, key: Key, num: int) -> dict[str, Array]:
        """{"latent": z [b, k], "residual": e [b]}, standard normal."""
        latent, residual = jax.random.split(key)
        return {"latent": jax.random.normal(latent, (num, self.latents)), "residual": jax.random.normal(residual, (num,))}

    def predict(self, params: Params, noise: Noise, parents: Batch, do: Acts | None = None) -> dict[str, Float[Array, "b"]]:
        """Eq. (1); under an intervention the value that it gives."""
        given = features_of(self.parents, parents, noise["residual"].shape[0])
        u = self._mean(params, noise["latent"], given) + scale_of(params["scale"]) * noise["residual"]
        return {self.column.name: acted(self.column.name, self.column.real.inverse(u), do)}

    def abduct(self, params: Params, key: Key, value: Batch, parents: Batch) -> dict[str, Array]:
        """A draw of z by eq. (2), and the e that eq. (1) then has."""
        u = self.column.unit(value[self.column.name])
        given = features_of(self.parents, parents, u.shape[0])
        mu, log_sigma = self._posterior(params, u, given)
        z = mu + jnp.exp(log_sigma) * jax.random.normal(key, mu.shape)
        return {"latent": z, "residual": (u - self._mean(params, z, given)) / scale_of(params["scale"])}

    def conditional(self, params: Params, parents: Batch, num: int) -> dict[str, Moments]:
        """Mean and standard deviation in own units over `DRAWS` values of z, always the same, and three of e."""
        given, points = features_of(self.parents, parents, num), np.array([-np.sqrt(3.0), 0.0, np.sqrt(3.0)], np.float32)
        weights = jnp.asarray([1 / 6, 2 / 3, 1 / 6])[:, None]

        def at(z: Array) -> tuple[Array, Array]:
            mean = self._mean(params, jnp.broadcast_to(z[None], (num, self.latents)), given)
            values = self.column.real.inverse(mean[None] + scale_of(params["scale"]) * jnp.asarray(points)[:, None])
            return (weights * values).sum(0), (weights * values**2).sum(0)

        first, second = jax.lax.map(at, jax.random.normal(jax.random.key(0), (DRAWS, self.latents)))
        mean = first.mean(0)
        return {self.column.name: (mean, jnp.sqrt(jnp.maximum(second.mean(0) - mean**2, 0.0)))}
