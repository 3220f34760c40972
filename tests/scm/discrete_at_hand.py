"""Random discrete models over mixed graphs, whose latent causes are explicit: what is observed, and what an intervention really does."""

from __future__ import annotations

import string

import numpy as np

from causal_gen.structure.graph_mixed import Admg


class DiscreteModel:
    """A conditional table a node, of its parents and of one latent variable a bidirected edge; all by enumeration of all states."""

    def __init__(self, graph: Admg, rng: np.random.Generator, states: int = 2):
        self.graph, (self.dag, self.latent) = graph, graph.with_latents()
        self.sizes = {name: 3 if name in self.latent else int(rng.integers(2, states + 1)) for name in self.dag.nodes}
        self.tables = {}
        for name in self.dag.nodes:
            shape = [self.sizes[parent] for parent in self.dag.parents(name)]
            self.tables[name] = rng.dirichlet(np.full(self.sizes[name], 0.7), shape) * 0.96 + 0.04 / self.sizes[name]

    def distribution(self, do=()):
        """Over the observed nodes: entry [v_1, ..., v_n]; the axis of a node of `do` says what it is set to, and does not sum to 1."""
        letters = dict(zip(self.dag.nodes, string.ascii_letters, strict=False))
        terms, arrays = [], []
        for name in self.dag.nodes:
            if name not in do:
                terms.append("".join(letters[other] for other in (*self.dag.parents(name), name)))
                arrays.append(self.tables[name])
            else:
                terms.append(letters[name])
                arrays.append(np.ones(self.sizes[name]))
        return np.einsum(",".join(terms) + "->" + "".join(letters[name] for name in self.graph.nodes), *arrays)

    def effect(self, y, x, given=()):
        """p(y | do(x), given) with axes y, x, given."""
        nodes, full = self.graph.nodes, self.distribution(x)
        kept = [*y, *x, *given]
        array = full.sum(tuple(i for i, name in enumerate(nodes) if name not in kept))
        left = [name for name in nodes if name in kept]
        array = array.transpose([left.index(name) for name in kept])
        return array / array.sum(tuple(range(len(y))), keepdims=True) if given else array


def identifiable_by_tian(graph: Admg, y, x) -> bool:
    """Another algorithm than ID for the same question, without formulas (Tian & Pearl 2002; Huang & Valtorta 2006).

    p(y | do(x)) is identified if and only if every district of the ancestors of y in the graph without x can be had from the district of
    the graph that holds it, by going to ancestors and to districts in turn.
    """
    rest = graph.subgraph(set(graph.nodes) - set(x))
    above = rest.ancestors(*y)

    def reached(target, names):
        part = graph.subgraph(names)
        ancestors = part.ancestors(*target)
        if ancestors == target:
            return True
        if ancestors == names:
            return False
        return reached(target, graph.subgraph(ancestors).district(next(iter(target))))

    return all(reached(part, graph.district(next(iter(part)))) for part in rest.subgraph(above).districts)


def splits(nodes, rng, count):
    """Random disjoint (y, x, given), y and x not empty."""
    for _ in range(count):
        order = list(rng.permutation(list(nodes)))
        i = int(rng.integers(1, 3))
        j = i + int(rng.integers(1, 3))
        k = j + int(rng.integers(0, 2))
        yield tuple(map(str, order[:i])), tuple(map(str, order[i:j])), tuple(map(str, order[j:k]))
