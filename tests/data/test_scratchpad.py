"""Workings are right, and what is scored can be known."""

import numpy as np
import pytest

from causal_gen.data.scratchpad import BLANK, DIGITS, END, ScratchpadConfig
from causal_gen.data.sequences import MARK


@pytest.mark.parametrize(("restated", "formats"), [(0, 1), (3, 1), (3, 3)])
def test_every_row_adds_up(restated, formats):
    task = ScratchpadConfig(terms=5, base=7, restated=restated, formats=formats, size=50, test_size=200)
    source = task.make()
    rows, lengths, forms = source.gather("test", np.arange(200)), set(), set()
    assert source.stats()["tokens"]["best_loss"] == pytest.approx(200 * np.log((restated + 1) * formats) / rows["loss_mask"].sum())
    for tokens, mask, needed, answer in zip(
        rows["tokens"].tolist(), rows["loss_mask"], task.working(rows["tokens"]), task.answers(rows["tokens"]), strict=True
    ):
        assert tokens[5] == MARK and len(tokens) == task.length == 13 + restated + (formats > 1)
        terms = [token - DIGITS for token in tokens[:5] if token != BLANK]
        sums = [DIGITS + sum(terms[: i + 1]) % 7 for i in range(len(terms))]
        again = tokens[6:].index(END) - len(sums)
        form = tokens[6 + len(sums) + again + 1] - DIGITS - 7 if formats > 1 else 0
        told = [DIGITS + 7 + form] if formats > 1 else []
        right = sums[-1] + (formats + 7 * form if form else 0)
        want = [*sums, *[sums[-1]] * again, END, *told, right]
        assert tokens[6 : 6 + len(want)] == want and set(tokens[6 + len(want) :]) <= {BLANK}
        np.testing.assert_array_equal(mask, [0.0] * 6 + [1.0] * len(want) + [0.0] * (len(tokens) - 6 - len(want)))
        assert needed == len(sums) + again and answer == right < task.tokens
        lengths.add((len(terms), again))
        forms.add(form)
    assert lengths == {(n, again) for n in (2, 3, 4, 5) for again in range(restated + 1)}
    assert forms == set(range(formats))
    asked, given = task.asked(rows["tokens"]), task.answers(rows["tokens"])
    assert task.formatted(asked).all() and ((asked == given) == task.formatted(given)).all()
