"""Mixed graphs: projection, districts, boundaries and surgery, against definitions and linear-Gaussian models."""

import itertools

import numpy as np
import pytest

from causal_gen.structure.graph import Dag
from causal_gen.structure.graph_mixed import Admg
from causal_gen.types import GraphError
from tests.structure.graphs_at_hand import linear_covariance, partial_correlation, random_admg, separated_by_paths, subsets

FRONT_DOOR = Admg.parse("x -> m -> y, x <-> y")


def test_text_reads_chains_arrows_both_ways_and_lonely_nodes():
    graph = Admg.parse("z -> x -> y; y <- w, x <-> y\nalone")
    assert set(graph.edges) == {("z", "x"), ("x", "y"), ("w", "y")} and graph.bidirected == (("x", "y"),)
    assert "alone" in graph.nodes and Admg.parse(str(graph)) == Admg.parse(str(Admg.parse(str(graph))))


def test_a_latent_common_cause_becomes_a_bidirected_edge_and_a_latent_mediator_an_edge():
    assert str(Admg.parse("u -> x, u -> y, x -> m -> y", latent=["u"])) == "x -> m, m -> y, x <-> y"
    assert Admg.parse("x -> l -> y", latent=["l"]).edges == (("x", "y"),)
    # a chain of latents above two nodes, and a latent child of a confounded node
    assert set(map(frozenset, Admg.parse("u -> v, v -> a, v -> b, u -> c", latent=["u", "v"]).bidirected)) == set(
        map(frozenset, itertools.combinations("abc", 2))
    )
    assert Admg.parse("a <-> l, l -> b", latent=["l"]).bidirected == (("a", "b"),)


@pytest.mark.parametrize("seed", range(4))
def test_projection_keeps_the_partial_correlations_that_vanish(seed):
    """In a linear-Gaussian model over a graph with latents: m-separated in the projection if and only if uncorrelated given the set."""
    rng = np.random.default_rng(seed)
    full = random_admg(rng, 7, 0.4, 0.0).dag
    latent = [str(name) for name in rng.choice(full.nodes, 2, replace=False)]
    graph, covariance = Admg(full).project(latent), linear_covariance(full, rng)
    for x, y in itertools.combinations(graph.nodes, 2):
        for given in subsets(set(graph.nodes) - {x, y}):
            correlation = partial_correlation(covariance, full.index(x), full.index(y), [full.index(name) for name in sorted(given)])
            assert separated_by_paths(graph, x, y, given) == (abs(correlation) < 1e-9), (x, y, given, correlation, str(graph))


def test_projection_does_not_depend_on_the_order_of_the_latents():
    rng = np.random.default_rng(5)
    for _ in range(20):
        full = random_admg(rng, 7, 0.4, 0.1)
        one, other = (str(name) for name in rng.choice(full.nodes, 2, replace=False))
        both = [full.project([one]).project([other]), full.project([other]).project([one]), full.project([one, other])]
        assert len({(frozenset(g.edges), frozenset(map(frozenset, g.bidirected))) for g in both}) == 1


def test_districts_are_the_classes_of_bidirected_paths():
    graph = Admg.parse("a -> b, b <-> c, c <-> d, e")
    assert set(graph.districts) == {frozenset("a"), frozenset("bcd"), frozenset("e")} and graph.district("d") == frozenset("bcd")


@pytest.mark.parametrize("seed", range(3))
def test_the_markov_boundary_screens_off_all_others_and_no_part_of_it_does(seed):
    rng = np.random.default_rng(seed)
    graph = random_admg(rng, 6, 0.35, 0.2)
    for name in graph.nodes:
        boundary = graph.markov_boundary(name)

        def screens(some, name=name):
            return all(separated_by_paths(graph, name, other, some) for other in set(graph.nodes) - some - {name})

        assert screens(boundary) and not any(screens(some) for some in subsets(boundary) if some != boundary)


def test_surgery_cuts_what_points_in_and_the_back_door_graph_what_points_out():
    assert FRONT_DOOR.do("x") == Admg.parse("x -> m -> y")
    assert FRONT_DOOR.do("y").edges == (("x", "m"),) and FRONT_DOOR.do("y").bidirected == ()
    assert FRONT_DOOR.without_effects("x").edges == (("m", "y"),) and FRONT_DOOR.without_effects("x").bidirected == (("x", "y"),)


def test_a_dag_from_a_matrix_or_a_networkx_graph_is_the_same():
    class DiGraph:  # what networkx calls so
        nodes = ("a", "b", "c")
        edges = (("a", "b"), ("b", "c"))

        def is_directed(self):
            return True

    dag = Dag.from_edges([("a", "b"), ("b", "c")])
    assert Dag.from_networkx(DiGraph()) == dag == Dag.from_adjacency([[0, 1, 0], [0, 0, 2.5], [0, 0, 0]], "abc")
    np.testing.assert_array_equal(Dag.from_adjacency(dag.adjacency(), dag.nodes).adjacency(), dag.adjacency())
    DiGraph.is_directed = lambda self: False
    with pytest.raises(GraphError, match="is no directed graph"):
        Dag.from_networkx(DiGraph())


def test_levels_hold_every_node_once_after_all_of_its_parents():
    graph = Dag.from_edges([("a", "c"), ("b", "c"), ("c", "d"), ("a", "d")], ["d", "c", "b", "a", "free"])
    assert graph.levels == (("b", "a", "free"), ("c",), ("d",)) and Dag(()).levels == ()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Admg.parse("a -> b -> a"), "cycle"),
        (lambda: Admg.parse("a => b"), "cannot read 'a => b'; write edges"),
        (lambda: Admg.parse("a ->"), "cannot read"),
        (lambda: Admg.parse(" , "), "there are no nodes"),
        (lambda: Admg.parse("a <-> a"), "a <-> a joins a node to itself"),
        (lambda: Admg.parse("a <-> b, b <-> a"), "listed twice"),
        (lambda: Admg.parse("a -> b", latent=["c"]), "unknown node 'c' in the latent nodes"),
        (lambda: Admg(Dag(("a",)), (("a", "b"),)), "unknown node 'b' in edge a <-> b"),
        (lambda: Dag.from_adjacency([[0, 1]]), r"shape \(1, 2\); give a square matrix"),
        (lambda: Dag.from_adjacency([[0, 1], [0, 0]], "abc"), "2 rows for 3 nodes"),
    ],
)
def test_mistakes_are_named_in_one_line(make, message):
    with pytest.raises(GraphError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
