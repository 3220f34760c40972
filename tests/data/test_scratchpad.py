"""Workings are right, and what is scored can be known."""

import numpy as np
import pytest

from causal_gen.data.scratchpad import BLANK, DIGITS, END, ScratchpadConfig
from causal_gen.data.sequences import MARK


@pytest.mark.parametrize("restated", [0, 3])
def test_every_row_adds_up(restated):
    task = ScratchpadConfig(terms=5, base=7, restated=restated, size=50, test_size=200)
    source = task.make()
    rows, lengths = source.gather("test", np.arange(200)), set()
    assert source.stats()["tokens"]["best_loss"] == pytest.approx(200 * np.log(restated + 1) / rows["loss_mask"].sum())
    for tokens, mask, needed, answer in zip(
        rows["tokens"].tolist(), rows["loss_mask"], task.working(rows["tokens"]), task.answers(rows["tokens"]), strict=True
    ):
        assert tokens[5] == MARK and len(tokens) == task.length == 13 + restated
        terms = [token - DIGITS for token in tokens[:5] if token != BLANK]
        sums = [DIGITS + sum(terms[: i + 1]) % 7 for i in range(len(terms))]
        again = tokens[6:].index(END) - len(sums)
        want = [*sums, *[sums[-1]] * again, END, sums[-1]]
        assert tokens[6 : 6 + len(want)] == want and set(tokens[6 + len(want) :]) <= {BLANK}
        np.testing.assert_array_equal(mask, [0.0] * 6 + [1.0] * len(want) + [0.0] * (len(tokens) - 6 - len(want)))
        assert needed == len(want) - 2 and answer == sums[-1]
        lengths.add((len(terms), again))
    assert lengths == {(n, again) for n in (2, 3, 4, 5) for again in range(restated + 1)}
