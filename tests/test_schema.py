"""The converter, on small dataclasses of its own: what is accepted, what is refused, and that nothing is refused in silence."""

from __future__ import annotations

import dataclasses
from typing import Literal

import pytest

from causal_gen import schema


@dataclasses.dataclass(frozen=True)
class Inner:
    width: int = dataclasses.field(default=8, metadata={"min": 1, "max": 64})
    kind: Literal["mlp", "linear"] = "mlp"


@dataclasses.dataclass(frozen=True)
class Outer:
    steps: int = dataclasses.field(default=10, metadata={"min": 1})
    warmup: int = dataclasses.field(default=0, metadata={"min": 0})
    rate: float = 1e-3
    flag: bool = False
    root: str | None = None
    limit: float | None = dataclasses.field(default=None, metadata={"min": 0.0})
    mult: tuple[int, ...] = (1, 2)
    edges: tuple[tuple[str, str], ...] = ()
    mode: str = dataclasses.field(default="a", metadata={"choices": ("alpha", "beta", "a")})
    inner: Inner = Inner()
    given: str = dataclasses.field(default="by another", metadata={"handed": True})

    def __post_init__(self):
        if self.warmup > self.steps:
            raise ValueError(f"warmup={self.warmup} is longer than steps={self.steps}")


def run(tree):
    problems: list[str] = []
    return schema.convert(Outer, tree, "train", problems), problems


@pytest.mark.parametrize(
    ("tree", "field", "value"),
    [
        ({"steps": 1e3}, "steps", 1000),
        ({"rate": 1}, "rate", 1.0),
        ({"mult": [1, 2.0, 4]}, "mult", (1, 2, 4)),
        ({"edges": [["a", "b"]]}, "edges", (("a", "b"),)),
        ({"limit": None}, "limit", None),
        ({"limit": 3}, "limit", 3.0),
        ({"inner": {"width": 16}}, "inner", Inner(16)),
    ],
)
def test_what_means_the_same_is_accepted_with_the_declared_type(tree, field, value):
    found, problems = run(tree)
    assert not problems
    assert getattr(found, field) == value and type(getattr(found, field)) is type(value)


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"steps": True}, "train.steps: expected int, got True (bool)"),
        ({"rate": False}, "train.rate: expected float"),
        ({"rate": float("nan")}, "train.rate: expected float"),
        ({"steps": 1.5}, "train.steps: expected int, got 1.5"),
        ({"steps": "10"}, "train.steps: expected int, got '10' (str)"),
        ({"steps": None}, "train.steps: expected int, got None"),
        ({"flag": 1}, "train.flag: expected bool, got 1"),
        ({"steps": 0}, "train.steps: must be at least 1, got 0"),
        ({"limit": -1.0}, "train.limit: must be at least 0.0"),
        ({"inner": {"width": 65}}, "train.inner.width: must lie in [1, 64], got 65"),
        ({"inner": {"kind": "mpl"}}, "train.inner.kind: expected one of 'mlp', 'linear', got 'mpl'; did you mean 'mlp'?"),
        ({"inner": 3}, "train.inner: expected Inner, got 3"),
        ({"mode": "alfa"}, "did you mean 'alpha'?"),
        ({"stepz": 3}, "train.stepz: unknown key; did you mean 'steps'?"),
        ({"inner": {"layers": 3}}, "train.inner.layers: unknown key; known are width, kind"),
        ({"mult": [1, "x"]}, "train.mult[1]: expected int, got 'x'"),
        ({"edges": [["a", "b", "c"]]}, "train.edges[0]: expected 2 entries, got 3"),
        ({"warmup": 20}, "train: warmup=20 is longer than steps=10"),
    ],
)
def test_what_is_wrong_is_refused_with_its_path(tree, said):
    found, problems = run(tree)
    assert found is schema.BAD
    assert len(problems) == 1 and said in problems[0]


def test_every_problem_is_reported_at_once():
    """A typo does not hide a contradiction, nor one section another."""
    _, problems = run({"stepz": 1, "warmup": 20, "inner": {"width": 0}})
    assert [p.partition(":")[0] for p in problems] == ["train.stepz", "train.inner.width"]
    _, problems = run({"stepz": 1, "warmup": 20, "rat": 1})
    assert [p.partition(":")[0] for p in problems] == ["train.stepz", "train.rat", "train"]


@pytest.mark.parametrize(
    ("keys", "text", "value"),
    [
        ("steps", "1e3", 1000.0),
        ("steps", "20", 20),
        ("rate", "3", 3.0),
        ("flag", "yes", True),
        ("flag", "False", False),
        ("root", "none", None),
        ("root", "10", "10"),
        ("limit", "None", None),
        ("limit", "2.5", 2.5),
        ("mult", "1,2,2", [1, 2, 2]),
        ("mult", "(1, 2)", [1, 2]),
        ("mult", "[3]", [3]),
        ("edges", '[["a", "b"], ["b", "c"]]', [["a", "b"], ["b", "c"]]),
        ("edges", "(('a', 'b'),)", [["a", "b"]]),
        ("inner.kind", "linear", "linear"),
        ("steps", "many", "many"),
        ("flag", "1.5", "1.5"),
    ],
)
def test_text_means_what_the_field_says(keys, text, value):
    hint = schema.hint_at(Outer, tuple(keys.split(".")))
    found = schema.to_tree(schema.parse(text, hint))
    assert found == value and type(found) is type(value)


def test_what_is_wrong_in_a_list_of_sections_is_named_where_it_is():
    hint, problems = tuple[Inner, ...] | None, []
    schema._value(hint, schema.parse('[{"width": 3}, {"width": 99}]', hint), "layers", problems)
    assert problems == ["layers[1].width: must lie in [1, 64], got 99"]
    assert schema.spell(hint) == "tuple[Inner, ...] | None"


def test_a_tree_comes_back_from_its_dataclass():
    tree = schema.to_tree(Outer(mult=(3,), edges=(("a", "b"),), inner=Inner(5)))
    assert tree["inner"] == {"width": 5, "kind": "mlp"} and tree["edges"] == [["a", "b"]]
    found, problems = run(tree)
    assert not problems and schema.to_tree(found) == tree


def test_a_path_that_leads_nowhere_has_no_type():
    assert schema.hint_at(Outer, ("inner", "depth")) is None
    assert schema.hint_at(Outer, ("steps", "x")) is None


def test_what_another_section_hands_on_is_no_key_but_may_stand_unset_in_old_workdirs():
    assert "given" not in schema.to_tree(Outer())
    assert run({"given": False}) == (Outer(), [])
    found, problems = run({"given": "here"})
    assert found is schema.BAD and problems[0].startswith("train.given: unknown key")
