"""A data source that is described and never opened, for programs that only need to know what a batch looks like."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from causal_gen.data import labels
from causal_gen.types import DataError, Entry


@dataclasses.dataclass(frozen=True)
class Described:
    """A `Source` (data/base.py) of `entries` whose statistics are placeholders; asking for its rows is an error."""

    name: str
    entries: Mapping[str, Entry]

    def size(self, split: str) -> NoReturn:
        """Nobody has counted, so it raises `DataError`."""
        raise DataError(f"{self.name}: the {split} split was described, not opened; build the config to read it")

    def gather(self, split: str, indices: np.ndarray) -> NoReturn:
        """There are no rows."""
        del indices
        self.size(split)

    def truth(self, split: str, indices: np.ndarray, do: Any) -> None:
        """Nobody knows."""
        del split, indices, do

    def stats(self) -> dict[str, Any]:
        """Of every number an example (entries of no axes that say no yes or no): the uniform law on its support, on 0 to 1 where that is
        unbounded."""
        return {name: _uniform(entry) for name, entry in self.entries.items() if not entry.shape and entry.dtype != "bool"}


def _uniform(entry: Entry) -> dict[str, Any]:
    low = 0.0 if entry.low is None else entry.low
    high = low + 1.0 if entry.high is None else entry.high
    return labels.statistics(np.linspace(low, high, labels.QUANTILES))
