"""Answers list what their sentences mention, and nothing but answers is scored."""

import numpy as np
import pytest

from causal_gen.data.demonstrations import END, TYPES, DemonstrationsConfig
from causal_gen.data.sequences import MARK


@pytest.mark.parametrize("shots", [0, 2])
def test_every_answer_is_the_list_of_its_sentences_mentions(shots):
    task = DemonstrationsConfig(shots=shots, items=3, span=4, size=50, test_size=100)
    rows = task.make().gather("test", np.arange(100))
    block, first, counts = task.length // (shots + 1), TYPES + task.cues, set()
    for tokens, mask in zip(rows["tokens"].reshape(-1, block), rows["loss_mask"].reshape(-1, block), strict=True):
        sentence, answer = tokens[:12], tokens[13:]
        assert tokens[12] == MARK
        pairs = []
        for stretch in sentence.reshape(3, 4) - first:
            cue, name = stretch[stretch < task.cues], stretch[(stretch >= task.cues) & (stretch < task.cues + task.entities)]
            assert len(cue) == len(name) <= 1
            pairs += [TYPES + int(c) for c in cue] + [first + int(n) for n in name]
            assert not len(cue) or (stretch == name[0]).argmax() < (stretch == cue[0]).argmax()
        assert answer.tolist() == pairs + [END] * (7 - len(pairs))
        np.testing.assert_array_equal(mask, [0.0] * 13 + [1.0] * (len(pairs) + 1) + [0.0] * (6 - len(pairs)))
        counts.add(len(pairs) // 2)
    assert counts == {0, 1, 2, 3}
    np.testing.assert_array_equal(task.prompt(rows["tokens"])[:, -1], MARK)
    np.testing.assert_array_equal(task.sentence(rows["tokens"]), rows["tokens"][:, -20:-8])


def test_a_language_model_is_taught_sentences_alone():
    task = DemonstrationsConfig(scored="sentences", size=4, test_size=4)
    mask = task.make().gather("train", np.arange(4))["loss_mask"].reshape(12, -1)
    assert (mask[:, :13] == 1).all() and (mask[:, 13:] == 0).all()


def test_what_cannot_be_read_is_no_answer():
    task, sentence = DemonstrationsConfig(), np.array([10, 11, 12])
    assert task.parsed(np.array([2, 10, 2, 10, 1, 1, 1]), sentence) == {(2, 10): 2}
    assert task.parsed(np.array([1, 5, 5, 5, 5, 5, 5]), sentence) == {}
    for bad in ([2, 1, 1, 1, 1, 1, 1], [2, 13, 1, 1, 1, 1, 1], [7, 10, 1, 1, 1, 1, 1], [2, 10, 2, 10, 2, 10, 2]):
        assert task.parsed(np.array(bad), sentence) is None
