"""Random mixed graphs, and slow definitions that the fast ones are held against."""

from __future__ import annotations

import itertools

import numpy as np

from causal_gen.structure.graph import Dag
from causal_gen.structure.graph_mixed import Admg


def random_admg(rng: np.random.Generator, nodes: int, directed: float, bidirected: float) -> Admg:
    """Nodes a, b, ... listed in another order than the topological one."""
    names = [str(name) for name in rng.permutation(list("abcdefgh"[:nodes]))]
    pairs = list(itertools.combinations(names, 2))
    edges = tuple(pair for pair in pairs if rng.uniform() < directed)
    both = tuple(pair for pair in pairs if rng.uniform() < bidirected)
    return Admg(Dag(tuple(sorted(names)), edges), both)


def subsets(names):
    """All subsets, the smallest first."""
    names = sorted(names)
    return [frozenset(some) for size in range(len(names) + 1) for some in itertools.combinations(names, size)]


def separated_by_paths(graph: Admg, x: str, y: str, given: frozenset[str]) -> bool:
    """The definition: no path from x to y is open. Marks of an edge say which of its ends is an arrowhead."""
    marks = [(a, b, False, True) for a, b in graph.edges] + [(b, a, True, False) for a, b in graph.edges]
    marks += [(a, b, True, True) for pair in graph.bidirected for a, b in (pair, pair[::-1])]

    def below(name):
        return {name}.union(*(below(child) for parent, child in graph.edges if parent == name))

    def open_from(name, visited, into):
        if name == y:
            return True
        for a, b, head_a, head_b in marks:
            if a != name or b in visited:
                continue
            if into is not None:
                collider = into and head_a
                if (collider and not below(name) & given) or (not collider and name in given):
                    continue
            if open_from(b, {*visited, b}, head_b):
                return True
        return False

    return not open_from(x, {x}, None)


def minimal(sets):
    """Those of which no other is a part."""
    return {one for one in sets if not any(other < one for other in sets)}


def linear_covariance(graph: Dag, rng: np.random.Generator) -> np.ndarray:
    """Covariance [n, n] of a linear-Gaussian model with random coefficients away from 0, in node order."""
    n = len(graph.nodes)
    weights = graph.adjacency() * rng.uniform(0.4, 1.5, (n, n)) * rng.choice([-1, 1], (n, n))
    mixing = np.linalg.inv(np.eye(n) - weights.T)
    return mixing @ np.diag(rng.uniform(0.5, 2, n)) @ mixing.T


def partial_correlation(covariance: np.ndarray, i: int, j: int, given: list[int]) -> float:
    """Of variables i and j given others."""
    precision = np.linalg.inv(covariance[np.ix_([i, j, *given], [i, j, *given])])
    return float(-precision[0, 1] / np.sqrt(precision[0, 0] * precision[1, 1]))
