"""Variational autoencoder of flat pictures given conditions, with one group of latents or a ladder of several.

    h = encoder(x, c)
    e_l | x ~ N(m_l, s_l^2),   (m_l, s_l) from h and the state d_l so far                                           (1)
    z_l = e_l   or   mu(d_l) + sigma(d_l) e_l          the prior of z_l: exogenous, or a mediator of the conditions    (2)
    d_0 = the conditions,   d_{l+1} = silu(W [d_l, z_l, c])                                                         (3)
    logits = perceptron [d_L, c]                                                                                    (4)

In (2) the exogenous variable is e_l ~ N(0, 1) either way, independent of the conditions c. Everything is dense: on a CPU a dense
layer steps some fifteen times as fast as convolutions of as many numbers. Sources: Kingma & Welling 2014; ladders after Sonderby et
al. 2016; both priors De Sousa Ribeiro et al. 2023, secs. 3.1, 3.2. Letters: b batch, p pixels, c conditions, k latents of a group, d width.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from causal_gen.types import Array, Float

Moments = tuple[Array, Array]  # mean and log-variance [b, k]


class Autoencoder(nn.Module):
    """Eqs. (1-4): `groups` are the latents of each group, `widths` of the encoder's and, reversed, of the decoder's hidden layers."""

    pixels: int
    groups: tuple[int, ...]
    widths: tuple[int, ...]
    mediator: bool = False
    low: float = -10.0

    def setup(self) -> None:
        self.reading = [nn.Dense(width, name=f"read_{i}") for i, width in enumerate(self.widths)]
        # started narrow, so that the first steps already tell pictures apart
        narrow = nn.initializers.variance_scaling(0.1, "fan_in", "truncated_normal")
        self.posterior = [nn.Dense(2 * size, kernel_init=narrow, name=f"posterior_{i}") for i, size in enumerate(self.groups)]
        zeros = nn.initializers.zeros
        self.prior = [nn.Dense(2 * size, kernel_init=zeros, name=f"prior_{i}") for i, size in enumerate(self.groups) if self.mediator]
        self.states = [nn.Dense(self.widths[-1], name=f"state_{i}") for i in range(len(self.groups))]
        self.writing = [nn.Dense(width, name=f"write_{i}") for i, width in enumerate(self.widths[::-1][1:])]
        # pictures are mostly background
        self.out = nn.Dense(self.pixels, bias_init=nn.initializers.constant(-3.0), name="out")

    def infer(
        self, x: Float[Array, "b p"], c: Float[Array, "b c"], e: tuple[Array, ...] | None
    ) -> tuple[tuple[Moments, ...], tuple[Array, ...]]:
        """Eq. (1) of all groups, and the noise: drawn from it by the standard normal draws `e`, or where they are None its mean.

        Moments, noise and `e` are [b, k], one for each group of k latents.
        """
        h = jnp.concatenate([x, c], -1)
        for layer in self.reading:
            h = nn.silu(layer(h))
        state, moments, found = c, [], []
        for i, layer in enumerate(self.posterior):
            mean, log_variance = jnp.split(layer(jnp.concatenate([h, state, c], -1)), 2, -1)
            log_variance = jnp.clip(log_variance, self.low, 4.0)
            moments.append((mean, log_variance))
            found.append(mean if e is None else mean + jnp.exp(0.5 * log_variance) * e[i])
            state = self._next(i, state, found[-1], c)
        return tuple(moments), tuple(found)

    def generate(self, e: tuple[Array, ...], c: Float[Array, "b c"]) -> Float[Array, "b p"]:
        """Logits of the pixels that the noise gives under the conditions, eqs. (2-4). `e` are [b, k], one for each group of k latents."""
        state = c
        for i, own in enumerate(e):
            state = self._next(i, state, own, c)
        for layer in self.writing:
            state = nn.silu(layer(jnp.concatenate([state, c], -1)))
        return self.out(jnp.concatenate([state, c], -1))

    def _next(self, i: int, state: Array, e: Array, c: Array) -> Array:
        if self.mediator:
            mean, raw = jnp.split(self.prior[i](jnp.concatenate([state, c], -1)), 2, -1)
            e = mean + jax.nn.softplus(raw + 0.5413) * e  # softplus(.5413) = 1
        return nn.silu(self.states[i](jnp.concatenate([state, e, c], -1)))

    def __call__(self, x: Float[Array, "b p"], c: Float[Array, "b c"]) -> Float[Array, "b p"]:
        """The reconstruction's logits; creates every parameter."""
        return self.generate(self.infer(x, c, None)[1], c)
