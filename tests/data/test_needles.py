"""What is asked for was hidden, once, and can be known."""

import numpy as np
import pytest

from causal_gen.data.needles import NeedlesConfig
from causal_gen.data.sequences import MARK


def test_every_answer_is_the_needle_of_its_kind():
    task = NeedlesConfig(kinds=4, values=3, fillers=5, needles=3, queries=2, haystack=10, size=20, test_size=100)
    rows = task.make().gather("test", np.arange(100))
    assert rows["tokens"].shape == (100, task.length) and rows["tokens"].max() < task.tokens
    for tokens, mask in zip(rows["tokens"].tolist(), rows["loss_mask"], strict=True):
        needles = dict(divmod(token - 6, 3) for token in tokens[:10] if token >= 6)
        assert len(needles) == 3 and tokens[10] == MARK and MARK not in tokens[:10]
        for ask, value in zip(tokens[11::2], tokens[12::2], strict=True):
            assert value - task.asking - 4 == needles[ask - task.asking]
        np.testing.assert_array_equal(np.flatnonzero(mask), [12, 14])


@pytest.mark.parametrize("wrong", [{"needles": 9}, {"queries": 7}, {"haystack": 5}])
def test_needles_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ValueError, match="needles"):
        NeedlesConfig(**wrong)
