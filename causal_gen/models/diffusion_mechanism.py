"""A conditional diffusion as the mechanism of one real node (DCM).

    v(x_t, t, parents) is trained on  E |v - v_t|^2,  t uniform in 1..T, x_t a noised value on unit scale        (1)
    value = decode(e, parents),   e ~ N(0, 1)          DDIM from x_T = e down to x_0                              (2)
    e = invert(value, parents)                          DDIM upwards                                             (3)

(3) is the inverse of (2) up to an error that falls as 1 / steps, so that abduction is not exact; there is no likelihood. Source: Chao et
al. 2023 (DCM), there with the noise as target; process and sampler: process/gaussian.py, sampling/ddim.py. Letters: b batch, f features.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.process.gaussian import GaussianProcess
from causal_gen.sampling import ddim
from causal_gen.scm.intervention import Acts
from causal_gen.scm.mechanism import Column, Conditioner, Moments, acted, features_of, over_noise
from causal_gen.types import Array, Batch, Float, Int, Key, Noise, Params

TURNS = (1, 2, 4)  # frequencies in which the network sees the time
TIME = 3 + 2 * len(TURNS)  # features of the time
FEW = 20  # steps of the sampler for moments


@dataclasses.dataclass(frozen=True)
class Diffusion:
    """Eqs. (1-3); `conditioner` takes x_t, `TIME` features of t, and the features of the parents, and gives one number."""

    column: Column
    parents: tuple[Column, ...]
    conditioner: Conditioner
    process: GaussianProcess
    steps: int = 50
    refine: int = 0

    exact: bool = dataclasses.field(default=False, init=False)
    log_prob: None = dataclasses.field(default=None, init=False)

    @property
    def nodes(self) -> tuple[str, ...]:
        return (self.column.name,)

    def init(self, key: Key) -> Params:
        return self.conditioner.init(key)

    def _told(self, params: Params, xt: Float[Array, "b"], t: Int[Array, "b"], given: Float[Array, "b f"]) -> Float[Array, "b"]:
        a, s = self.process.coefficients(t)
        share = t / self.process.timesteps
        turns = [wave(np.pi * k * share) for k in TURNS for wave in (jnp.sin, jnp.cos)]
        features = jnp.concatenate([jnp.stack([xt, a, s, share, *turns], -1), given], -1)
        return self.conditioner.apply(params, features)[:, 0]

    def loss(self, params: Params, key: Key, value: Batch, parents: Batch, *, step: Any, train: bool) -> tuple[Array, dict[str, Array]]:
        """Eq. (1), at one time an example."""
        del step, train
        x = self.column.unit(value[self.column.name])
        times, draws = jax.random.split(key)
        t = jax.random.randint(times, x.shape, 1, self.process.timesteps + 1)
        xt, eps = self.process.corrupt(draws, x, t)
        square = (self._told(params, xt, t, features_of(self.parents, parents, x.shape[0])) - self.process.target(x, eps, t)) ** 2
        return square, {"mse": square}

    def noise(self, key: Key, num: int) -> Float[Array, "b"]:
        """Standard normal."""
        return jax.random.normal(key, (num,))

    def _denoiser(self, params: Params, parents: Batch, num: int) -> Any:
        given = features_of(self.parents, parents, num)
        return lambda xt, t: self.process.x0_eps(self._told(params, xt, t, given), xt, t)

    def predict(self, params: Params, noise: Noise, parents: Batch, do: Acts | None = None) -> dict[str, Float[Array, "b"]]:
        """Eq. (2); under an intervention the value that it gives."""
        u = ddim.decode(self._denoiser(params, parents, noise.shape[0]), self.process, noise, self.steps)
        return {self.column.name: acted(self.column.name, self.column.real.inverse(u), do)}

    def abduct(self, params: Params, key: Key, value: Batch, parents: Batch) -> Float[Array, "b"]:
        """Eq. (3)."""
        del key
        u = self.column.unit(value[self.column.name])
        return ddim.invert(self._denoiser(params, parents, u.shape[0]), self.process, u, self.steps, self.refine)

    def conditional(self, params: Params, parents: Batch, num: int) -> dict[str, Moments]:
        """Mean and standard deviation in own units, over nine points of the noise, at no more than `FEW` steps."""
        coarse = dataclasses.replace(self, steps=min(FEW, self.steps))
        return {self.column.name: over_noise(lambda e: coarse.predict(params, jnp.full((num,), e), parents)[self.column.name], step=20)}
