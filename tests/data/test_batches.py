"""Laws of batch = f(seed, step)."""

from __future__ import annotations

import numpy as np
import pytest

from causal_gen.data import batches


@pytest.mark.parametrize(("size", "batch_size"), [(100, 8), (7, 8), (64, 64), (5, 12)])
def test_every_example_is_seen_once_an_epoch(size, batch_size):
    """Also where batches straddle the end of an epoch, and where a batch is larger than the dataset."""
    epochs = 24
    steps = epochs * size // batch_size
    seen = np.concatenate([batches.indices(3, step, batch_size, size) for step in range(steps)])
    for epoch in range(len(seen) // size):
        np.testing.assert_array_equal(np.sort(seen[epoch * size : (epoch + 1) * size]), np.arange(size))
    orders = {tuple(seen[epoch * size : (epoch + 1) * size]) for epoch in range(len(seen) // size)}
    assert len(orders) > 1  # epochs are not all in the same order


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_rows_of_processes_make_up_the_global_batch(count):
    """Consecutive rows, and every count-th row as on a mesh whose devices alternate between hosts."""
    for step in (0, 5, 12):  # step 12 straddles an epoch
        whole = batches.indices(0, step, 16, 200)
        for rows in (np.arange(16).reshape(count, -1), np.arange(16).reshape(-1, count).T):
            parts = [batches.indices(0, step, 16, 200, mine) for mine in rows]
            np.testing.assert_array_equal(np.concatenate(parts), whole[rows.reshape(-1)])
        assert whole.dtype == np.int64


def test_batches_depend_on_seed_and_step_alone():
    first = batches.indices(0, 7, 32, 1000)
    for other in range(20):  # other seeds and epochs push the entry out of the cache
        batches.indices(other, 7, 32, 1000)
    np.testing.assert_array_equal(batches.indices(0, 7, 32, 1000), first)
    assert not np.array_equal(batches.indices(1, 7, 32, 1000), first)
    assert not np.array_equal(batches.indices(0, 8, 32, 1000), first)


def test_rows_that_a_batch_does_not_have_are_refused():
    with pytest.raises(ValueError, match="has no rows 9 .. 10"):
        batches.indices(0, 0, 10, 100, np.array([9, 10]))
    with pytest.raises(ValueError, match="no examples"):
        batches.indices(0, 0, 10, 0)
