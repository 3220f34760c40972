"""How much data alone say about necessity and sufficiency: the bounds of Tian & Pearl, and what Gumbel-max noise makes of them.

X and Y are two-valued events, x and x', y and y'. P(y_x) is P(Y = y | do(X = x)). Given experiments and observations together,

    max(0, P(y_x) - P(y_x'), P(y) - P(y_x'), P(y_x) - P(y))  <=  PNS
        PNS  <=  min(P(y_x), P(y'_x'), P(x,y) + P(x',y'), P(y_x) - P(y_x') + P(x,y') + P(x',y))                   (1)
    max(0, (P(y) - P(y_x')) / P(x,y))  <=  PN  <=  min(1, (P(y'_x') - P(x',y')) / P(x,y))                         (2)
    max(0, (P(y_x) - P(y)) / P(x',y'))  <=  PS  <=  min(1, (P(y_x) - P(x,y)) / P(x',y'))                           (3)

Experiments alone leave max(0, P(y_x) - P(y_x')) <= PNS <= min(P(y_x), P(y'_x')), observations alone 0 <= PNS <= P(x,y) + P(x',y'); PN and
PS are then unbounded, 0 to 1. Without confounding P(y_x) = P(y | x) turns observations into both. All are sharp: some model attains
them. Under Gumbel-max noise, value j of a node with logits l in one world and l' in the other,

    P(j in both worlds) = 1 / sum_k max(exp(l_k - l_j), exp(l'_k - l'_j))                                              (4)

so that P(j in the first, another in the second) = softmax(l)_j - (4): a point within the bounds that rests on this choice of noise.
Sources: (1-3) Tian & Pearl 2000, Ann. Math. Artif. Intell. 28, theorems 1 to 6; (4) from the maximum of independent Gumbels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.types import Array, DataError, Float

Range = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Observed:
    """P(x, y), P(x, y'), P(x', y), P(x', y') of observations: four numbers that sum to 1."""

    xy: float
    xn: float
    ny: float
    nn: float

    @classmethod
    def of(cls, cause: np.ndarray, outcome: np.ndarray, low: float, high: float, event: float) -> Observed:
        """Shares of rows, of columns [b]. Raises `DataError` where the cause takes a third value, of which the formulas do not know."""
        wrong = np.setdiff1d(np.unique(cause), [low, high])
        if len(wrong):
            raise DataError(f"bounds: the cause is {wrong[0]:g} in some rows; they hold for a cause of two values, {low:g} and {high:g}")
        x, y = cause == high, outcome == event
        return cls(*(float(part.mean()) for part in (x & y, x & ~y, ~x & y, ~x & ~y)))

    @property
    def y(self) -> float:
        return self.xy + self.ny

    def unconfounded(self) -> tuple[float, float]:
        """P(y_x) and P(y_x') if nothing confounds X and Y."""
        return self.xy / (self.xy + self.xn), self.ny / (self.ny + self.nn)


def bounds(observed: Observed | None = None, experiment: tuple[float, float] | None = None) -> dict[str, Range]:
    """{"pns", "pn", "ps"} from observations, from P(y_x) and P(y_x') of an experiment, or from both, eqs. (1-3).

    Raises `DataError` where the two contradict each other, as P(x, y) <= P(y_x) <= 1 - P(x, y') must hold.
    """
    if observed is None and experiment is None:
        raise DataError("bounds: neither observations nor an experiment; give one of them")
    if observed is None:
        assert experiment is not None
        with_, without = experiment
        return {"pns": (max(0.0, with_ - without), min(with_, 1 - without)), "pn": (0.0, 1.0), "ps": (0.0, 1.0)}
    o = observed
    if experiment is None:
        return {"pns": (0.0, o.xy + o.nn), "pn": (0.0, 1.0), "ps": (0.0, 1.0)}
    with_, without = experiment
    low = max(0.0, with_ - without, o.y - without, with_ - o.y)
    high = min(with_, 1 - without, o.xy + o.nn, with_ - without + o.xn + o.ny)
    if low > high + 1e-9:
        raise DataError(
            f"bounds: P(y_x) = {with_:.4g} and P(y_x') = {without:.4g} cannot go with these observations "
            f"(P(y_x) lies in {o.xy:.4g}..{1 - o.xn:.4g}, P(y_x') in {o.ny:.4g}..{1 - o.nn:.4g}); are both of one population?"
        )
    return {
        "pns": (low, high),
        "pn": _share(o.y - without, 1 - without - o.nn, o.xy),
        "ps": _share(with_ - o.y, with_ - o.xy, o.nn),
    }


def _share(low: float, high: float, of: float) -> Range:
    return (min(1.0, max(0.0, low / of)), max(0.0, min(1.0, high / of))) if of > 0 else (0.0, 1.0)


def widened(observed: Observed, num: int, experiment: tuple[float, float] | None, draws: int = 1_000, seed: int = 0) -> Mapping[str, Range]:
    """The bounds' outer 5% and 95% quantiles when the `num` observations are drawn anew: what so few rows leave open."""
    rng, found = np.random.default_rng(seed), []
    for shares in rng.multinomial(num, [observed.xy, observed.xn, observed.ny, observed.nn], draws) / num:
        try:
            found.append(bounds(Observed(*map(float, shares)), experiment))
        except DataError:
            continue
    if not found:
        return bounds(observed, experiment)
    ends = {name: np.array([one[name] for one in found]) for name in ("pns", "pn", "ps")}
    return {name: (float(np.quantile(end[:, 0], 0.05)), float(np.quantile(end[:, 1], 0.95))) for name, end in ends.items()}


def in_both(first: Float[Array, "b v"], second: Float[Array, "b v"], value: int) -> Float[Array, "b"]:
    """Eq. (4): that a node is `value` under both logits, with shared Gumbel noise."""
    own, other = first - first[:, value : value + 1], second - second[:, value : value + 1]
    return jnp.exp(-jax.nn.logsumexp(jnp.maximum(own, other), -1))
