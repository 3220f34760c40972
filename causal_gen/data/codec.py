"""Streams of a residual codec over a smooth signal: every step has one code a codebook, each of what the codes before it leave.

    z ~ N(0, K),  K_st = exp(-(s - t)^2 / (2 reach^2)) + 1e-4 [s = t];   x_t = Phi(z_t), uniform over [0, 1)                    (1)
    c_t1 = floor(v x_t),   c_tq = floor(v (the rest of v x_t .. after code q - 1)): the digits of x_t in base v                    (2)

(2) is a residual quantiser with codebooks of equal steps: code q says where inside of the cell of codes 1 .. q - 1 the signal lies. The
coarse code is smooth over time; a finer one can be told from the others of its step and the steps on both sides. As tokens a stream is
laid flat, step after step.

Source of (2): Zeghidour et al., SoundStream (2021), on one dimension. Letters: n rows, s and t steps, q codebooks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from causal_gen.data.generated import Columns, Generated, stream
from causal_gen.types import Entry, at_least


@dataclasses.dataclass(frozen=True)
class CodecConfig(Generated):
    """`steps` steps of `codebooks` codes, each one of `values`; `reach` [steps] is how far the signal is alike."""

    name: str = "codec"
    steps: int = at_least(24, 2)
    codebooks: int = at_least(4, 1)
    values: int = at_least(4, 2)
    reach: float = dataclasses.field(default=3.0, metadata={"min": 0.1})

    @property
    def entries(self) -> Mapping[str, Entry]:
        shape = (self.steps * self.codebooks,)
        return {"tokens": Entry(shape, "int32", "", 0.0, self.values - 1.0, "codes, step after step", self.values)}

    def draw(self, split: str) -> dict[str, np.ndarray]:
        """All streams of a split."""
        from scipy import stats

        num, apart = self.count(split), np.subtract.outer(np.arange(self.steps), np.arange(self.steps))
        covariance = np.exp(-((apart / self.reach) ** 2) / 2) + 1e-4 * np.eye(self.steps)
        z = stream(self.seed, 0xC0D, split).normal(size=(num, self.steps)) @ np.linalg.cholesky(covariance).T
        cells = self.values**self.codebooks
        # the jitter of (1) makes the variance 1 + 1e-4
        cell = np.minimum(np.floor(stats.norm.cdf(z, scale=np.sqrt(1 + 1e-4)) * cells), cells - 1).astype(np.int64)
        digits = cell[..., None] // self.values ** np.arange(self.codebooks)[::-1] % self.values
        return {"tokens": digits.reshape(num, -1).astype(np.int32)}

    def facts(self, rows: Mapping[str, Columns]) -> dict[str, Any]:
        """The size of the vocabulary."""
        del rows
        return {"tokens": {"vocabulary": self.values}}
