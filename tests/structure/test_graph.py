"""Laws of directed acyclic graphs."""

import itertools

import numpy as np
import pytest

from causal_gen.structure.graph import Dag
from causal_gen.types import GraphError

DIAMOND = Dag.from_edges([("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")])


def test_order_puts_parents_first_in_every_listing_of_the_nodes():
    for nodes in itertools.permutations("abcd"):
        order = Dag(tuple(nodes), DIAMOND.edges).order
        assert all(order.index(parent) < order.index(child) for parent, child in DIAMOND.edges)


def test_descendants_are_the_transitive_closure_of_the_adjacency():
    reach = np.linalg.matrix_power(np.eye(4, dtype=int) + DIAMOND.adjacency().astype(int), 4) > 0
    for name in DIAMOND.nodes:
        expected = {other for other in DIAMOND.nodes if reach[DIAMOND.index(name), DIAMOND.index(other)]} - {name}
        assert DIAMOND.descendants(name) == expected
        assert all(name in DIAMOND.ancestors(other) for other in expected)


def test_do_cuts_the_edges_into_a_node_and_no_other():
    cut = DIAMOND.do("b")
    assert cut.parents("b") == ()
    assert set(DIAMOND.edges) - set(cut.edges) == {("a", "b")}


def test_a_sink_has_every_other_node_as_parent():
    graph = DIAMOND.with_sink("image")
    assert graph.parents("image") == DIAMOND.nodes
    assert graph.order[-1] == "image"


def test_a_cycle_is_spelled_out():
    with pytest.raises(GraphError, match=r"cycle .*(a -> b -> c -> a|b -> c -> a -> b|c -> a -> b -> c)"):
        Dag.from_edges([("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")])


@pytest.mark.parametrize(
    ("nodes", "edges", "message"),
    [
        (("angle", "light"), (("angel", "light"),), "unknown node 'angel'.*did you mean 'angle'"),
        (("a", "a"), (), "listed twice"),
        (("a", "b"), (("a", "b"), ("a", "b")), "edge a -> b is listed twice"),
    ],
)
def test_bad_graphs_are_named_in_one_line(nodes, edges, message):
    with pytest.raises(GraphError, match=message) as error:
        Dag(nodes, edges)
    assert "\n" not in str(error.value)
