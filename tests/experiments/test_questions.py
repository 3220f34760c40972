"""--do and --shift: what they mean, and what they refuse."""

from __future__ import annotations

import types

import pytest

from causal_gen.types import InterventionError
from experiments import questions

FACTORS = ("angle", "light")


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
