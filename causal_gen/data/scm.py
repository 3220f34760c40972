"""Rows of structural causal models whose equations are known, so that the counterfactual of every row is too.

    linear     a = e1;  b = 1 + .8 a + .5 e2;  c = -.5 a + .6 b + .8 e3;  d = 2 + .9 b - 1.2 c + .6 e4                      (1)
    triangle   x1 = e1;  x2 = 2 x1^2 + e2;  x3 = 20 / (1 + exp(x1 - x2^2)) + e3                                          (2)
    chain      x1 = e1;  x2 = exp(x1 / 2) + e2 / 4;  x3 = (x2 - 5)^3 / 15 + e3                                             (3)
    mediator   x = e1;  m = 1.5 x + e2;  y = .7 m - .8 x + `interaction` x m + e3                                          (4)
    ellipse    z ~ U(-.5, .5);  t = (1.4 z + .3 + e) mod 2 pi;  r = 1 + exp(1.6 z - .2) E;  w = exp(1.2 z + .1) + U;
               y = w (2 + sin t),  x = r w (2 + cos t) = r y (2 + cos t) / (2 + sin t)                                      (5)
    discrete   z of 3 values, x given z of 2, y given x and z of 3: argmax of log probability + Gumbel noise                  (6)

with e ~ N(0, 1), E ~ Exp(1), U ~ U(0, 1) independent. In (5) r and w depend on z, which confounds t with x and y; given z and t the maps
to y and then to x are increasing, so that both follow from the law of the rows. Sources: (2, 3) Javaloy et al. 2023; (5) Nasr-Esfahany,
Alizadeh & Shah 2023, with weights of our own from their ranges. Letters: b batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy import stats

from causal_gen.data.generated import Columns, Generated, Rows, stream
from causal_gen.data.labels import statistics
from causal_gen.scm.intervention import Acts, Intervention, canonical, edge_name
from causal_gen.types import Entry, Float, Int, choice

Row = Mapping[str, np.ndarray]
LINEAR = {  # node: intercept, slopes of its parents, standard deviation of its noise; eq. (1)
    "a": (0.0, {}, 1.0),
    "b": (1.0, {"a": 0.8}, 0.5),
    "c": (0.0, {"a": -0.5, "b": 0.6}, 0.8),
    "d": (2.0, {"b": 0.9, "c": -1.2}, 0.6),
}
Z = np.array([0.5, 0.3, 0.2])  # probabilities of (6)
X = np.array([[0.8, 0.2], [0.5, 0.5], [0.25, 0.75]])  # of x given z
Y = np.array(
    [[[0.7, 0.2, 0.1], [0.3, 0.4, 0.3]], [[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]], [[0.2, 0.5, 0.3], [0.1, 0.2, 0.7]]]
)  # of y given z, x
TURN, ROUND, WIDE = (1.4, 0.3), (1.6, -0.2), (1.2, 0.1)  # weights and offsets of (5)


@dataclasses.dataclass(frozen=True, eq=False)
class System:
    """Equations: each node's `natural` value from the values of its parents and its own noise, in the order of `entries`.

    `edges` are (parent, child). `draw` makes the noise of so many rows; `nats` is -log p of each row, from the values and the noise behind.
    """

    edges: tuple[tuple[str, str], ...]
    entries: Mapping[str, Entry]
    draw: Callable[[np.random.Generator, int], dict[str, np.ndarray]]
    natural: Mapping[str, Callable[[Row, np.ndarray], np.ndarray]]
    nats: Callable[[Row, Row], np.ndarray]

    def values(self, noise: Row, acts: Acts | None = None) -> dict[str, np.ndarray]:
        """Every node in float64, or int32 where it is discrete, under an intervention."""
        found: dict[str, np.ndarray] = {}
        for name, entry in self.entries.items():
            read = {parent: _acted(edge_name(parent, child), found[parent], acts) for parent, child in self.edges if child == name}
            value = _acted(name, np.asarray(self.natural[name](read, noise[name])), acts)
            found[name] = value.astype(np.int32) if entry.vocabulary else value
        return found


def _acted(name: str, value: np.ndarray, acts: Acts | None) -> np.ndarray:
    act = None if acts is None else acts.get(name)
    if act is None or not np.any(act.mask):
        return value  # in float64
    return np.where(np.asarray(act.mask), np.asarray(act.apply(jnp.asarray(value, jnp.float32))), value).astype(value.dtype)


def _normal(names: tuple[str, ...]) -> Callable[[np.random.Generator, int], dict[str, np.ndarray]]:
    def draw(rng: np.random.Generator, num: int) -> dict[str, np.ndarray]:
        drawn = rng.standard_normal((num, len(names)))
        return {name: drawn[:, i] for i, name in enumerate(names)}

    return draw


def _additive(scales: Mapping[str, float]) -> Callable[[Row, Row], np.ndarray]:
    """Nats of rows in which every node adds scale times standard normal noise."""
    return lambda values, noise: -np.sum([stats.norm.logpdf(noise[name]) - np.log(scale) for name, scale in scales.items()], 0)


def _linear() -> System:
    def node(name: str) -> Callable[[Row, np.ndarray], np.ndarray]:
        intercept, slopes, scale = LINEAR[name]
        return lambda v, e: intercept + sum(slope * v[parent] for parent, slope in slopes.items()) + scale * e

    scales = {name: scale for name, (_, _, scale) in LINEAR.items()}
    edges = tuple((parent, name) for name, (_, slopes, _) in LINEAR.items() for parent in slopes)
    return System(
        edges, {name: Entry(()) for name in LINEAR}, _normal(tuple(LINEAR)), {name: node(name) for name in LINEAR}, _additive(scales)
    )


def _triangle() -> System:
    equations = {
        "x1": lambda v, e: e,
        "x2": lambda v, e: 2 * v["x1"] ** 2 + e,
        "x3": lambda v, e: 20 / (1 + np.exp(np.minimum(v["x1"] - v["x2"] ** 2, 700))) + e,
    }
    return _additive_system((("x1", "x2"), ("x1", "x3"), ("x2", "x3")), equations, {})


def _additive_system(edges: tuple[tuple[str, str], ...], equations: Mapping[str, Any], scales: Mapping[str, float]) -> System:
    """Equations that add standard normal noise, times those of `scales` that are not 1."""
    noise = _additive({name: scales.get(name, 1.0) for name in equations})
    return System(edges, {name: Entry(()) for name in equations}, _normal(tuple(equations)), equations, noise)


def _chain() -> System:
    equations = {
        "x1": lambda v, e: e,
        "x2": lambda v, e: np.exp(v["x1"] / 2) + e / 4,
        "x3": lambda v, e: (v["x2"] - 5) ** 3 / 15 + e,
    }
    return _additive_system((("x1", "x2"), ("x2", "x3")), equations, {"x2": 0.25})


def _mediator(interaction: float) -> System:
    equations = {
        "x": lambda v, e: e,
        "m": lambda v, e: 1.5 * v["x"] + e,
        "y": lambda v, e: 0.7 * v["m"] - 0.8 * v["x"] + interaction * v["x"] * v["m"] + e,
    }
    return _additive_system((("x", "m"), ("x", "y"), ("m", "y")), equations, {})


def _ellipse() -> System:
    def draw(rng: np.random.Generator, num: int) -> dict[str, np.ndarray]:
        drawn = {"z": rng.uniform(-0.5, 0.5, num), "t": rng.standard_normal(num), "y": rng.random(num), "x": rng.standard_exponential(num)}
        return drawn

    equations = {
        "z": lambda v, e: e,
        "t": lambda v, e: (TURN[0] * v["z"] + TURN[1] + e) % (2 * np.pi),
        "y": lambda v, e: (np.exp(WIDE[0] * v["z"] + WIDE[1]) + e) * (2 + np.sin(v["t"])),
        "x": lambda v, e: (1 + np.exp(ROUND[0] * v["z"] + ROUND[1]) * e) * v["y"] * (2 + np.cos(v["t"])) / (2 + np.sin(v["t"])),
    }

    def nats(values: Row, noise: Row) -> np.ndarray:
        turns = values["t"][:, None] + 2 * np.pi * np.arange(-3, 4)[None] - TURN[0] * values["z"][:, None] - TURN[1]
        logs = np.log(stats.norm.pdf(turns).sum(1)) - np.log(2 + np.sin(values["t"]))
        slope = np.exp(ROUND[0] * values["z"] + ROUND[1]) * values["y"] * (2 + np.cos(values["t"])) / (2 + np.sin(values["t"]))
        return -(logs - noise["x"] - np.log(slope))

    entries = {"z": Entry((), low=-0.5, high=0.5), "t": Entry((), unit="rad", low=0.0, high=2 * np.pi)}
    edges = (("z", "t"), ("z", "y"), ("t", "y"), ("z", "x"), ("t", "x"), ("y", "x"))
    return System(edges, {**entries, "y": Entry((), low=0.0), "x": Entry((), low=0.0)}, draw, equations, nats)


def _discrete() -> System:
    shapes = {"z": 3, "x": 2, "y": 3}

    def draw(rng: np.random.Generator, num: int) -> dict[str, np.ndarray]:
        return {name: rng.gumbel(size=(num, size)) for name, size in shapes.items()}

    tables = {"z": lambda v: Z[None], "x": lambda v: X[v["z"]], "y": lambda v: Y[v["z"], v["x"]]}

    def node(name: str) -> Callable[[Row, np.ndarray], np.ndarray]:
        return lambda v, g: np.argmax(np.log(tables[name](v)) + g, -1)

    def nats(values: Row, noise: Row) -> np.ndarray:
        rows = np.arange(len(values["z"]))
        found = [np.broadcast_to(tables[name](values), (len(rows), size))[rows, values[name]] for name, size in shapes.items()]
        return -np.log(found).sum(0)

    entries = {name: Entry((), "int32", vocabulary=size) for name, size in shapes.items()}
    return System((("z", "x"), ("z", "y"), ("x", "y")), entries, draw, {name: node(name) for name in shapes}, nats)


@dataclasses.dataclass(frozen=True)
class ScmConfig(Generated):
    """Rows of one of the systems (1-6); `interaction` is the coefficient of x m in (4)."""

    name: str = "scm"
    system: str = choice("linear", "triangle", "chain", "mediator", "ellipse", "discrete")
    interaction: float = 0.0

    def equations(self) -> System:
        """The chosen one."""
        if self.system == "mediator":
            return _mediator(self.interaction)
        return {"linear": _linear, "triangle": _triangle, "chain": _chain, "ellipse": _ellipse, "discrete": _discrete}[self.system]()

    @property
    def entries(self) -> Mapping[str, Entry]:
        """The nodes, causes first."""
        return self.equations().entries

    def hidden(self, split: str) -> dict[str, np.ndarray]:
        """The noise behind all rows of a split."""
        return self.equations().draw(stream(self.seed, 0x5C4, split), self.count(split))

    def draw(self, split: str) -> Columns:
        """All rows of a split."""
        found = self.equations().values(self.hidden(split))
        return {name: value if value.dtype == np.int32 else value.astype(np.float32) for name, value in found.items()}

    def facts(self, rows: Mapping[str, Columns]) -> dict[str, Any]:
        """Statistics of every real node over the training rows."""
        return {name: statistics(values) for name, values in rows["train"].items() if values.dtype != np.int32}

    def make(self) -> Simulated:
        return Simulated(self, {split: self.draw(split) for split in ("train", "test")})


@dataclasses.dataclass(frozen=True, eq=False)
class Simulated(Rows):
    """The source; it knows the counterfactual of every row, and the nats that the equations themselves lose on it."""

    def truth(self, split: str, indices: Int[np.ndarray, "b"], do: Intervention | Acts | None) -> dict[str, np.ndarray]:
        """All nodes of the rows at `indices` under `do`, from the noise that was behind them."""
        noise = {name: value[indices] for name, value in self.config.hidden(split).items()}
        found = self.config.equations().values(noise, canonical(do, tuple(self.entries), len(indices), edges=self.config.equations().edges))
        return {name: value if value.dtype == np.int32 else value.astype(np.float32) for name, value in found.items()}

    def best(self, split: str, indices: Int[np.ndarray, "b"]) -> Float[np.ndarray, "b"]:
        """-log p of the rows under their equations."""
        system, noise = self.config.equations(), {name: value[indices] for name, value in self.config.hidden(split).items()}
        return system.nats(system.values(noise), noise)
