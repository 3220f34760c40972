"""An identified effect estimated from rows of discrete variables: its formula on their frequencies, with bootstrap intervals.

    estimate    formula(p_hat),  p_hat = counts / rows                                                              (1)
    interval    quantiles (1 -+ level) / 2 of formula(p*) over resampled rows, rows p* ~ Multinomial(rows, p_hat)           (2)

(2) is the percentile bootstrap (Efron 1979) on the cells of the table, which is the same as on the rows. It includes the error of every
probability in the formula, and nothing else: not that of the graph. A cell whose condition was never seen is undefined (nan), in (2) where
half of the resamples leave it so. Letters: k resamples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from causal_gen.scm import formula as fm
from causal_gen.scm.formula import Formula, Prob, Product, Sum, Table
from causal_gen.scm.identify import Identified
from causal_gen.types import DataError, Float, Int

LARGEST = 2_000_000  # cells of the table of counts


@dataclasses.dataclass(frozen=True, eq=False)
class Estimate:
    """Of an effect, axes y, x, given; `low` and `high` bound the interval. `rows` is the number that it rests on."""

    value: Float[np.ndarray, "..."]
    low: Float[np.ndarray, "..."]
    high: Float[np.ndarray, "..."]
    rows: int


def variables(formula: Formula) -> frozenset[str]:
    """All that a formula speaks of, summed out or not."""
    if isinstance(formula, Prob):
        return frozenset((*formula.of, *formula.given))
    if isinstance(formula, Product):
        return frozenset().union(*map(variables, formula.factors))
    if isinstance(formula, Sum):
        return variables(formula.body)
    return variables(formula.top) | variables(formula.bottom)


def count(columns: Mapping[str, Int[np.ndarray, "n"]], sizes: Mapping[str, int]) -> tuple[tuple[str, ...], Float[np.ndarray, "..."]]:
    """How many rows have each joint state: the names of the axes and the counts. `columns` are codes 0 .. sizes[name] - 1.

    Raises `DataError` where the table would be too large to hold, or there are no rows.
    """
    names, shape = tuple(columns), [sizes[name] for name in columns]
    if np.prod(np.array(shape, float)) > LARGEST:
        largest = max(names, key=lambda name: sizes[name])
        cells = np.prod(np.array(shape, float))
        raise DataError(f"table: {cells:,.0f} joint states of {', '.join(names)}; {largest!r} has {sizes[largest]}: put it into fewer bins")
    counts = np.zeros(shape)
    np.add.at(counts, tuple(np.asarray(columns[name]) for name in names), 1.0)
    if not counts.sum():
        raise DataError("table: there are no rows; give at least one")
    return names, counts


def estimate(
    identified: Identified, names: tuple[str, ...], counts: Float[np.ndarray, "..."], draws: int = 200, seed: int = 0, level: float = 0.9
) -> Estimate:
    """Eqs. (1, 2) from a table of counts with axes `names`; without `draws` the bounds are nan."""
    rows, rng = int(counts.sum()), np.random.default_rng(seed)
    value = identified.evaluate(Table(names, counts / rows))
    if not draws:
        return Estimate(value, np.full_like(value, np.nan), np.full_like(value, np.nan), rows)
    shares = counts.ravel() / rows
    again = np.stack([identified.evaluate(Table(names, rng.multinomial(rows, shares).reshape(counts.shape) / rows)) for _ in range(draws)])
    seen = np.isfinite(again).mean(0) > 0.5
    with np.errstate(invalid="ignore"):
        low, high = (np.nanquantile(np.where(seen, again, 0.0), q, axis=0) for q in ((1 - level) / 2, (1 + level) / 2))
    known = seen & np.isfinite(value)
    return Estimate(value, np.where(known, low, np.nan), np.where(known, high, np.nan), rows)


def conditioned(identified: Identified, names: tuple[str, ...], counts: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """p(y | x, given) of the rows themselves, which is what merely looking would say; axes as in the estimate."""
    effect = identified.effect
    wanted = (*effect.y, *effect.x, *effect.given)
    found = fm.evaluate(Prob(effect.y, (*effect.x, *effect.given)), Table(names, counts / counts.sum()))
    return found.over(wanted)
