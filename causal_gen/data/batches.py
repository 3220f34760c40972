"""batch = f(seed, step): which examples a step sees, with nothing to store and nothing to resume.

Positions 0, 1, 2, ... of the run are cut into epochs of `size`; position p of epoch e is example pi_e(p mod size), where pi_e
is a permutation drawn from the key (seed, e). Step s takes positions s b .. s b + b - 1, so a batch that crosses an epoch's
end takes the rest from the next epoch's permutation and every example is seen exactly once an epoch. Several
processes take consecutive slices of the same global batch: their number changes nothing about the run.
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


def indices(seed: int, step: int, batch_size: int, size: int, process_index: int = 0, process_count: int = 1) -> Int[np.ndarray, "slice"]:
    """Example numbers of one process's slice, [batch_size / process_count], of the batch of `step` (from 0).

    Raises `ValueError` for a batch that does not divide over the processes, or a dataset without examples.
    """
    if batch_size % process_count or not 0 <= process_index < process_count:
        raise ValueError(f"a batch of {batch_size} has no equal slice {process_index} of {process_count}")
    if size < 1:
        raise ValueError("the dataset holds no examples")
    share = batch_size // process_count
    first = step * batch_size + process_index * share
    epochs, places = np.divmod(np.arange(first, first + share, dtype=np.int64), size)
    taken = np.empty(share, np.int64)
    for epoch in range(int(epochs[0]), int(epochs[-1]) + 1) if share else ():
        here = epochs == epoch
        taken[here] = permutation(seed, epoch, size)[places[here]]
    return taken


def batch(
    source: Source, split: str, seed: int, step: int, batch_size: int, process_index: int = 0, process_count: int = 1
) -> dict[str, np.ndarray]:
    """This process's slice of the batch of `step`: every entry of the source, batch axis first."""
    return source.gather(split, indices(seed, step, batch_size, source.size(split), process_index, process_count))
