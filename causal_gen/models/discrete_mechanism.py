"""Mechanisms of nodes that take one of v values.

    value = argmax_j (logits_j + g_j),   logits = g(parents),   g_j standard Gumbel                             (1)
    g | value, parents   a draw of the posterior of (1), exact: with hindsight of what happened                   (2)

Other noise gives the same law of the values and other counterfactuals: (1) is a choice, under which a value that has become less likely,
relative to the one that was, never replaces it (Oberst & Sontag 2019, sec. 3.2). Letters: b batch, f features of the parents, v values.
"""

from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp
import numpy as np

from causal_gen.losses import categorical
from causal_gen.sampling import gumbel
from causal_gen.scm.intervention import Acts
from causal_gen.scm.mechanism import Column, Conditioner, acted, features_of
from causal_gen.types import Array, Batch, Float, Int, Key, Noise, Params

UNSEEN = 0.5  # rows that a table counts beside those it was given, of every value


@dataclasses.dataclass(frozen=True)
class Table:
    """The conditioner of discrete parents: a row of numbers for each of their configurations, the last parent turning fastest."""

    sizes: tuple[int, ...]
    outputs: int

    def init(self, key: Key) -> Params:
        del key
        return {"rows": jnp.zeros((math.prod(self.sizes), self.outputs))}

    def apply(self, params: Params, features: Float[Array, "b f"]) -> Float[Array, "b k"]:
        """The rows at the configurations that indicators `features` stand for."""
        which, start = jnp.ones((features.shape[0], 1)), 0
        for size in self.sizes:
            own = features[:, start : start + size]
            which = (which[:, :, None] * own[:, None, :]).reshape(features.shape[0], -1)
            start += size
        return which @ params["rows"]


@dataclasses.dataclass(frozen=True)
class Discrete:
    """Eqs. (1, 2). `conditioner` is None for a node without parents; a `Table` is fitted by counting."""

    column: Column
    parents: tuple[Column, ...]
    conditioner: Conditioner | None = None

    exact: bool = dataclasses.field(default=True, init=False)

    @property
    def nodes(self) -> tuple[str, ...]:
        return (self.column.name,)

    @property
    def values(self) -> int:
        """How many values the node takes."""
        assert self.column.categories is not None
        return self.column.categories

    @property
    def closed_form(self) -> bool:
        """Whether `fit` is the maximum of the likelihood, but for `UNSEEN`."""
        return isinstance(self.conditioner, Table | None)

    def init(self, key: Key) -> Params:
        return {"free": jnp.zeros((self.values,))} if self.conditioner is None else {"net": self.conditioner.init(key)}

    def logits(self, params: Params, parents: Batch, num: int) -> Float[Array, "b v"]:
        """Of the values, given the parents of `num` examples."""
        if self.conditioner is None:
            return jnp.broadcast_to(params["free"][None], (num, self.values))
        return self.conditioner.apply(params["net"], features_of(self.parents, parents))

    def _value(self, value: Batch) -> Int[Array, "b"]:
        return jnp.asarray(value[self.column.name]).astype(jnp.int32)

    def loss(self, params: Params, key: Key, value: Batch, parents: Batch, *, step: int | Array, train: bool):
        """-log p in nats."""
        del key, step, train
        own = self._value(value)
        nll = categorical.nll(self.logits(params, parents, own.shape[0]), own)
        return nll, {"nll": nll}

    def log_prob(self, params: Params, key: Key, value: Batch, parents: Batch) -> Float[Array, "b"]:
        """log p in nats."""
        return -self.loss(params, key, value, parents, step=0, train=False)[0]

    def noise(self, key: Key, num: int) -> Float[Array, "b v"]:
        """Standard Gumbel."""
        return gumbel.prior(key, (num, self.values))

    def predict(self, params: Params, noise: Noise, parents: Batch, do: Acts | None = None) -> dict[str, Int[Array, "b"]]:
        """Eq. (1)."""
        natural = gumbel.draw(self.logits(params, parents, noise.shape[0]), noise)
        return {self.column.name: acted(self.column.name, natural, do)}

    def abduct(self, params: Params, key: Key, value: Batch, parents: Batch) -> Float[Array, "b v"]:
        """Eq. (2)."""
        own = self._value(value)
        return gumbel.posterior(key, self.logits(params, parents, own.shape[0]), own)

    def conditional(self, params: Params, parents: Batch, num: int) -> dict[str, Float[Array, "b v"]]:
        """Logits of the node given its parents."""
        return {self.column.name: self.logits(params, parents, num)}

    def fit(self, value: Batch, parents: Batch) -> Params:
        """Log shares of the values among rows [n] of each configuration of the parents. For mechanisms that are `closed_form` alone."""
        if not self.closed_form:
            raise ValueError(f"{self.column.name}: this mechanism has no closed form; it is trained by its loss")
        sizes = tuple(parent.width for parent in self.parents)
        where = [np.asarray(parents[parent.name]).astype(int) for parent in self.parents]
        row = np.ravel_multi_index(where, sizes) if sizes else np.zeros(len(value[self.column.name]), int)
        counts = np.full((math.prod(sizes), self.values), UNSEEN)
        np.add.at(counts, (row, np.asarray(value[self.column.name]).astype(int)), 1.0)
        logits = jnp.asarray(np.log(counts / counts.sum(-1, keepdims=True)), jnp.float32)
        return {"free": logits[0]} if self.conditioner is None else {"net": {"rows": logits}}
