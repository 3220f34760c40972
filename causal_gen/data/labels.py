"""Labels of a training set: which rows keep theirs, and the statistics of those that do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from causal_gen.types import Bool, Entry, Float

QUANTILES = 65  # levels 0, 1/64, ..., 1: enough for a piecewise linear marginal
LABELLED = Entry((), "bool", "", None, None, "whether the row's labels are known")


def label_mask(seed: int, size: int, fraction: float) -> Bool[np.ndarray, "size"]:
    """True for the round(fraction * size) rows, at least one, that keep their labels; larger fractions include smaller ones."""
    order = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, 0x1ABE1)))).permutation(size)
    mask = np.zeros(size, bool)
    mask[order[: max(1, round(fraction * size))]] = True
    return mask


def mask_entry(fraction: float) -> dict[str, Entry]:
    """The entry that `withhold` adds to rows of a set of which so large a share keeps its labels: none where all do."""
    return {"label_mask": LABELLED} if fraction < 1 else {}


def withhold(batch: Mapping[str, np.ndarray], names: Iterable[str], mask: Bool[np.ndarray, "b"]) -> dict[str, np.ndarray]:
    """`batch` with the entries `names` zeroed where `mask` is False, so that nothing can peek, and `label_mask` saying where."""
    hidden = {name: np.where(mask, batch[name], batch[name].dtype.type(0)) for name in names}
    return {**batch, **hidden, "label_mask": mask}


def statistics(values: Float[np.ndarray, "b"]) -> dict[str, Any]:
    """{mean, std, low, high, quantiles: 65 numbers from minimum to maximum} as plain floats, in the unit of the values."""
    values = values.astype(np.float64)
    quantiles = np.quantile(values, np.linspace(0.0, 1.0, QUANTILES))
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "low": float(values.min()),
        "high": float(values.max()),
        "quantiles": [float(value) for value in quantiles],
    }
