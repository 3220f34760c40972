"""How much each setting of a study matters, from its finished trials alone: PED-ANOVA.

Over the trials, the variance that setting d alone explains in "is this trial among the best share gamma" is

    v_d = gamma^2 sum_x p(x) (p_best(x) / p(x) - 1)^2                                              (1)

with p the density of the setting's values over all trials and p_best that over the best share: a setting whose good values are spread like
all values explains nothing. Densities are Gaussian kernels on a grid over the setting's range (logarithmic where the space is), mixed with
one trial's weight of the even law, so that a few trials do not look certain. Figures are shares of their sum.

Source: Watanabe, Bansal & Hutter, PED-ANOVA, IJCAI 2023. It sees each setting by itself: what two settings do only together is not in it.
Letters: n trials, g places of the grid.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from causal_gen.types import Float

GRID, BEST, FEWEST = 50, 0.25, 8  # places of a range, the share gamma, and the trials below which nothing is said


@dataclasses.dataclass(frozen=True)
class Scale:
    """The range of one setting: places in 0..1 for its values. `choices` for those that have no order, else `low` to `high`."""

    low: float = 0.0
    high: float = 1.0
    log: bool = False
    choices: tuple[str, ...] = ()

    def place(self, value: Any) -> float:
        """Where a value stands, 0 to 1; choices stand at even distances. Raises ValueError for a value that is no choice."""
        if self.choices:
            return self.choices.index(json.dumps(value)) / max(len(self.choices) - 1, 1)
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        found = math.log(value) if self.log else float(value)
        return min(max((found - low) / (high - low), 0.0), 1.0) if high > low else 0.5


def scales(space: Any, params: Sequence[Mapping[str, Any]]) -> dict[str, Scale]:
    """A scale for every key of a study's space: of its distributions, or of the values in a list of settings (`params` of the trials)."""
    if isinstance(space, Mapping):
        return {key: _of_distribution(given) for key, given in space.items()}
    keys = dict.fromkeys(key for one in params for key in one)
    return {key: _of_values([one[key] for one in params if key in one]) for key in keys}


def _of_distribution(given: Mapping[str, Any]) -> Scale:
    if given["kind"] == "categorical":
        return _of_values(given["choices"], ordered=False)
    return Scale(float(given["low"]), float(given["high"]), given["kind"] == "log_uniform")


def _of_values(values: Sequence[Any], ordered: bool = True) -> Scale:
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if ordered and len(numbers) == len(values) and len(set(numbers)) > 1:
        return Scale(float(min(numbers)), float(max(numbers)))
    return Scale(choices=tuple(dict.fromkeys(json.dumps(value) for value in values)))


def importance(known: Mapping[str, Scale], params: Sequence[Mapping[str, Any]], values: Sequence[float], goal: str) -> dict[str, float]:
    """Shares of eq. (1), the largest first; empty where trials are too few or all alike. `values` [n] are the metric, `goal` min or max."""
    order = np.argsort(np.asarray(values) * (1 if goal == "min" else -1), kind="stable")
    if len(order) < FEWEST or len(set(values)) < 2:
        return {}
    best = order[: max(math.ceil(BEST * len(order)), 2)]
    found = {}
    for key, scale in known.items():
        places = [scale.place(one[key]) if key in one else 0.5 for one in params]
        whole, top = _density(places, scale), _density([places[i] for i in best], scale)
        found[key] = float((whole * (top / whole - 1) ** 2).sum())
    total = sum(found.values())
    return dict(sorted(((key, value / total) for key, value in found.items()), key=lambda pair: -pair[1])) if total > 0 else {}


def _density(places: Sequence[float], scale: Scale) -> Float[np.ndarray, "g"]:
    """A law over the choices, or over a grid of the range, of `places` and one place more that may be anywhere."""
    at = np.asarray(places)
    if scale.choices:
        count = max(len(scale.choices), 1)
        heights = np.bincount(np.rint(at * max(count - 1, 1)).astype(int), minlength=count)[:count] + 1.0 / count
        return heights / heights.sum()
    grid = (np.arange(GRID) + 0.5) / GRID
    width = max(1.06 * float(at.std()) * len(at) ** -0.2, 1.0 / GRID)
    kernels = np.exp(-0.5 * ((grid[:, None] - at) / width) ** 2)
    heights = (kernels / kernels.sum(0)).sum(1) + 1.0 / GRID
    return heights / heights.sum()
