"""Visibilities as text: every line means what the same line of Python means, and nothing else is read."""

import pytest

from causal_gen.structure import expression
from causal_gen.structure.graph import Dag
from causal_gen.structure.masks import causal, dag, dilated, full, prefix, same_document, window
from causal_gen.structure.variants import per_head, per_layer, soft
from causal_gen.types import ConfigError


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("causal()", causal()),
        ("causal() & same_document() | prefix(4)", causal() & same_document() | prefix(4)),
        ("~full() | (causal() & ~window(size=3))", ~full() | (causal() & ~window(3))),
        ("per_layer(causal(), per_head(dilated(2), full()))", per_layer(causal(), per_head(dilated(2), full()))),
        ("soft(causal(), full(), 0.5)", soft(causal(), full(), 0.5)),
        ("dag([('a', 'b'), ('b', 'c')], ancestors=True)", dag(Dag.from_edges([("a", "b"), ("b", "c")]), True)),
    ],
)
def test_a_line_means_what_it_means_in_python(text, meant):
    assert expression.read(text) == meant and hash(expression.read(text)) == hash(meant)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("causal() & ", "not an expression"),
        ("cuasal()", "unknown 'cuasal'; did you mean causal?"),
        ("open('x')", "unknown 'open'"),
        ("causal.__class__", "causal.__class__ is neither a constant"),
        ("[causal() for _ in ()]", "is neither a constant nor a call"),
        ("tree_fields([-1])", "is not a visibility"),
        ("causal() & 3", ": 3 is not a visibility"),
        ("", "not an expression"),
    ],
)
def test_anything_else_is_refused_in_one_line(text, message):
    with pytest.raises(ConfigError, match="^visibility") as error:
        expression.read(text)
    assert message in str(error.value) and "\n" not in str(error.value)
