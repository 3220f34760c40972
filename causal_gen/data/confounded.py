"""Rows of named variables from a structural model in which treatment and outcome share causes, and whose effect is known.

    x_1 ~ N(0, 1),  x_i = rho x_{i-1} + sqrt(1 - rho^2) e_i                     a chain of covariates, each N(0, 1)          (1)
    treatment = 1 with chance sigmoid(pull (x_1 + x_2))                                                                   (2)
    outcome = treatment (effect + x_1 / 2) + x_1 + (x_2^2 - 1) / 2 + e / 2                                                (3)
    after = outcome + e / 2                                                     what the outcome leads to                 (4)

with e ~ N(0, 1) independent. E[outcome | do(treatment = 1)] - E[outcome | do(treatment = 0)] = effect, since E x_1 = 0; the difference of
the groups' means is larger, because who is treated has larger x_1. Letters: b batch.

The task is this project's own; the effect in closed form follows from (2) by linearity.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import stats
from scipy.special import expit

from causal_gen.data.generated import Columns, Generated, Rows, stream
from causal_gen.data.labels import statistics
from causal_gen.types import Entry, Float, Int, at_least

NOISE = 0.5  # standard deviation of outcome and after, given their parents


@dataclasses.dataclass(frozen=True)
class ConfoundedConfig(Generated):
    """Rows of eqs. (1-4) with so many `covariates`."""

    name: str = "confounded"
    size: int = at_least(1_000, 2)
    test_size: int = at_least(4_000, 2)
    covariates: int = at_least(6, 2)
    rho: float = at_least(0.6, 0.0, 0.99)
    pull: float = at_least(1.0, 0.0)
    effect: float = 1.0

    @property
    def entries(self) -> Mapping[str, Entry]:
        """The covariates x1, x2, .., then treatment, outcome and after."""
        covariates = {name: Entry(()) for name in self.chain}
        return {**covariates, "treatment": Entry((), "int32", vocabulary=2), "outcome": Entry(()), "after": Entry(())}

    @property
    def chain(self) -> tuple[str, ...]:
        """Names of the covariates."""
        return tuple(f"x{i + 1}" for i in range(self.covariates))

    def draw(self, split: str) -> Columns:
        """All rows of a split."""
        num = self.count(split)
        rng = stream(self.seed, 0x5C3, split)
        found: dict[str, np.ndarray] = {}
        for i, name in enumerate(self.chain):
            fresh = rng.standard_normal(num)
            found[name] = self.rho * found[self.chain[i - 1]] + (1 - self.rho**2) ** 0.5 * fresh if i else fresh
        found["treatment"] = (rng.random(num) < expit(self.pull * (found["x1"] + found["x2"]))).astype(np.int32)
        found["outcome"] = self.mean_outcome(found) + NOISE * rng.standard_normal(num)
        found["after"] = found["outcome"] + NOISE * rng.standard_normal(num)
        return {name: value if value.dtype == np.int32 else value.astype(np.float32) for name, value in found.items()}

    def mean_outcome(self, rows: Columns) -> Float[np.ndarray, "b"]:
        """Eq. (3) without its noise."""
        return rows["treatment"] * (self.effect + rows["x1"] / 2) + rows["x1"] + (rows["x2"] ** 2 - 1) / 2

    def best(self, rows: Columns) -> Float[np.ndarray, "b"]:
        """-log p of each row under eqs. (1-4) themselves, in nats: what no model can do better than on average."""
        pull = self.pull * (rows["x1"] + rows["x2"])
        logs = np.log(expit(np.where(rows["treatment"] == 1, pull, -pull)))
        for i, name in enumerate(self.chain):
            mean, scale = (self.rho * rows[self.chain[i - 1]], (1 - self.rho**2) ** 0.5) if i else (0.0, 1.0)
            logs = logs + stats.norm.logpdf(rows[name], mean, scale)
        logs = logs + stats.norm.logpdf(rows["outcome"], self.mean_outcome(rows), NOISE)
        return -(logs + stats.norm.logpdf(rows["after"], rows["outcome"], NOISE))

    def facts(self, rows: Mapping[str, Columns]) -> dict[str, Any]:
        """Statistics of every real variable over the training rows."""
        return {name: statistics(values) for name, values in rows["train"].items() if values.dtype != np.int32}

    def make(self) -> Confounded:
        return Confounded(self, {split: self.draw(split) for split in ("train", "test")})


@dataclasses.dataclass(frozen=True, eq=False)
class Confounded(Rows):
    """The source; of counterfactuals it knows the effects on means."""

    @property
    def effects(self) -> Mapping[tuple[str, str], float]:
        """(cause, result): by how much do(cause = 1) raises the mean of the result over do(cause = 0)."""
        return {("treatment", "outcome"): self.config.effect}

    def best(self, split: str, indices: Int[np.ndarray, "b"]) -> Float[np.ndarray, "b"]:
        """Nats that the best model loses on each row."""
        return self.config.best(self.gather(split, indices))
