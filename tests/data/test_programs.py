"""Descriptions and programs: what is said is what is written, the other way round, and each half of what is said tells the other."""

import numpy as np
import pytest

from causal_gen.data.programs import BLANK, END, FIRST, ProgramsConfig
from causal_gen.data.sequences import MARK


def program(said, operations, synonyms, numbers):
    """The program of a description, by loops."""
    written = []
    for at in range(0, len(said), 3):
        first, second, number = said[at : at + 3]
        if first == BLANK:
            break
        assert first != second and (first - FIRST) // synonyms == (second - FIRST) // synonyms
        code = FIRST + operations * synonyms + 2 * numbers
        written = [code + (first - FIRST) // synonyms, code + operations + (number - FIRST - operations * synonyms) // 2, *written]
    return [*written, END]


@pytest.mark.parametrize(("calls", "operations", "synonyms", "numbers"), [(4, 12, 4, 5), (1, 2, 2, 1)])
def test_every_row_is_a_description_and_its_program(calls, operations, synonyms, numbers):
    config = ProgramsConfig(size=400, test_size=50, calls=calls, operations=operations, synonyms=synonyms, numbers=numbers)
    rows = config.make().gather("train", np.arange(400))
    tokens, mask = rows["tokens"], rows["loss_mask"]
    assert tokens.shape == (400, config.length) and tokens.max() == config.tokens - 1 and tokens.min() == 0
    lengths = set()
    for row, counted in zip(tokens, mask, strict=True):
        mark = config.described
        want = program(row[:mark].tolist(), operations, synonyms, numbers)
        assert row[mark] == MARK and row[mark + 1 : mark + 1 + len(want)].tolist() == want and (row[mark + 1 + len(want) :] == BLANK).all()
        np.testing.assert_array_equal(np.flatnonzero(counted), mark + 1 + np.arange(len(want)))
        lengths.add(len(want))
    assert lengths == {2 * n + 1 for n in range(1, calls + 1)}
