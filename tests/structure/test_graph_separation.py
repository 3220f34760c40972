"""Separation and the sets that make an effect readable, against their definitions by enumeration and against linear-Gaussian models."""

import itertools

import numpy as np
import pytest

from causal_gen.structure import graph_separation as sep
from causal_gen.structure.graph import Dag
from causal_gen.structure.graph_mixed import Admg
from causal_gen.types import GraphError
from tests.structure.graphs_at_hand import linear_covariance, minimal, partial_correlation, random_admg, separated_by_paths, subsets


@pytest.mark.parametrize("seed", range(4))
def test_separation_is_that_no_path_is_open(seed):
    rng = np.random.default_rng(seed)
    graph = random_admg(rng, 6, 0.35, 0.2)
    for x, y in itertools.combinations(graph.nodes, 2):
        for given in subsets(set(graph.nodes) - {x, y}):
            expected = separated_by_paths(graph, x, y, given)
            assert sep.separated(graph, [x], [y], given) == sep.separated(graph, [y], [x], given) == expected, (x, y, given, str(graph))


def test_in_a_linear_gaussian_model_separated_is_uncorrelated():
    rng = np.random.default_rng(7)
    for _ in range(3):
        graph = random_admg(rng, 6, 0.4, 0.0).dag
        covariance = linear_covariance(graph, rng)
        for x, y in itertools.combinations(graph.nodes, 2):
            for given in subsets(set(graph.nodes) - {x, y}):
                correlation = partial_correlation(covariance, graph.index(x), graph.index(y), [graph.index(n) for n in given])
                assert sep.separated(graph, [x], [y], given) == (abs(correlation) < 1e-9)


def _paths_cut(graph: Admg, x: str) -> Admg:
    return Admg(Dag(graph.nodes, tuple(edge for edge in graph.edges if edge[0] != x)), graph.bidirected)


@pytest.mark.parametrize("seed", range(3))
def test_back_door_sets_are_all_minimal_ones_of_the_definition(seed):
    rng = np.random.default_rng(seed)
    graph = random_admg(rng, 6, 0.4, 0.15)
    for x, y in itertools.permutations(graph.nodes, 2):
        able = set(graph.nodes) - graph.descendants(x) - {y}
        valid = {given for given in subsets(able) if separated_by_paths(_paths_cut(graph, x), x, y, given)}
        assert set(sep.back_door_sets(graph, [x], [y])) == minimal(valid), (x, y, str(graph))
        for given in subsets(set(graph.nodes) - {x, y}):
            assert sep.is_back_door(graph, [x], [y], given) == (given in valid)


def test_adjusting_gives_the_total_effect_in_a_linear_model_exactly_where_it_should():
    """Every set that is called an adjustment set gives the path coefficients' sum by regression; sets that are not, do not."""
    rng = np.random.default_rng(3)
    told = {True: 0, False: 0}
    for _ in range(10):
        graph = random_admg(rng, 5, 0.5, 0.0).dag
        covariance = linear_covariance(graph, rng)
        n = len(graph.nodes)
        # the regression of each node on its parents gives the weights back
        weights = np.zeros((n, n))
        for j, name in enumerate(graph.nodes):
            above = [graph.index(parent) for parent in graph.parents(name)]
            weights[above, j] = np.linalg.solve(covariance[np.ix_(above, above)], covariance[above, j]) if above else 0
        total = np.linalg.inv(np.eye(n) - weights)
        for x, y in itertools.permutations(range(n), 2):
            for given in subsets(set(graph.nodes) - {graph.nodes[x], graph.nodes[y]}):
                rows = [x, *(graph.index(name) for name in given)]
                slope = np.linalg.solve(covariance[np.ix_(rows, rows)], covariance[rows, y])[0]
                valid = sep.is_adjustment(graph, [graph.nodes[x]], [graph.nodes[y]], given)
                assert valid == (abs(slope - total[x, y]) < 1e-9), (graph, graph.nodes[x], graph.nodes[y], given)
                told[valid] += 1
    assert min(told.values()) > 200


def test_adjustment_for_several_causes_may_use_what_the_first_one_moves():
    """x1 -> z -> x2 and z <- u -> y: given z nothing confounds x2; z is no node that the joint effect passes except by itself into y."""
    graph = Admg.parse("x1 -> x2, x1 -> z -> x2, z <-> y, x1 -> y, x2 -> y")
    assert not sep.is_adjustment(graph, ["x1", "x2"], ["y"], [])
    plain = Admg.parse("c -> x1, c -> y, x1 -> x2, x1 -> y, x2 -> y, c -> x2")
    assert sep.adjustment_sets(plain, ["x1", "x2"], ["y"]) == (frozenset("c"),) == sep.back_door_sets(plain, ["x1", "x2"], ["y"])
    late = Admg.parse("x1 -> z, u -> z, z -> x2, u -> y, x1 -> y, x2 -> y", latent=["u"])
    assert sep.back_door_sets(late, ["x1", "x2"], ["y"]) == ()


@pytest.mark.parametrize("seed", range(3))
def test_front_door_sets_are_all_minimal_ones_of_the_definition(seed):
    rng = np.random.default_rng(seed)
    graph, found = random_admg(rng, 5, 0.4, 0.3), 0
    for x, y in itertools.permutations(graph.nodes, 2):
        valid = set()
        for given in subsets(set(graph.nodes) - {x, y}):
            rest = graph.subgraph(set(graph.nodes) - given)
            doors = all(separated_by_paths(_paths_cut(graph, x), x, z, frozenset()) for z in given)
            cut = Admg(Dag(graph.nodes, tuple(edge for edge in graph.edges if edge[0] not in given)), graph.bidirected)
            behind = all(separated_by_paths(cut, z, y, frozenset([x])) for z in given)
            if y not in rest.descendants(x) and doors and behind:
                valid.add(given)
        assert set(sep.front_door_sets(graph, [x], [y])) == minimal(valid), (x, y, str(graph))
        found += len(valid - {frozenset()})
    assert found


@pytest.mark.parametrize(
    ("text", "back", "front", "tools"),
    [
        ("x -> m -> y, x <-> y", (), ({"m"},), ()),
        ("z -> x, z -> y, x -> y", ({"z"},), (), ()),
        ("w -> x, x -> y, x <-> y", (), (), (("w", frozenset()),)),
        ("w -> x, x -> y, x <-> y, c -> w, c -> y", (), (), (("w", frozenset("c")),)),
        ("a -> x, a -> c, b -> c, b -> y, c -> x, c -> y, x -> y", ({"a", "c"}, {"b", "c"}), (), (("a", frozenset("bc")),)),
        ("x -> y, x <-> y", (), (), ()),
    ],
)
def test_known_graphs(text, back, front, tools):
    """Front door, confounder, instrument with and without a covariate, M with a confounding collider, bow."""
    graph = Admg.parse(text)
    assert set(sep.back_door_sets(graph, ["x"], ["y"])) == set(map(frozenset, back))
    assert set(sep.front_door_sets(graph, ["x"], ["y"])) == set(map(frozenset, front))
    assert sep.instruments(graph, "x", "y") == tools


def test_an_instrument_gives_the_effect_in_a_linear_model():
    rng = np.random.default_rng(0)
    full = Admg.parse("c -> w, c -> y, w -> x, u -> x, u -> y, x -> y").dag
    graph, covariance = Admg(full).project(["u"]), linear_covariance(full, rng)
    ((name, given),) = sep.instruments(graph, "x", "y")
    i, j, k = (full.index(node) for node in (name, "x", "y"))
    rows = [full.index(node) for node in given]
    rest = [covariance[i, m] - covariance[i, rows] @ np.linalg.solve(covariance[np.ix_(rows, rows)], covariance[rows, m]) for m in (j, k)]
    above = [full.index(parent) for parent in full.parents("y")]
    weight = dict(zip(full.parents("y"), np.linalg.solve(covariance[np.ix_(above, above)], covariance[above, k]), strict=True))["x"]
    assert rest[1] / rest[0] == pytest.approx(weight)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda g: sep.separated(g, ["a"], ["b"], ["cc"]), "unknown node 'cc' in a question of separation; did you mean 'c'"),
        (lambda g: sep.separated(g, ["a"], ["b"], ["a"]), "'a' is asked about and given"),
        (lambda g: sep.back_door_sets(g, ["a"], ["a"]), "the effect of a on a: name disjoint sets"),
        (lambda g: sep.front_door_sets(g, [], ["a"]), "the effect of nothing on a"),
        (lambda g: sep.is_front_door(g, ["a"], ["b"], ["d"]), "unknown node 'd' in a front-door set"),
    ],
)
def test_mistakes_are_named(ask, message):
    with pytest.raises(GraphError, match=message):
        ask(Admg.parse("a -> b -> c"))
