"""Acyclic graphs with latent common causes: directed edges, and a bidirected one where two nodes share an unobserved cause.

An `Admg` (acyclic directed mixed graph) is what is left of a `Dag` when its latent nodes are projected out (Verma & Pearl, UAI 1990;
Tian & Pearl, AAAI 2002):

    a -> b    there is a directed path from a to b whose inner nodes are all latent                                         (1)
    a <-> b   there is a path a <- ... -> b without colliders whose inner nodes are all latent                                (2)

It is static data (hashable), as a `Dag` is. Sets of nodes are frozensets; results are in node order where they are tuples.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Collection, Iterable, Sequence

from causal_gen.structure.graph import Dag
from causal_gen.types import GraphError


@dataclasses.dataclass(frozen=True)
class Admg:
    """A `Dag` over the observed nodes and bidirected edges between them, each pair once.

    Raises `GraphError` for an unknown node, an edge from a node to itself, or a pair that is listed twice.
    """

    dag: Dag
    bidirected: tuple[tuple[str, str], ...] = ()

    def __post_init__(self):
        seen: set[frozenset[str]] = set()
        for a, b in self.bidirected:
            for name in (a, b):
                self.dag.check([name], f"edge {a} <-> {b}")
            if a == b or frozenset((a, b)) in seen:
                cause = "joins a node to itself" if a == b else "is listed twice"
                raise GraphError(f"graph: edge {a} <-> {b} {cause}; join two nodes, once")
            seen.add(frozenset((a, b)))

    @classmethod
    def from_edges(
        cls,
        edges: Iterable[Sequence[str]],
        bidirected: Iterable[Sequence[str]] = (),
        nodes: Sequence[str] = (),
        latent: Collection[str] = (),
    ) -> Admg:
        """From (parent, child) pairs and pairs with a latent common cause; nodes named in `latent` are projected out."""
        pairs = tuple((str(a), str(b)) for a, b in bidirected)
        directed = tuple((str(parent), str(child)) for parent, child in edges)
        names = dict.fromkeys([*nodes, *(name for pair in (*directed, *pairs) for name in pair)])
        return cls(Dag(tuple(names), directed), pairs).project(latent)

    @classmethod
    def parse(cls, text: str, latent: Collection[str] = ()) -> Admg:
        """From text such as "z -> x, x -> y, x <-> y"; a chain "x -> m -> y" is two edges, a name alone a node without edges."""
        directed, pairs, nodes = [], [], []
        for part in filter(None, (part.strip() for part in re.split(r"[,;\n]", text))):
            tokens = [token.strip() for token in re.split(r"(<->|->|<-)", part)]
            names = tokens[::2]
            if not all(re.fullmatch(r"[\w.\[\]]+", name) for name in names):
                raise GraphError(f"graph: cannot read {part!r}; write edges as in 'z -> x, x -> y, x <-> y'")
            nodes += names
            for a, arrow, b in zip(names, tokens[1::2], names[1:], strict=False):
                (pairs if arrow == "<->" else directed).append((b, a) if arrow == "<-" else (a, b))
        if not nodes:
            raise GraphError("graph: there are no nodes; write edges as in 'z -> x, x -> y, x <-> y'")
        return cls.from_edges(directed, pairs, nodes, latent)

    def __str__(self) -> str:
        alone = [name for name in self.nodes if not any(name in pair for pair in (*self.edges, *self.bidirected))]
        return ", ".join([*(f"{a} -> {b}" for a, b in self.edges), *(f"{a} <-> {b}" for a, b in self.bidirected), *alone])

    @property
    def nodes(self) -> tuple[str, ...]:
        """The observed nodes."""
        return self.dag.nodes

    @property
    def edges(self) -> tuple[tuple[str, str], ...]:
        """The directed edges (parent, child)."""
        return self.dag.edges

    @property
    def order(self) -> tuple[str, ...]:
        """Topological order of the directed edges."""
        return self.dag.order

    def sorted(self, names: Collection[str]) -> tuple[str, ...]:
        """`names` in topological order."""
        return tuple(name for name in self.order if name in names)

    # ---- relations of sets of nodes ------------------------------------------------------------------------------------------

    def parents(self, *names: str) -> frozenset[str]:
        """Direct causes of any of `names`, those among `names` included."""
        return frozenset(parent for parent, child in self.edges if child in names)

    def siblings(self, *names: str) -> frozenset[str]:
        """Nodes that share a latent cause with any of `names`."""
        return frozenset(b for pair in self.bidirected for a, b in (pair, pair[::-1]) if a in names)

    def ancestors(self, *names: str) -> frozenset[str]:
        """`names` and all that reaches them."""
        return self._closure(names, self.edges, backwards=True)

    def descendants(self, *names: str) -> frozenset[str]:
        """`names` and all that they reach."""
        return self._closure(names, self.edges, backwards=False)

    def _closure(self, names: Iterable[str], edges: Sequence[tuple[str, str]], backwards: bool) -> frozenset[str]:
        step: dict[str, list[str]] = {name: [] for name in self.nodes}
        for parent, child in edges:
            step[child if backwards else parent].append(parent if backwards else child)
        found, queue = set(names), list(names)
        while queue:
            fresh = [name for name in step[queue.pop()] if name not in found]
            found.update(fresh)
            queue += fresh
        return frozenset(found)

    @functools.cached_property
    def districts(self) -> tuple[frozenset[str], ...]:
        """Sets of nodes joined by bidirected paths (c-components), by their first node in topological order."""
        both = [*self.bidirected, *(pair[::-1] for pair in self.bidirected)]
        found: list[frozenset[str]] = []
        for name in self.order:
            if not any(name in district for district in found):
                found.append(self._closure([name], both, backwards=False))
        return tuple(found)

    def district(self, name: str) -> frozenset[str]:
        """The district that holds `name`."""
        return next(district for district in self.districts if name in district)

    def markov_boundary(self, name: str) -> frozenset[str]:
        """The smallest set given which `name` is independent of all other nodes: what paths of colliders alone join to it.

        In a `Dag` parents, children and the children's other parents; else with every such node its district and that one's parents.
        """
        self.dag.check([name], "a query")
        found: set[str] = set()
        for start in {name, *(child for parent, child in self.edges if parent == name)}:
            district = self.district(start)
            found |= district | self.parents(*district)
        return frozenset(found - {name})

    # ---- other graphs --------------------------------------------------------------------------------------------------------

    def subgraph(self, names: Collection[str]) -> Admg:
        """`names` and the edges between them."""
        dag = Dag(tuple(n for n in self.nodes if n in names), tuple(e for e in self.edges if e[0] in names and e[1] in names))
        return Admg(dag, tuple(pair for pair in self.bidirected if pair[0] in names and pair[1] in names))

    def do(self, *names: str) -> Admg:
        """The mutilated graph: no arrow points into `names`, neither a directed nor a bidirected one."""
        pairs = tuple(pair for pair in self.bidirected if pair[0] not in names and pair[1] not in names)
        return Admg(self.dag.do(*names), pairs)

    def without_effects(self, *names: str) -> Admg:
        """The graph whose back-door paths alone are left: no directed edge comes out of `names`."""
        self.dag.check(names, "a query")
        return Admg(Dag(self.nodes, tuple(edge for edge in self.edges if edge[0] not in names)), self.bidirected)

    def with_latents(self) -> tuple[Dag, frozenset[str]]:
        """The same graph with a latent root for every bidirected edge, and the names of these roots."""
        return self._with_latents

    @functools.cached_property
    def _with_latents(self) -> tuple[Dag, frozenset[str]]:
        roots = tuple(f"{a}<->{b}" for a, b in self.bidirected)
        edges = tuple((root, name) for root, pair in zip(roots, self.bidirected, strict=True) for name in pair)
        return Dag((*self.nodes, *roots), (*self.edges, *edges)), frozenset(roots)

    def project(self, latent: Collection[str]) -> Admg:
        """Latent nodes projected out, eqs. (1, 2). Conditional independences and effects among the others stay what they are."""
        self.dag.check(latent, "the latent nodes")
        graph = self
        for name in graph.sorted(latent):
            graph = graph._without(name)
        return graph

    def _without(self, name: str) -> Admg:
        """One latent node projected out; it is removed after the latent nodes above it, whose edges it has then taken over."""
        rest = tuple(node for node in self.nodes if node != name)
        above, below = self.dag.parents(name), self.dag.children(name)
        directed = dict.fromkeys([edge for edge in self.edges if name not in edge] + [(a, b) for a in above for b in below])
        pairs = dict.fromkeys(frozenset(pair) for pair in self.bidirected if name not in pair)
        pairs |= dict.fromkeys(frozenset((a, b)) for a in below for b in below if a != b)
        pairs |= dict.fromkeys(frozenset((a, b)) for a in self.siblings(name) for b in below if a != b)
        place = {node: i for i, node in enumerate(rest)}
        listed = sorted((tuple(sorted(pair, key=place.__getitem__)) for pair in pairs), key=lambda pair: [place[end] for end in pair])
        return Admg(Dag(rest, tuple(directed)), tuple((a, b) for a, b in listed))
