"""Data that is made, not read: what all generated sets of rows in memory share.

A set is a config with `entries` and `draw`; everything else is here. Splits are drawn from streams of their own.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from causal_gen.scm.intervention import Acts, Intervention
from causal_gen.types import Entry, Int, at_least

Columns = Mapping[str, np.ndarray]  # entry: rows


def stream(seed: int, tag: int, split: str = "train") -> np.random.Generator:
    """Random numbers of one part of one split; a longer draw of rows begins with the shorter one."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, tag, ("train", "test").index(split)))))


def choose(rng: np.random.Generator, num: int, of: int, count: int) -> Int[np.ndarray, "{num} {count}"]:
    """`count` distinct numbers below `of`, in random order, for each of `num` rows."""
    return rng.random((num, of)).argsort(1)[:, :count].astype(np.int32)


@dataclasses.dataclass(frozen=True)
class Generated(abc.ABC):
    """`size` training and `test_size` test rows. `root` is taken as by every source; nothing is read there."""

    name: str = ""
    root: str | None = None
    size: int = at_least(20_000, 1)
    test_size: int = at_least(1_000, 1)
    seed: int = at_least(0, 0)

    @property
    @abc.abstractmethod
    def entries(self) -> Mapping[str, Entry]: ...

    @abc.abstractmethod
    def draw(self, split: str) -> Any:
        """All rows of a split, by entry."""

    def facts(self, rows: Mapping[str, Columns]) -> dict[str, Any]:
        """What `stats` of the source says of {split: rows}."""
        del rows
        return {}

    def count(self, split: str) -> int:
        """Rows of a split."""
        return self.size if split == "train" else self.test_size

    def make(self) -> Rows:
        """The source, its rows in memory."""
        return Rows(self, {split: self.draw(split) for split in ("train", "test")})


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """The source of a generated set."""

    config: Any
    rows: Mapping[str, Columns]

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def entries(self) -> Mapping[str, Entry]:
        return self.config.entries

    def size(self, split: str) -> int:
        return len(next(iter(self.rows[split].values())))

    def gather(self, split: str, indices: Int[np.ndarray, "b"]) -> dict[str, np.ndarray]:
        """The rows at `indices`."""
        return {name: column[indices] for name, column in self.rows[split].items()}

    def stats(self) -> dict[str, Any]:
        return self.config.facts(self.rows)

    def truth(self, split: str, indices: Int[np.ndarray, "b"], do: Intervention | Acts | None) -> None:
        """Unknown: the sets have laws, not mechanisms with a noise of their own."""
        del split, indices, do
