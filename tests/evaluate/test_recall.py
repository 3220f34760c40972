"""Names found among those told, counted by hand."""

import numpy as np

from causal_gen.evaluate.recall import found

TRUE = np.array([[[1, 2], [3, 4]], [[5, 6], [7, 8]]])


def test_a_name_counts_once_whole_and_in_any_place():
    told = np.array([[[3, 4], [3, 4], [1, 9]], [[7, 8], [5, 6], [0, 0]]])
    assert found(told, TRUE) == 0.5 + 1.0
    assert found(TRUE[:, ::-1], TRUE) == 2.0
    assert found(TRUE[..., ::-1], TRUE) == 0.0
