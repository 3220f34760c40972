"""batch = f(seed, step): which examples a step sees, with nothing to store and nothing to resume.

Positions 0, 1, 2, ... of the run are cut into epochs of `size`; position p of epoch e is example pi_e(p mod size), where pi_e
is a permutation drawn from the key (seed, e). Step s takes positions s b .. s b + b - 1, so a batch that crosses an epoch's
end takes the rest from the next epoch's permutation and every example is seen exactly once an epoch. Several
processes each gather the rows of the same global batch that lie on their devices: their number changes nothing about the run.
"""

from __future__ import annotations

import functools

import numpy as np

from causal_gen.data.base import Source
from causal_gen.types import Int


@functools.lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, size: int) -> Int[np.ndarray, "size"]:
    """The order of `epoch`: a permutation of 0 .. size - 1 that depends on the arguments alone. Read-only, since it is cached."""
    order = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, epoch)))).permutation(size)
    order.flags.writeable = False
    return order


def indices(seed: int, step: int, batch_size: int, size: int, rows: Int[np.ndarray, "slice"] | None = None) -> Int[np.ndarray, "slice"]:
    """Example numbers of the batch of `step` (from 0), those of its `rows` alone where they are given.

    Raises `ValueError` for rows that the batch does not have, or a dataset without examples.
    """
    rows = np.arange(batch_size, dtype=np.int64) if rows is None else np.asarray(rows, np.int64)
    if len(rows) and not (0 <= rows.min() and rows.max() < batch_size):
        raise ValueError(f"a batch of {batch_size} has no rows {rows.min()} .. {rows.max()}")
    if size < 1:
        raise ValueError("the dataset holds no examples")
    epochs, places = np.divmod(step * batch_size + rows, size)
    taken = np.empty(len(rows), np.int64)
    for epoch in np.unique(epochs).tolist():
        here = epochs == epoch
        taken[here] = permutation(seed, epoch, size)[places[here]]
    return taken


def batch(
    source: Source, split: str, seed: int, step: int, batch_size: int, rows: Int[np.ndarray, "slice"] | None = None
) -> dict[str, np.ndarray]:
    """The batch of `step`, or those of its rows: every entry of the source, batch axis first."""
    return source.gather(split, indices(seed, step, batch_size, source.size(split), rows))
