"""Directed acyclic graphs over named nodes: who is a direct cause of whom.

A `Dag` is static data (hashable, usable as a jit constant). Networks never see it; they see masks made from it.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from causal_gen.types import GraphError


@dataclasses.dataclass(frozen=True)
class Dag:
    """Nodes in the order given and edges (parent, child).

    Raises `GraphError` for an edge over an unknown node, a repeated node or edge, or a cycle (which is spelled out).
    """

    nodes: tuple[str, ...]
    edges: tuple[tuple[str, str], ...] = ()

    def __post_init__(self):
        for name in self.nodes:
            if self.nodes.count(name) > 1:
                raise GraphError(f"graph: node {name!r} is listed twice; name each node once")
        for parent, child in self.edges:
            for name in (parent, child):
                self._known(name, f"edge {parent} -> {child}")
            if self.edges.count((parent, child)) > 1:
                raise GraphError(f"graph: edge {parent} -> {child} is listed twice; list it once")
        self.order  # noqa: B018  (raises on a cycle)

    @classmethod
    def from_edges(cls, edges: Iterable[Sequence[str]], nodes: Sequence[str] = ()) -> Dag:
        """A graph from (parent, child) pairs; nodes not listed in `nodes` are appended in order of appearance."""
        pairs = tuple((str(parent), str(child)) for parent, child in edges)
        names = dict.fromkeys([*nodes, *(name for pair in pairs for name in pair)])
        return cls(tuple(names), pairs)

    @classmethod
    def from_adjacency(cls, matrix: Any, nodes: Sequence[str] | None = None) -> Dag:
        """A graph from a matrix [n, n] whose entry [i, j] is not 0 where node i is a parent of node j; without `nodes` x0, x1, ..."""
        array = np.asarray(matrix)
        if array.ndim != 2 or array.shape[0] != array.shape[1]:
            raise GraphError(f"graph: adjacency has shape {array.shape}; give a square matrix, [parent, child]")
        names = tuple(f"x{i}" for i in range(len(array))) if nodes is None else tuple(nodes)
        if len(names) != len(array):
            raise GraphError(f"graph: adjacency has {len(array)} rows for {len(names)} nodes; give one name a row")
        return cls(names, tuple((names[i], names[j]) for i, j in np.argwhere(array != 0)))

    @classmethod
    def from_networkx(cls, graph: Any) -> Dag:
        """A graph from a networkx DiGraph, or from anything with `nodes` and `edges` that says it is directed."""
        if not (hasattr(graph, "nodes") and hasattr(graph, "edges") and getattr(graph, "is_directed", lambda: True)()):
            raise GraphError(f"graph: a {type(graph).__name__} is no directed graph; give a networkx.DiGraph")
        return cls(tuple(str(name) for name in graph.nodes), tuple((str(edge[0]), str(edge[1])) for edge in graph.edges))

    def _known(self, name: str, where: str) -> str:
        if name not in self.nodes:
            near = difflib.get_close_matches(name, self.nodes, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; the nodes are {', '.join(self.nodes)}"
            raise GraphError(f"graph: unknown node {name!r} in {where}{hint}")
        return name

    def check(self, names: Iterable[str], where: str) -> None:
        """Raises `GraphError` for the first of `names` that is no node; `where` says who asks."""
        for name in names:
            self._known(name, where)

    @functools.cached_property
    def order(self) -> tuple[str, ...]:
        """Topological order; among free nodes the order given (Kahn, Comm. ACM 5, 1962)."""
        waiting = {name: {p for p, c in self.edges if c == name} for name in self.nodes}
        done: list[str] = []
        while waiting:
            free = next((name for name, parents in waiting.items() if not parents), None)
            if free is None:
                raise GraphError(f"graph: cycle {' -> '.join(self._cycle(waiting))}; remove one of these edges")
            done.append(free)
            del waiting[free]
            for parents in waiting.values():
                parents.discard(free)
        return tuple(done)

    def _cycle(self, waiting: dict[str, set[str]]) -> list[str]:
        path = [next(iter(waiting))]
        while path[-1] not in path[:-1]:
            path.append(next(iter(waiting[path[-1]])))
        return path[path.index(path[-1]) :][::-1]

    def index(self, name: str) -> int:
        """Place of `name` among the nodes as given."""
        return self.nodes.index(self._known(name, "a query"))

    def parents(self, name: str) -> tuple[str, ...]:
        """Direct causes, in node order."""
        self._known(name, "a query")
        return tuple(node for node in self.nodes if (node, name) in self.edges)

    def children(self, name: str) -> tuple[str, ...]:
        """Direct effects, in node order."""
        self._known(name, "a query")
        return tuple(node for node in self.nodes if (name, node) in self.edges)

    @property
    def roots(self) -> tuple[str, ...]:
        """Nodes without parents, in node order."""
        return tuple(name for name in self.nodes if not self.parents(name))

    def descendants(self, name: str) -> frozenset[str]:
        """Everything reachable from `name`, without `name` itself."""
        found: set[str] = set()
        queue = list(self.children(name))
        while queue:
            node = queue.pop()
            if node not in found:
                found.add(node)
                queue.extend(self.children(node))
        return frozenset(found)

    def ancestors(self, name: str) -> frozenset[str]:
        """Everything that reaches `name`, without `name` itself."""
        return frozenset(node for node in self.nodes if name in self.descendants(node))

    @functools.cached_property
    def levels(self) -> tuple[tuple[str, ...], ...]:
        """Nodes by the length of the longest path that leads to them: all of one level can be computed at once."""
        depth: dict[str, int] = {}
        for name in self.order:
            depth[name] = 1 + max((depth[parent] for parent in self.parents(name)), default=-1)
        return tuple(tuple(name for name in self.nodes if depth[name] == level) for level in range(max(depth.values(), default=-1) + 1))

    def adjacency(self) -> np.ndarray:
        """bool [n, n]; entry [i, j] says that node i is a parent of node j."""
        matrix = np.zeros((len(self.nodes), len(self.nodes)), bool)
        for parent, child in self.edges:
            matrix[self.index(parent), self.index(child)] = True
        return matrix

    def do(self, *names: str) -> Dag:
        """The mutilated graph: edges into `names` are cut (Pearl, Causality, sec. 3.2)."""
        for name in names:
            self._known(name, "do")
        return Dag(self.nodes, tuple(edge for edge in self.edges if edge[1] not in names))

    def with_sink(self, name: str) -> Dag:
        """The graph with one more node whose parents are all the others (an image over its factors)."""
        return Dag((*self.nodes, name), (*self.edges, *((node, name) for node in self.nodes)))
