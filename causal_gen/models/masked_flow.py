"""One masked autoregressive flow over all nodes of a graph, as the mechanism of them all.

    e_i = T_i((u_i - m_i) / s_i),   (m_i, s_i, T_i) = g_i(u_pa(i)),   g one masked network                       (1)
    log p(x) = sum_i log N(e_i) + log |de_i / dx_i|                                                             (2)

From values to noise (1) is one pass of the network, from noise to values one for each node in the graph's order, and by its masks it
obeys the graph as mechanisms of their own do: a node's numbers see its parents alone. Sources: Papamakarios et al. 2017; along a graph
Javaloy et al. 2023 (causal normalizing flows), here with masks by parents and splines. Letters: b batch, n nodes, k numbers a node.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.nn.conditioner import MaskedPerceptron
from causal_gen.scm.intervention import Acts, read_by
from causal_gen.scm.mechanism import Column, Moments, acted, moments
from causal_gen.scm.transform import Affine, Spline
from causal_gen.structure.graph import Dag
from causal_gen.types import Array, Batch, Float, Key, Noise, Params


@dataclasses.dataclass(frozen=True)
class MaskedFlow:
    """Eqs. (1, 2) over the real nodes of `graph`; `columns` in its node order. `width` units a node in each of `layers` hidden layers."""

    graph: Dag
    columns: tuple[Column, ...]
    transform: Affine | Spline
    width: int
    layers: int

    parents: tuple[Column, ...] = dataclasses.field(default=(), init=False)
    exact: bool = dataclasses.field(default=True, init=False)

    @property
    def nodes(self) -> tuple[str, ...]:
        return self.graph.nodes

    @functools.cached_property
    def _net(self) -> MaskedPerceptron:
        sees = tuple(tuple(bool(one) for one in row) for row in self.graph.adjacency().T)
        return MaskedPerceptron(sees, self.transform.size, self.width, self.layers)

    def init(self, key: Key) -> Params:
        return self._net.init(key, jnp.zeros((1, len(self.nodes))))["params"]

    def _units(self, values: Batch) -> Float[Array, "b n"]:
        return jnp.stack([column.unit(values[column.name]) for column in self.columns], -1)

    def _theta(self, params: Params, units: Float[Array, "b n"]) -> Float[Array, "b n k"]:
        return self._net.apply({"params": params}, units)  # pyright: ignore[reportReturnType]

    def _noise_of(self, params: Params, value: Batch) -> tuple[list[Array], list[Array]]:
        """e_i and log |de_i / du_i| of every node."""
        units = self._units(value)
        theta = self._theta(params, units)
        found = [self.transform.to_noise(theta[:, i], units[:, i]) for i in range(len(self.nodes))]
        return [e for e, _ in found], [slope for _, slope in found]

    def loss(self, params: Params, key: Key, value: Batch, parents: Batch, *, step: Any, train: bool) -> tuple[Array, dict[str, Array]]:
        """-log p on unit scale, in nats."""
        del key, parents, step, train
        nll = sum(
            (0.5 * (e**2 + np.log(2 * np.pi)) - slope for e, slope in zip(*self._noise_of(params, value), strict=True)), jnp.zeros(())
        )
        return nll, {"nll": nll}

    def log_prob(self, params: Params, key: Key, value: Batch, parents: Batch) -> Float[Array, "b"]:
        """Eq. (2) in nats, a density in own units."""
        nll = self.loss(params, key, value, parents, step=0, train=False)[0]
        scalings = [(column.scaling, jnp.asarray(value[column.name], jnp.float32)) for column in self.columns]
        return -nll + sum((scaling.log_slope(own) for scaling, own in scalings if scaling is not None), jnp.zeros(()))

    def noise(self, key: Key, num: int) -> dict[str, Float[Array, "b"]]:
        """Standard normal, a draw a node."""
        return {name: jax.random.normal(own, (num,)) for name, own in zip(self.nodes, jax.random.split(key, len(self.nodes)), strict=True)}

    def predict(self, params: Params, noise: Noise, parents: Batch, do: Acts | None = None) -> dict[str, Float[Array, "b"]]:
        """Eq. (1) solved for the values, node after node."""
        del parents
        num, acts = len(noise[self.nodes[0]]), do or {}
        found: dict[str, Any] = {name: jnp.zeros((num,)) for name in self.nodes}
        for name in self.graph.order:  # what is not yet known is not seen
            i = self.graph.index(name)
            theta = self._theta(params, self._units(read_by(name, found, acts)))[:, i]
            found[name] = acted(name, self.columns[i].real.inverse(self.transform.to_value(theta, noise[name])), do)
        return found

    def abduct(self, params: Params, key: Key, value: Batch, parents: Batch) -> dict[str, Float[Array, "b"]]:
        """Eq. (1)."""
        del key, parents
        return dict(zip(self.nodes, self._noise_of(params, value)[0], strict=True))

    def conditional(self, params: Params, parents: Batch, num: int) -> dict[str, Moments]:
        """Moments of every node given its parents, which are among `parents`, the values of all nodes."""
        del num
        theta, found = self._theta(params, self._units(parents)), {}
        for i, column in enumerate(self.columns):
            assert column.scaling is not None
            found[column.name] = moments(self.transform, column.real, theta[:, i])
        return found
