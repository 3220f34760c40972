"""Graphs and networks from files, and what is refused with its line."""

import numpy as np
import pytest

from causal_gen.structure.graph_files import parse_bif, parse_dot, read_bif, read_graph
from causal_gen.structure.graph_mixed import Admg
from causal_gen.types import GraphError

BIF = """
network asia { property author none; }
variable a { type discrete [ 2 ] { yes, no }; property position = (1, 2); }
variable "b c" { type discrete [ 3 ] { <5, 5-9, >=10 }; }
variable d { type discrete [ 2 ] { t, f }; }
probability ( a ) { table 0.25, 0.75; }
probability ( "b c" | a ) { (yes) .2, .3, .5; default .1 .1 .8; }
probability ( d | "b c", a ) { // parents in another order than the variables
  (<5, yes) .9 .1; (<5, no) .8 .2; (5-9, yes) .7 .3; (5-9, no) .6 .4; (>=10, yes) .5 .5; (>=10, no) .4 .6;
}
"""


def test_dot_as_graphviz_people_write_it():
    graph, latent = parse_dot(
        """
        /* two lines
           of comment */ strict digraph "my graph" {
          rankdir=LR; node [shape=box, style="rounded,filled"]
          # a remark
          z [label="Age (years)"]; u [observed=no, pos="1,2!"]
          z -> {x y}; x -> m -> y [color=red]   // a chain
          u -> x; u -> y
          a -> b [dir=both]; b -> c [dir=back]
          subgraph cluster_1 { label = "one"; d -> e; }
        }
        """
    )
    assert set(graph.edges) == {("z", "x"), ("z", "y"), ("x", "m"), ("m", "y"), ("u", "x"), ("u", "y"), ("c", "b"), ("d", "e")}
    assert graph.bidirected == (("a", "b"),) and latent == {"u"}


def test_dagitty_models_are_read_with_their_roles():
    graph, latent = parse_dot(
        'dag { bb="0,0,1,1"\n x [exposure,pos="-2.2,1"]\n y [outcome]\n u [latent]\n x -> y\n u -> {x y}\n w <-> y\n y <- v }'
    )
    assert latent == {"u"} and ("v", "y") in graph.edges and graph.bidirected == (("w", "y"),)


def test_files_are_projected_onto_what_is_observed(tmp_path):
    (tmp_path / "g.dot").write_text("digraph { u [latent=true]; u -> x; u -> y; h -> x; h -> z; x -> y }")
    graph = read_graph(tmp_path / "g.dot", latent=["h"])
    assert set(graph.nodes) == {"x", "y", "z"} and set(map(frozenset, graph.bidirected)) == {frozenset("xy"), frozenset("xz")}
    (tmp_path / "n.bif").write_text(BIF)
    assert read_graph(tmp_path / "n.bif", latent=["a"]) == Admg.from_edges([("b c", "d")], [("b c", "d")])


def test_bif_tables_have_the_parents_in_the_order_of_the_graph():
    found = parse_bif(BIF)
    assert found.dag.edges == (("a", "b c"), ("b c", "d"), ("a", "d")) and found.states["b c"] == ("<5", "5-9", ">=10")
    np.testing.assert_allclose(found.tables["b c"], [[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]])
    assert found.dag.parents("d") == ("a", "b c")
    np.testing.assert_allclose(found.tables["d"][..., 0], [[0.9, 0.7, 0.5], [0.8, 0.6, 0.4]])
    assert parse_bif("variable a { type discrete [1] { x }; } probability ( a ) { }").tables == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected digraph, found 'the end of the file'"),
        ("graph {\n a -- b }", "line 1: expected 'digraph' or dagitty's 'dag', found 'graph' .its edges have no direction"),
        ("digraph {\n a -> b\n b -- c }", "line 3: an edge without direction; write ->"),
        ("digraph {\n a -> b;\n b -> }", "line 3: expected a node, found '}'"),
        ("digraph {\n a -> b\n", "line 2: expected a node, found 'the end of the file'"),
        ("digraph {\n a [shape=box\n b -> c }", "line 3: expected an attribute or ], found '->'"),
        ("digraph { a -> b }\n}", "line 2: found '}' after the graph's closing brace"),
        ("digraph {\n a -> b\n %% }", "line 3: cannot read '%%"),
        ("digraph { a -> b -> a }", "cycle"),
        ("digraph {\n a -> b [dir=none] }", "edge a -> b has dir=none"),
    ],
)
def test_malformed_dot_is_refused_with_its_line(text, message):
    with pytest.raises(GraphError, match=message.replace("(", r"\(")) as error:
        parse_dot(text, "f.dot")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("table 0.25, 0.75", "table 0.25, 0.7"), "line 6: a row of a is '0.25 0.7'; give 2 probabilities that sum to 1"),
        (("table 0.25, 0.75", "table 0.25, much"), "line 6: a row of a is '0.25 much'"),
        (("[ 3 ]", "[ 2 ]"), "line 4: variable b c says 2 states and lists 3"),
        (("| a )", "| e )"), "line 7: there is no variable 'e' above; the variables are a, b c, d"),
        (("(yes) .2", "(perhaps) .2"), "line 7: row perhaps of b c: give one state of each of a"),
        (("default .1 .1 .8;", ""), r"b c has no row for \(no\); give one, or a default"),
        (("(yes) .2, .3, .5; default", "table"), "line 7: a table for b c given parents has no agreed order"),
        (("variable d", "variables d"), "line 5: expected network, variable or probability, found 'variables'"),
        (("variable d", "variable a"), "line 5: variable a has two blocks"),
        (("discrete [ 2 ] { t", "continuous [ 2 ] { t"), "line 5: variable d is continuous"),
        (("probability ( a ) { table 0.25, 0.75; }", "probability ( a | d ) { default .5 .5; }"), "cycle"),
    ],
)
def test_malformed_bif_is_refused_with_its_line(change, message):
    assert change[0] in BIF
    with pytest.raises(GraphError, match=message) as error:
        parse_bif(BIF.replace(*change), "f.bif")
    assert "\n" not in str(error.value)


def test_files_that_are_not_there_or_of_another_kind_are_refused(tmp_path):
    with pytest.raises(GraphError, match=r"none.dot: No such file or directory"):
        read_graph(tmp_path / "none.dot")
    with pytest.raises(GraphError, match=r"unknown kind of file '.txt'; give one of .dot, .gv, .bif"):
        read_graph(tmp_path / "g.txt")
    (tmp_path / "b.bif").write_bytes(b"\xff\xfe")
    with pytest.raises(GraphError, match="not UTF-8"):
        read_bif(tmp_path / "b.bif")
