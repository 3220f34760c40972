"""Facts have one answer, are told in all wordings but the one that they are asked in, and by phase in halves."""

from __future__ import annotations

import numpy as np
import pytest

from causal_gen.data.facts import FactsConfig

CONFIG = FactsConfig(size=5_000, test_size=50, subjects=7, relations=4, objects=5, wordings=3)


def test_a_row_tells_a_fact_and_no_row_is_a_statement_that_is_asked():
    source = CONFIG.make()
    rows, asked = source.rows["train"]["tokens"], source.statements()
    assert rows.min() == 0 and rows.max() == CONFIG.vocabulary - 1 == 7 + 4 * (3 + 5) and (rows[:, 3] == 0).all()
    answers = {}
    for subject, wording, thing, _ in rows:
        relation = (wording - 8) // 3
        assert (thing - 20) // 5 == relation, "the object is one of its relation"
        assert answers.setdefault((subject, relation), thing) == thing, "a fact has one answer"
    assert len(answers) == 28
    told = {tuple(row[:2]) for row in rows}
    assert len(told) == 7 * 4 * 2, "two of three wordings of every fact"
    assert np.exp(-source.best("test", np.arange(3))) == pytest.approx(1 / 56)
    for relation, items in enumerate(asked.values()):
        assert items.tokens.shape == (7, 5, 4) and len(np.unique(items.tokens[:, :, 2])) == 5
        for candidates, truth in zip(items.tokens, items.truth, strict=True):
            assert tuple(candidates[0][:2]) not in told
            assert candidates[truth][2] == answers[candidates[0][0], relation]


def test_a_phase_tells_half_of_the_same_world():
    first, second = (FactsConfig(size=500, test_size=5, phase=phase) for phase in ("first", "second"))
    np.testing.assert_array_equal(first.answers, second.answers)
    words = [set(np.unique(config.make().rows["train"]["tokens"][:, 1])) for config in (first, second)]
    assert not words[0] & words[1] and len(words[0] | words[1]) == 4 * 3
    for one, other in zip(first.make().statements().values(), second.make().statements().values(), strict=True):
        np.testing.assert_array_equal(one.tokens, other.tokens)
    with pytest.raises(ValueError, match="phase=first tells half of the relations, there is 1; raise relations"):
        FactsConfig(relations=1, phase="first")
