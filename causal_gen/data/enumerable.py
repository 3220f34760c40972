"""Sequences so short that their law is a table: everything that a model of them can be asked has an exact answer.

    table   p ~ Dirichlet(alpha) over all v^t sequences: no structure, so that only who knows the whole law predicts well       (1)
    chain   p(x) = pi_1(x_1) prod_i pi_i(x_i | x_{i-1}), every row of every pi ~ Dirichlet(alpha)                               (2)
    H       = -sum_x p(x) log p(x)                                             the entropy: no model's nats a row are fewer     (3)
    p(x_i = a | x_K) = sum_{y: y_K = x_K, y_i = a} p(y) / sum_{y: y_K = x_K} p(y)      for any set K of known places            (4)
    TV      = 1/2 sum_x |n_x / n - p(x)|   of n draws, n_x of them x                                                            (5)

(4) is the best denoiser of a masked model, and with K = {1 .. i-1} the best next-token predictor. (5) of n draws from the law itself is
not 0 but about sum_x sqrt(p(x) (1 - p(x)) / (2 pi n)): its floor, which `total_variation` is to be read against.
Letters: b batch, t places, v values of a token, m = v^t sequences.

Definitions of entropy and total variation; the task is this project's own.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp
import numpy as np

from causal_gen.data.generated import stream
from causal_gen.data.sequences import Drawn, Task, scored
from causal_gen.data.tokenizer import check_tokens
from causal_gen.types import Array, Bool, Float, Int, at_least, choice

MOST = 1 << 16  # sequences that a table may hold


@dataclasses.dataclass(frozen=True)
class EnumerableConfig(Task):
    """Eq. (1) or (2) over sequences of `items` tokens of `values` values. Rows are independent draws; the law depends on the seed alone."""

    name: str = "enumerable"
    size: int = at_least(200_000, 1)
    test_size: int = at_least(10_000, 1)
    values: int = at_least(4, 2)
    items: int = at_least(5, 1)
    alpha: float = at_least(1.0, 1e-3)
    law: str = choice("table", "chain")

    def __post_init__(self):
        if self.values**self.items > MOST:
            raise ValueError(f"{self.values}^{self.items} sequences are more than the {MOST:,} of a table; lower values or items")

    @property
    def length(self) -> int:
        return self.items

    @property
    def tokens(self) -> int:
        return self.values

    @functools.cached_property
    def outcomes(self) -> Int[np.ndarray, "m t"]:
        """All sequences, in the order of the numbers that they are in base v."""
        return np.indices((self.values,) * self.items).reshape(self.items, -1).T.astype(np.int32)

    @functools.cached_property
    def probabilities(self) -> Float[np.ndarray, "m"]:
        """Eq. (1) or (2), float64."""
        rng, v = stream(self.seed, 0xE0), self.values
        if self.law == "table":
            return rng.dirichlet(np.full(v**self.items, self.alpha))
        law = rng.dirichlet(np.full(v, self.alpha))
        for _ in range(self.items - 1):
            law = (law.reshape(-1, v)[..., None] * rng.dirichlet(np.full(v, self.alpha), v)).reshape(-1)
        return law

    @functools.cached_property
    def entropy(self) -> float:
        """Eq. (3), nats a sequence."""
        p = self.probabilities[self.probabilities > 0]
        return float(-(p * np.log(p)).sum())

    def number(self, tokens: Any) -> Int[np.ndarray, "..."]:
        """Which of `outcomes` the sequences [..., t] are. Raises `DataError` for a token out of range."""
        return check_tokens(tokens, self.values).astype(np.int64) @ self.values ** np.arange(self.items)[::-1]

    def log_law(self, tokens: Any) -> Float[np.ndarray, "..."]:
        """log p of sequences [..., t]."""
        with np.errstate(divide="ignore"):  # a Dirichlet of small alpha leaves sequences out
            return np.log(self.probabilities)[self.number(tokens)]

    def best(self, tokens: Int[np.ndarray, "b t"]) -> Float[np.ndarray, "b"]:
        """-log p of every row: what the best predictor loses in all, in whatever order it predicts."""
        return -self.log_law(tokens)

    def draw(self, split: str) -> Drawn:
        num = self.count(split)
        steps = self.probabilities.cumsum()
        drawn = np.searchsorted(steps / steps[-1], stream(self.seed, 0xE1, split).random(num), side="right")
        return self.outcomes[drawn], scored(num, self.items, slice(None))

    def posterior(self, tokens: Int[Array, "b t"], known: Bool[Array, "b t"]) -> Float[Array, "b t v"]:
        """Eq. (4) for every place, all at once; a known place is certain. What `tokens` holds where it is not `known` does not matter.

        Traceable. Evidence that the law excludes gives zeros.
        """
        agree = (~known[:, None] | (jnp.asarray(self.outcomes)[None] == tokens[:, None])).all(-1)  # [b, m]
        weight = agree * jnp.asarray(self.probabilities, jnp.float32)[None]
        shown = jnp.asarray(np.eye(self.values, dtype=np.float32)[self.outcomes])
        joint = jnp.einsum("bm,mtv->btv", weight, shown, precision="highest")
        return joint / jnp.maximum(weight.sum(-1), jnp.finfo(jnp.float32).tiny)[:, None, None]

    def total_variation(self, tokens: Any) -> float:
        """Eq. (5) of the draws [n, t]."""
        counts = np.bincount(self.number(tokens).reshape(-1), minlength=len(self.probabilities))
        return float(0.5 * np.abs(counts / counts.sum() - self.probabilities).sum())

    def floor(self, num: int) -> float:
        """Eq. (5) of `num` draws from the law itself: the mean of 16 such draws."""
        counts = stream(self.seed, 0xE2).multinomial(num, self.probabilities, 16)
        return float(0.5 * np.abs(counts / num - self.probabilities).sum(1).mean())
