"""Structural causal models whose answers have a closed form: oracles, by another route than any model takes.

Linear-Gaussian, x = c + B x + S e with e ~ N(0, 1) and B strictly triangular in the graph's order:

    x = A (c + S e),  A = (I - B)^-1;    mean A c,  covariance A S S' A'                                       (1)
    do(x_i = v)   row i of B and of S becomes 0, c_i = v;      shift(x_i, d)   c_i grows by d                        (2)
    e | x_O = o   normal:  mean K (o - mean_O),  covariance I - K (A S)_O,   K = (A S)_O' cov_OO^-1             (3)
    counterfactual under do, given x_O = o: (1) with the A, c, S of (2) and the e of (3)                           (4)

Nothing is sampled and nothing goes node by node. A discrete model is answered by enumeration: its noise takes finitely many values, every
joint one is a world with a probability, and any counterfactual is a sum over worlds (Balke & Pearl 1994). Letters: n nodes, k worlds.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from causal_gen.structure.graph import Dag
from causal_gen.types import Float, Int

Row = Mapping[str, float]


@dataclasses.dataclass(frozen=True, eq=False)
class LinearGaussian:
    """Eq. (1): `nodes` [n], `slopes` [n, n] with B[i, j] that of parent j in node i, `constant` [n] and `scale` [n], in float64."""

    nodes: tuple[str, ...]
    slopes: Float[np.ndarray, "n n"]
    constant: Float[np.ndarray, "n"]
    scale: Float[np.ndarray, "n"]

    @classmethod
    def of(cls, equations: Mapping[str, tuple[float, Mapping[str, float], float]]) -> LinearGaussian:
        """From {node: (constant, {parent: slope}, standard deviation of its noise)}. Raises `GraphError` on a cycle."""
        nodes = tuple(equations)
        Dag.from_edges([(parent, child) for child, (_, slopes, _) in equations.items() for parent in slopes], nodes)
        slopes = np.zeros((len(nodes), len(nodes)))
        for child, (_, found, _) in equations.items():
            for parent, slope in found.items():
                slopes[nodes.index(child), nodes.index(parent)] = slope
        return cls(nodes, slopes, np.array([equation[0] for equation in equations.values()]), np.array([e[2] for e in equations.values()]))

    def act(self, do: Row | None = None, shift: Row | None = None) -> LinearGaussian:
        """The model under an intervention, eq. (2)."""
        slopes, constant, scale = self.slopes.copy(), self.constant.copy(), self.scale.copy()
        for name, value in (do or {}).items():
            i = self.nodes.index(name)
            slopes[i], constant[i], scale[i] = 0.0, value, 0.0
        for name, value in (shift or {}).items():
            constant[self.nodes.index(name)] += value
        return dataclasses.replace(self, slopes=slopes, constant=constant, scale=scale)

    @property
    def _total(self) -> np.ndarray:
        return np.linalg.inv(np.eye(len(self.nodes)) - self.slopes)

    def moments(self) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n n"]]:
        """Mean and covariance of the nodes, eq. (1)."""
        spread = self._total * self.scale[None]
        return self._total @ self.constant, spread @ spread.T

    def nats(self, rows: Mapping[str, np.ndarray]) -> Float[np.ndarray, "b"]:
        """-log p of rows {node: [b]}, from (1)."""
        mean, covariance = self.moments()
        gap = np.stack([np.asarray(rows[name], np.float64) for name in self.nodes], -1) - mean[None]
        quadratic = (gap * np.linalg.solve(covariance, gap.T).T).sum(-1)
        return 0.5 * (quadratic + np.linalg.slogdet(covariance)[1] + len(self.nodes) * np.log(2 * np.pi))

    def effect(self, cause: str, outcome: str) -> float:
        """What one unit more of `cause`, by do, adds to the mean of `outcome`."""
        i, j = self.nodes.index(cause), self.nodes.index(outcome)
        return float(self.act({cause: 0.0})._total[j, i])

    def direct(self, cause: str, outcome: str) -> float:
        """The same along the edge alone."""
        return float(self.slopes[self.nodes.index(outcome), self.nodes.index(cause)])

    def counterfactual(
        self, evidence: Row, do: Row | None = None, shift: Row | None = None
    ) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n n"]]:
        """Mean and covariance of the nodes under an intervention, given what was seen of some or all of them, eqs. (3, 4)."""
        seen = [self.nodes.index(name) for name in evidence]
        mean, covariance = self.moments()
        spread = self._total * self.scale[None]
        gain = spread[seen].T @ np.linalg.pinv(covariance[np.ix_(seen, seen)], hermitian=True)
        noise = gain @ (np.array(list(evidence.values())) - mean[seen])
        left = np.eye(len(self.nodes)) - gain @ spread[seen]
        after = self.act(do, shift)
        mapped = after._total * after.scale[None]
        return after._total @ after.constant + mapped @ noise, mapped @ left @ mapped.T


@dataclasses.dataclass(frozen=True, eq=False)
class Enumerated:
    """A discrete model, causes first: `noise` {node: probabilities of its noise values}, `tables` {node: function of (noise, values)}.

    A function takes whole numbers [k], the node's own noise and {node: values before it}, and gives the node's values [k].
    """

    noise: Mapping[str, Sequence[float]]
    tables: Mapping[str, Callable[[np.ndarray, Mapping[str, np.ndarray]], np.ndarray]]

    def worlds(self) -> tuple[Float[np.ndarray, "k"], dict[str, Int[np.ndarray, "k"]]]:
        """Every joint value of the noise and its probability."""
        grid = np.array(list(itertools.product(*(range(len(law)) for law in self.noise.values()))))
        columns = {name: grid[:, i] for i, name in enumerate(self.noise)}
        laws = [np.asarray(law, np.float64)[columns[name]] for name, law in self.noise.items()]
        return np.prod(laws, axis=0), columns

    def values(self, do: Mapping[str, int] | None = None) -> dict[str, Int[np.ndarray, "k"]]:
        """What every node is in every world, under an intervention."""
        _, columns = self.worlds()
        found: dict[str, np.ndarray] = {}
        for name, table in self.tables.items():
            natural = np.asarray(table(columns[name], found))
            found[name] = np.full_like(natural, do[name]) if do and name in do else natural
        return found

    def chance(
        self, event: Callable[..., np.ndarray], *acts: Mapping[str, int] | None, given: Callable[..., np.ndarray] | None = None
    ) -> float:
        """P(event | given), both functions of the values of the worlds under each of `acts`, None being no intervention."""
        weights, values = self.worlds()[0], [self.values(act) for act in acts]
        kept = weights if given is None else weights * given(*values)
        return float((kept * event(*values)).sum() / kept.sum())

    def causation(self, cause: str, outcome: str, low: int = 0, high: int = 1, event: int = 1) -> dict[str, float]:
        """Probability of necessity, of sufficiency, and of both (Pearl 1999), of cause = high against low for outcome = event.

        PN   P(Y_low is not the event | cause = high, the event)      PS   P(Y_high is the event | cause = low, not the event)
        PNS  P(Y_high is the event, Y_low is not)
        """
        acts = (None, {cause: low}, {cause: high})

        def both(now: dict, without: dict, with_: dict) -> np.ndarray:
            return (with_[outcome] == event) & (without[outcome] != event)

        def taken(now: dict, *_: dict) -> np.ndarray:
            return (now[cause] == high) & (now[outcome] == event)

        def missed(now: dict, *_: dict) -> np.ndarray:
            return (now[cause] == low) & (now[outcome] != event)

        return {
            "pns": self.chance(both, *acts),
            "pn": self.chance(lambda now, without, _: without[outcome] != event, *acts, given=taken),
            "ps": self.chance(lambda now, _, with_: with_[outcome] == event, *acts, given=missed),
        }
