"""Templates as typed on a command line, and what `sample` makes of them."""

import types

import numpy as np
import pytest

from causal_gen.data.sudoku import SudokuConfig
from causal_gen.data.tokenizer import ByteTokenizer
from causal_gen.scm.intervention import Span
from causal_gen.types import UserError
from experiments import templates
from experiments.cli import UsageError

ROWS = {"tokens": np.arange(16, dtype=np.int32).reshape(2, 8) % 5, "loss_mask": np.ones((2, 8), np.float32), "digit": np.array([3, 4])}


def flags(**given):
    return types.SimpleNamespace(**{"template": None, "blank": "_", "fill": [], "evidence": None, "prompt": None, "num": 2} | given)


def a_run(tokenizer=None, fills=True, rows=ROWS):
    def gather(split, indices):
        return {name: column[indices] for name, column in rows.items()}

    data = types.SimpleNamespace(gather=gather, size=lambda split: 2, entries={})
    if tokenizer is not None:
        data.tokenizer = tokenizer
    return types.SimpleNamespace(model=types.SimpleNamespace(context=("template",) if fills else ()), data=data)


def read(run=None, length=8, vocabulary=5, **given):
    found = templates.read(flags(**given), run or a_run(), "tokens", Span(length, vocabulary))
    assert found is not None
    return found


def test_blanks_of_a_text_are_tokens_to_draw_and_so_is_what_comes_after_it():
    found = read(a_run(ByteTokenizer()), 12, 256, template="The __ of")["template"]
    np.testing.assert_array_equal(found, [[*b"The ", -1, -1, *b" of", -1, -1, -1]] * 2)
    found = read(a_run(ByteTokenizer()), 6, 256, template="a_?b", blank="?")["template"]
    np.testing.assert_array_equal(found[0], [*b"a_", -1, *b"b", -1, -1])


@pytest.mark.parametrize("typed", ["1,_,4,.", "1_4.", "1 _ 4 _"])
def test_tokens_are_numbers_or_single_signs(typed):
    np.testing.assert_array_equal(read(template=typed)["template"][0], [1, -1, 4, -1, -1, -1, -1, -1])


def test_a_prompt_is_the_beginning_of_a_template():
    np.testing.assert_array_equal(read(prompt="3,1")["template"], [[3, 1, *[-1] * 6]] * 2)


def test_spans_of_the_evidence_are_drawn_anew_and_its_context_is_kept():
    found = read(evidence="test:0:2", fill=["1:3", "6:8"])
    want = np.where(np.isin(np.arange(8), [1, 2, 6, 7]), -1, ROWS["tokens"])
    np.testing.assert_array_equal(found["template"], want)
    np.testing.assert_array_equal(found["digit"], [3, 4])


def test_what_a_task_scores_is_drawn_given_the_rest():
    rows = {**ROWS, "loss_mask": np.tile([1.0, 0.0], (2, 4))}
    want = np.where(np.arange(8) % 2 == 0, -1, ROWS["tokens"][:1])
    np.testing.assert_array_equal(read(a_run(rows=rows), evidence="test:0:1")["template"], want)


def test_nothing_said_is_nothing_known():
    assert templates.read(flags(), a_run(), "tokens", Span(8, 5)) is None
    assert templates.read(flags(prompt="3,1"), a_run(fills=False), "tokens", Span(8, 5)) is None


BAD = [
    (dict(template="1,2,3,4,0,1,2,3"), "no blank"),
    (dict(template="1,2,3,4,0,1,2,3,_"), "9 tokens, but a row has 8"),
    (dict(template="1,x,_"), "no tokenizer; give numbers"),
    (dict(template="1,7,_"), "token 7 at place 1 of row 0 is out of range"),
    (dict(template="1_", blank="__"), "give one sign"),
    (dict(template="1,_", prompt="1"), "give one of them"),
    (dict(template="1,_", fill=["0:1"]), "give one of them"),
    (dict(fill=["1:3", "2:4"]), "--fill=2:4: overlaps another span"),
    (dict(fill=["1:3,2:4"]), "overlaps another span"),
    (dict(fill=["3:3"]), "START < STOP"),
    (dict(fill=["7:9"]), "places 0:8"),
    (dict(fill=["x"]), "expected START:STOP"),
    (dict(evidence="test:0:2"), "name what to draw anew"),
]


@pytest.mark.parametrize(("given", "message"), BAD, ids=[message for _, message in BAD])
def test_what_cannot_be_filled_in_is_refused_in_a_line(given, message):
    with pytest.raises((UsageError, UserError), match=message) as caught:
        read(**given)
    assert "\n" not in str(caught.value)


def test_a_model_that_fills_nothing_in_is_told_so():
    with pytest.raises(UsageError, match="use --prompt"):
        read(a_run(fills=False), template="1,_")


@pytest.mark.parametrize(("typed", "message"), [("1_1" + 13 * "_", "no grid agrees"), ("1" + 15 * "_", "more than one grid agrees")])
def test_puzzles_that_are_impossible_or_ambiguous_are_refused(typed, message):
    source = SudokuConfig(size=1, test_size=1).make()
    run = a_run()
    run.data = source
    with pytest.raises(UserError, match=f"template: row 0: {message}"):
        read(run, 16, 5, template=typed)
