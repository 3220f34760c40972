"""--do and --shift: what they mean, and what they refuse."""

from __future__ import annotations

import types

import jax
import numpy as np
import pytest

from causal_gen.data.tokenizer import ByteTokenizer, fit_bpe
from causal_gen.scm.intervention import Span
from causal_gen.types import DataError, InterventionError
from experiments import questions

FACTORS = ("angle", "light")
SPANS = {"tokens": Span(8, 256)}
BYTES = ByteTokenizer()


def test_ranges_span_a_grid_in_row_major_order():
    question = questions.parse(["angle=-30:30:3", "light=60:90:2"], [], FACTORS)
    assert question.shape == (3, 2)
    cells = [(act.actions["angle"].args[0], act.actions["light"].args[0]) for _, act in question.cells()]
    assert cells == [(-30, 60), (-30, 90), (0, 60), (0, 90), (30, 60), (30, 90)]


def test_fixed_values_join_every_cell_and_labels_name_what_varies():
    question = questions.parse(["angle=0:10:2"], ["light=-5"], FACTORS)
    cells = list(question.cells())
    assert [label for label, _ in cells] == ["angle=0", "angle=10"] and question.shape == (2,)
    assert all(act.actions["light"].kind == "shift" and act.actions["light"].args == (-5.0,) for _, act in cells)


def test_no_flag_is_the_null_intervention():
    question = questions.parse([], [], FACTORS)
    assert [act for _, act in question.cells()] == [None] and question.shape == ()


def test_a_range_of_one_value_keeps_its_axis():
    assert questions.parse(["angle=5:9:1"], [], FACTORS).shape == (1,)


def test_values_outside_of_the_data_are_warned_about_with_unit_and_range():
    entries = {
        "angle": types.SimpleNamespace(low=-36.0, high=38.7, unit="degree"),
        "light": types.SimpleNamespace(low=None, high=90.0, unit=""),
    }
    lines = questions.parse(["angle=-40:40:3", "light=91"], [], FACTORS).warnings(entries)
    assert "angle=-40, 40" in lines[0] and "-36..38.7 degree" in lines[0] and "-inf..90" in lines[1]
    assert not questions.parse(["angle=38.7"], ["light=500"], FACTORS).warnings(entries)


def _flags(**given):
    return types.SimpleNamespace(**{"do": [], "shift": [], "soft": [], "seed": 0, **given})


RUN = types.SimpleNamespace(
    model=types.SimpleNamespace(predict=1, actable=FACTORS, edges=(("angle", "light"),)), data=None, config={"model": {"name": "fake"}}
)


def test_soft_flags_and_edges_make_the_interventions_that_they_name():
    question = questions.asked(_flags(do=["angle -> light=1:2:2"], soft=["clip:angle=-1,1", "normal:light=0,2"], seed=5), RUN)
    (_, first), (label, second) = question.cells()
    assert first.actions["angle->light"].args == (1.0,) and second.actions["angle->light"].args == (2.0,)
    assert first.actions["angle"].kind == "clip" and first.actions["angle"].args == (-1.0, 1.0)
    assert first.actions["light"].kind == "normal" and first.actions["light"].key == jax.random.key(5)
    assert label == "angle->light=2"
    assert question.spell() == {"do(angle->light)": "1:2", "clip(angle)": "-1,1", "normal(light)": "0,2"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"do": ["light->angle=1"]}, "no edge 'light->angle' that could be acted upon; known are angle->light"),
        ({"soft": ["angle=1"]}, "write --soft=KIND:FACTOR=VALUE,VALUE"),
        ({"soft": ["scal:angle=1"]}, "unknown kind 'scal'; did you mean 'scale'?"),
        ({"soft": ["clip:angle=1"]}, "clip takes 2 number"),
        ({"soft": ["scale:angle=much"]}, "scale takes 1 number"),
        ({"soft": ["scale:angel=1"]}, "unknown factor 'angel'; did you mean 'angle'?"),
        ({"soft": ["scale:angle=1"], "do": ["angle=1"]}, "'angle' is acted upon twice"),
    ],
)
def test_mistaken_soft_flags_and_edges_are_named(given, said):
    with pytest.raises(InterventionError, match="^--") as error:
        questions.asked(_flags(**given), RUN)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("dos", "shifts", "said"),
    [
        (["angel=3"], [], "unknown factor 'angel'; did you mean 'angle'?"),
        (["zzz=3"], [], "known are angle, light"),
        (["angle"], [], "write --do=FACTOR=VALUE"),
        (["angle="], [], "write --do=FACTOR=VALUE"),
        (["angle=much"], [], "neither a number nor LOW:HIGH:COUNT"),
        (["angle=nan"], [], "neither a number"),
        (["angle=1:2"], [], "neither a number"),
        (["angle=1:2:0"], [], "neither a number"),
        (["angle=1:2:2.5"], [], "neither a number"),
        (["angle=1", "angle=2"], [], "acted upon twice"),
        (["angle=1"], ["angle=2"], "acted upon twice"),
    ],
)
def test_what_cannot_be_meant_is_refused(dos, shifts, said):
    with pytest.raises(InterventionError) as caught:
        questions.parse(dos, shifts, FACTORS)
    assert said in str(caught.value)


def tokens_of(question):
    return [act.actions["tokens"].args[0] for _, act in question.cells()]


def test_positions_of_a_sequence_are_set_together():
    question = questions.parse(["tokens[5]=17", 'text[1:4]="a\u00e9"'], [], (), SPANS, BYTES)
    assert tokens_of(question) == [{5: 17, 1: 97, 2: 0xC3, 3: 0xA9}] and question.shape == ()
    assert question.spell() == {"do(tokens[5])": "17", "do(text[1:4])": '"a\u00e9"'}
    np.testing.assert_array_equal(np.flatnonzero(question.forced(8)), [1, 2, 3, 5])
    assert not question.warnings({"tokens": types.SimpleNamespace(low=0.0, high=3.0, unit="")})


def test_a_range_of_tokens_is_an_axis():
    question = questions.parse(["tokens[0]=48:50:3", "tokens[2]=1"], [], (), SPANS, BYTES)
    assert tokens_of(question) == [{0: token, 2: 1} for token in (48, 49, 50)] and question.shape == (3,)
    assert [label for label, _ in question.cells()] == ["tokens[0]=48", "tokens[0]=49", "tokens[0]=50"]


@pytest.mark.parametrize("text", ['text[2:6]="= \\"="', 'text[2:6]== "='])
def test_a_span_may_hold_equals_signs_and_quotes_quoted_or_not(text):
    assert bytes(tokens_of(questions.parse([text], [], (), SPANS, BYTES))[0].values()) == b'= "='


def test_a_prompt_is_the_first_tokens_as_text_or_as_numbers():
    asked = questions.parse(["tokens[5]=17"], [], (), SPANS, BYTES)
    assert tokens_of(questions.prompted(asked, "a\n", "tokens", SPANS["tokens"], BYTES)) == [{0: 97, 1: 10, 5: 17}]
    numbers = questions.prompted(questions.Question(()), "3, 1 4", "tokens", SPANS["tokens"], None)
    assert tokens_of(numbers) == [{0: 3, 1: 1, 2: 4}] and numbers.spell() == {"prompt": "3 1 4"}
    with pytest.raises(InterventionError, match=r"position 5 is set twice, also by tokens\[5\]"):
        questions.prompted(asked, "abcdef", "tokens", SPANS["tokens"], BYTES)
    with pytest.raises(InterventionError, match="8 tokens, but a row has 8"):
        questions.prompted(asked, "abcdefgh", "tokens", SPANS["tokens"], BYTES)
    with pytest.raises(InterventionError, match="give numbers"):
        questions.prompted(asked, "abc", "tokens", SPANS["tokens"], None)
    with pytest.raises(DataError, match="300 is outside of the vocabulary"):
        questions.prompted(asked, "300", "tokens", SPANS["tokens"], None)


@pytest.mark.parametrize(
    ("dos", "said"),
    [
        (["tokens[8]=1"], "no position 8 in a row; they are 0..7"),
        (["tokens[-1]=1"], "no position -1"),
        (["text[6:9]=abc"], "no position 8"),
        (["tokens[5]=256"], "256 is no token; they are the whole numbers 0..255"),
        (["tokens[5]=1.5"], "1.5 is no token"),
        (["tokens[5]=1:2:3"], "1.5 is no token"),
        (["tokens[5]=a"], "'a' is neither a number"),
        (["tokens[5]="], "'' is neither a number"),
        (['text[0:4]="191"'], "the span has 4 bytes and the text 3"),
        (['text[0:2]="\u20ac"'], "the span has 2 bytes and the text 3"),
        (["text[3:3]="], "the span has 0 bytes"),
        (["text[3:1]=ab"], "the span has -2 bytes"),
        (['text[0:1]="a"b"'], "cannot read the quoted text"),
        (["text[0:1]=\udcff"], "not UTF-8 text"),
        (["words[0:1]=a"], "unknown span 'words[0:1]'; write --do='tokens[5]=17' or --do='text[10:14]"),
        (["angle=3"], "whose positions are set; write --do='tokens[5]=17'"),
        (["tokens[2]=1", 'text[1:3]="ab"'], "position 2 is set twice, also by tokens[2]"),
    ],
)
def test_what_cannot_be_meant_of_a_sequence_is_refused(dos, said):
    with pytest.raises(InterventionError) as caught:
        questions.parse(dos, [], (), SPANS, BYTES)
    assert said in str(caught.value)


def test_a_span_of_text_needs_bytes_and_a_token_cannot_be_shifted():
    with pytest.raises(InterventionError, match="are of BPE tokens, not of bytes"):
        questions.parse(["text[0:1]=a"], [], (), SPANS, fit_bpe(["a b"], 257))
    with pytest.raises(InterventionError, match="are of numbers, not of text"):
        questions.parse(["text[0:1]=a"], [], (), SPANS, None)
    with pytest.raises(InterventionError, match="tokens are names, not amounts"):
        questions.parse([], ["tokens[0]=1"], (), SPANS, BYTES)
