"""Mechanisms: how the value of a node comes about from its parents and noise of its own, and back.

    value = f(noise, parents)          predict                                                                  (1)
    noise | value, parents             abduct: the inverse of (1) in the noise where `exact`, else a draw       (2)
    u = T_theta^-1(e),  theta = (g(parents), free),  e ~ N(0, 1)       one real node, u its value on unit scale  (3)
    log p(value | parents) = log N(e) + log |de / du| + log |du / dvalue|                                        (4)

T is one of scm/transform.py. In (3) the first `driven` numbers of theta come from the conditioner g, the others are free constants; which
they are says what is assumed of the node:

    m from a line, s free                        linear-Gaussian
    m from a network, s free                     additive noise, x = m(pa) + s e; with a spline also the law of the noise is learned
    m and s from a network                       location-scale, the conditional affine flow
    all of a spline's numbers from a network     conditional spline flow: any increasing function of the noise, given the parents

A conditioner is given: nothing here knows networks. Sources: additive noise Hoyer et al. 2008; flows as mechanisms Pawlowski et al. 2020;
increasing f makes counterfactuals identifiable, Nasr-Esfahany et al. 2023. Letters: b batch, f features of the parents, k numbers of T.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.scm.intervention import Acts
from causal_gen.scm.marginal import Scaling
from causal_gen.scm.transform import LEAST, Affine, Spline, raw_of
from causal_gen.types import Array, Batch, Float, Key, Noise, Params

Moments = tuple[Array, Array]  # mean and standard deviation [b], in the node's own units
POINTS = np.linspace(-5.0, 5.0, 161, dtype=np.float32)  # of the noise, over which moments are summed
WEIGHTS = np.exp(-0.5 * POINTS**2) / np.exp(-0.5 * POINTS**2).sum()


@runtime_checkable
class Mechanism(Protocol):
    """What a node, or a group of nodes, has in the place of an equation. Values and parents are batches {node: [b, ...]} in own units.

    `loss` gives ([b], terms {name: [b]}); `log_prob` is None where there is none, and a bound where `exact` is false. `conditional` gives
    the law of each node given the parents of `num` examples (of a group also the other nodes of it): moments [b], or logits [b, v].
    """

    @property
    def nodes(self) -> tuple[str, ...]: ...
    @property
    def parents(self) -> tuple[Column, ...]: ...
    @property
    def exact(self) -> bool: ...
    @property
    def log_prob(self) -> Any: ...  # (params, key, value, parents) -> [b]
    @property
    def abduct(self) -> Any: ...  # (params, key, value, parents) -> noise; None where the mechanism draws and cannot look back

    def init(self, key: Key) -> Params: ...
    def loss(self, params: Params, key: Key, value: Batch, parents: Batch, *, step: Any, train: bool) -> tuple[Array, dict[str, Array]]: ...
    def noise(self, key: Key, num: int) -> Noise: ...
    def predict(self, params: Params, noise: Noise, parents: Batch, do: Acts | None = None) -> dict[str, Array]: ...
    def conditional(self, params: Params, parents: Batch, num: int) -> dict[str, Any]:
        """The law of each node given the parents of `num` examples."""
        ...


@runtime_checkable
class Conditioner(Protocol):
    """A function of features with parameters, [b, f] to [b, k]. Hashable, as whatever closes over it is a static argument of jit."""

    def init(self, key: Key) -> Params: ...
    def apply(self, params: Params, features: Float[Array, "b f"]) -> Float[Array, "b k"]:
        """The numbers that the features give."""
        ...


@dataclasses.dataclass(frozen=True)
class Column:
    """How a node's value enters others' conditioners: a real number on unit scale, or one of `categories` as an indicator each."""

    name: str
    scaling: Scaling | None = None
    categories: int | None = None

    @property
    def width(self) -> int:
        """How many features it makes."""
        return self.categories or 1

    def features(self, value: Any) -> Float[Array, "b f"]:
        """A value [b] as features."""
        if self.categories:
            return jax.nn.one_hot(jnp.asarray(value).astype(jnp.int32), self.categories)
        return self.unit(value)[:, None]

    @property
    def real(self) -> Scaling:
        """Of a real number: between its own units and unit scale."""
        assert self.scaling is not None, self.name
        return self.scaling

    def unit(self, value: Any) -> Float[Array, "b"]:
        """A real value on unit scale."""
        return self.real.forward(jnp.asarray(value, jnp.float32))


def features_of(columns: tuple[Column, ...], values: Batch, num: int = 0) -> Float[Array, "b f"]:
    """The features of all `columns`, side by side in their order; of no columns none, for `num` examples."""
    parts = [column.features(values[column.name]) for column in columns]
    return jnp.concatenate(parts, -1) if parts else jnp.zeros((num, 0))


def acted(name: str, natural: Array, do: Acts | None) -> Array:
    """The value of a node given its natural value, of the same dtype. Both [b, ...]."""
    act = None if do is None else do.get(name)
    return natural if act is None else act.apply(natural).astype(natural.dtype)


def moments(transform: Affine | Spline, scaling: Scaling, theta: Float[Array, "b k"]) -> Moments:
    """Mean and standard deviation of eq. (3) in own units."""
    return over_noise(lambda point: scaling.inverse(transform.to_value(theta, jnp.broadcast_to(point, (theta.shape[0],)))))


def over_noise(at: Callable[[Array], Array], step: int = 1) -> Moments:
    """Mean and standard deviation of at(e) [b] over e ~ N(0, 1), by the trapezoidal rule: exact for affine maps, good at kinks.

    A map that costs much is asked at every `step`-th point alone.
    """
    weights = WEIGHTS[::step] / WEIGHTS[::step].sum()
    values, weights = jax.lax.map(at, jnp.asarray(POINTS[::step])), jnp.asarray(weights)[:, None]
    mean = (weights * values).sum(0)
    return mean, jnp.sqrt(jnp.maximum((weights * (values - mean[None]) ** 2).sum(0), 0.0))


@dataclasses.dataclass(frozen=True)
class Line:
    """The linear conditioner."""

    inputs: int
    outputs: int = 1

    def init(self, key: Key) -> Params:
        del key
        return {"kernel": jnp.zeros((self.inputs, self.outputs)), "bias": jnp.zeros((self.outputs,))}

    def apply(self, params: Params, features: Float[Array, "b f"]) -> Float[Array, "b k"]:
        """The line's numbers for some features."""
        return features @ params["kernel"] + params["bias"][None]


@dataclasses.dataclass(frozen=True)
class Monotone:
    """Eqs. (3, 4) for one real node. `conditioner` gives the first `driven` numbers of `transform`; None for a node without parents."""

    column: Column
    parents: tuple[Column, ...]
    transform: Affine | Spline
    driven: int = 0
    conditioner: Conditioner | None = None

    exact: bool = dataclasses.field(default=True, init=False)

    @property
    def nodes(self) -> tuple[str, ...]:
        return (self.column.name,)

    @property
    def closed_form(self) -> bool:
        """Whether `fit` is the maximum of the likelihood."""
        return isinstance(self.transform, Affine) and self.driven <= 1 and isinstance(self.conditioner, Line | None)

    def init(self, key: Key) -> Params:
        """The identity map, where the conditioner starts at zero."""
        params: dict[str, Any] = {}
        if self.conditioner is not None:
            params["net"] = self.conditioner.init(key)
        if self.driven < self.transform.size:
            params["free"] = jnp.zeros((self.transform.size - self.driven,))
        return params

    def theta(self, params: Params, parents: Batch, num: int) -> Float[Array, "b k"]:
        """The numbers of the map for each of `num` examples."""
        parts = []
        if self.conditioner is not None:
            parts.append(self.conditioner.apply(params["net"], features_of(self.parents, parents)))
        if "free" in params:
            parts.append(jnp.broadcast_to(params["free"][None], (num, len(params["free"]))))
        return jnp.concatenate(parts, -1)

    def _noise_of(self, params: Params, value: Batch, parents: Batch) -> tuple[Array, Array]:
        """e and log |de / du|."""
        u = self.column.unit(value[self.column.name])
        return self.transform.to_noise(self.theta(params, parents, u.shape[0]), u)

    def loss(self, params: Params, key: Key, value: Batch, parents: Batch, *, step: Any, train: bool) -> tuple[Array, dict[str, Array]]:
        """-log p on unit scale, in nats."""
        del key, step, train
        e, log_slope = self._noise_of(params, value, parents)
        nll = 0.5 * (e**2 + np.log(2 * np.pi)) - log_slope
        return nll, {"nll": nll}

    def log_prob(self, params: Params, key: Key, value: Batch, parents: Batch) -> Float[Array, "b"]:
        """Eq. (4) in nats, a density in the node's own units."""
        nll = self.loss(params, key, value, parents, step=0, train=False)[0]
        return -nll + self.column.real.log_slope(jnp.asarray(value[self.column.name], jnp.float32))

    def noise(self, key: Key, num: int) -> Float[Array, "b"]:
        """Standard normal."""
        return jax.random.normal(key, (num,))

    def predict(self, params: Params, noise: Noise, parents: Batch, do: Acts | None = None) -> dict[str, Float[Array, "b"]]:
        """Eqs. (1, 3); under an intervention the value that it gives."""
        u = self.transform.to_value(self.theta(params, parents, noise.shape[0]), noise)
        return {self.column.name: acted(self.column.name, self.column.real.inverse(u), do)}

    def abduct(self, params: Params, key: Key, value: Batch, parents: Batch) -> Float[Array, "b"]:
        """Eq. (2), exactly."""
        del key
        return self._noise_of(params, value, parents)[0]

    def conditional(self, params: Params, parents: Batch, num: int) -> dict[str, Moments]:
        """Mean and standard deviation in own units."""
        return {self.column.name: moments(self.transform, self.column.real, self.theta(params, parents, num))}

    def fit(self, value: Batch, parents: Batch) -> Params:
        """The parameters of largest likelihood for rows [n], by least squares in float64. For mechanisms that are `closed_form` alone."""
        if not self.closed_form:
            raise ValueError(f"{self.column.name}: this mechanism has no closed form; it is trained by its loss")
        u = np.asarray(self.column.unit(value[self.column.name]), np.float64)
        x = np.ones((len(u), 1))
        if self.parents:
            x = np.concatenate([np.asarray(features_of(self.parents, parents), np.float64), x], -1)
        line = np.linalg.lstsq(x, u, rcond=None)[0]
        return self._with_line(line[:-1], line[-1], (u - x @ line).std())

    def from_line(self, slopes: Mapping[str, float], intercept: float, std: float) -> Params:
        """The parameters of value = intercept + sum_j slope_j parent_j + std e, all in own units; the parents are real."""
        own = self.column.real
        scaled = [(parent.scaling, slopes.get(parent.name, 0.0)) for parent in self.parents]
        if own.kind != "standard" or any(scaling is None or scaling.kind != "standard" for scaling, _ in scaled):
            raise ValueError(f"{self.column.name}: a line in own units is one on unit scale for standard scalings alone")
        kernel = [slope * scaling.std / own.std for scaling, slope in scaled if scaling is not None]
        centre = intercept + sum(slope * scaling.mean for scaling, slope in scaled if scaling is not None)
        return self._with_line(np.asarray(kernel), (centre - own.mean) / own.std, std / own.std)

    def _with_line(self, kernel: np.ndarray, bias: Any, std: Any) -> Params:
        raw = float(raw_of(max(float(std), 2 * LEAST)))
        if self.conditioner is None:
            return {"free": jnp.asarray([float(bias), raw])}
        net = {"kernel": jnp.asarray(kernel, jnp.float32)[:, None], "bias": jnp.asarray([bias], jnp.float32)}
        return {"net": net, "free": jnp.asarray([raw])}
