"""String diagrams of discrete causal models: an intervention is surgery on the diagram, and combs give it from what is observed.

A node is a box, a stochastic tensor f_v[parents, v]; wires are copied to every box that reads them, and discarded where nobody looks:

    state of the diagram   sum over what is discarded of prod_v f_v[pa(v), v]                                        (1)
    cut at x               f_x is replaced by the uniform state, which reads nothing; p(. | do(x)) is what then
                           follows given x, by disintegration                                                     (2)
    comb of a district S   c_S[v in S, wires into S] = prod_{v in S} p(v | before v): all that its boxes do together,
                           with the boxes between them left open as holes                                       (3)
    do(x) by combs         where no child of x shares x's district S:  p(. | do(x)) = (sum_x c_S) prod_{T != S} c_T   (4)

(3) is had from the observed distribution alone, because hidden wires run within districts; so is (4), whose premise says that x may be
disconnected from its comb without touching what a hidden wire joins it to. Source: Jacobs, Kissinger & Zanasi, FoSSaCS 2019; (4) as a
criterion: Tian & Pearl, AAAI 2002, theorem 2.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Collection, Mapping

import numpy as np

from causal_gen.scm import formula as fm
from causal_gen.scm.formula import Table
from causal_gen.structure.graph import Dag
from causal_gen.structure.graph_mixed import Admg
from causal_gen.types import DataError, Float, GraphError

LARGEST = 10_000_000  # cells of a joint distribution


@dataclasses.dataclass(frozen=True, eq=False)
class Diagram:
    """Boxes by name, [states of each parent in node order ..., states]. Raises `DataError` for a box that is missing or no such tensor."""

    dag: Dag
    boxes: Mapping[str, Float[np.ndarray, "..."]]

    def __post_init__(self):
        for name in self.dag.nodes:
            if name not in self.boxes:
                raise DataError(f"diagram: node {name!r} has no box; give its table")
        for name in self.dag.nodes:
            shape, box = [self.boxes[parent].shape[-1] for parent in self.dag.parents(name)], self.boxes[name]
            if list(box.shape[:-1]) != shape:
                raise DataError(f"diagram: the box of {name!r} has shape {box.shape}; its parents have {shape} states")
            if (box < 0).any() or np.abs(box.sum(-1) - 1).max() > 1e-9:
                raise DataError(f"diagram: the box of {name!r} is not stochastic; every row must sum to 1")

    def state(self, outputs: Collection[str]) -> Table:
        """Eq. (1): the joint distribution of `outputs`; all other wires are discarded, one after the other, each as early as it can be."""
        terms = [self._term(name) for name in self.dag.nodes]
        for name in self.dag.nodes:
            if name in outputs:
                continue
            touching = [term for term in terms if name in term.names]
            merged = functools.reduce(fm.times, touching)
            _check_size(merged.array.shape)
            terms = [term for term in terms if name not in term.names] + [merged.marginal(set(merged.names) - {name})]
        _check_size([self.boxes[name].shape[-1] for name in outputs])
        joint = functools.reduce(fm.times, terms)
        names = tuple(name for name in self.dag.nodes if name in outputs)
        return Table(names, joint.over(names))

    def _term(self, name: str) -> Table:
        return Table((*self.dag.parents(name), name), self.boxes[name])

    def cut(self, *names: str) -> Diagram:
        """Surgery, eq. (2): the boxes of `names` read nothing and give every state with the same probability."""
        self.dag.check(names, "a cut")
        uniform = {name: np.full(self.boxes[name].shape[-1], 1 / self.boxes[name].shape[-1]) for name in names}
        return Diagram(self.dag.do(*names), {**self.boxes, **uniform})

    def do(self, y: Collection[str], x: Collection[str], given: Collection[str] = ()) -> np.ndarray:
        """p(y | do(x), given) by surgery, axes y, x, given in the order named; nan where it is undefined."""
        state = self.cut(*x).state({*y, *x, *given})
        return fm.divided(state, state.marginal({*x, *given})).over((*y, *x, *given))


def _check_size(shape: Collection[int]) -> None:
    if math.prod(shape) > LARGEST:
        raise DataError(f"diagram: a table of {math.prod(shape):,} cells is more than {LARGEST:,}; ask about fewer nodes at once")


def combs(graph: Admg, joint: Table) -> dict[frozenset[str], Table]:
    """Eq. (3): the comb of every district, from the observed distribution `joint` of the graph's nodes; nan where it is undefined."""
    order, found = graph.order, {}
    for district in graph.districts:
        boxes = []
        for name in graph.sorted(district):
            before = order[: order.index(name)]
            boxes.append(fm.divided(joint.marginal((*before, name)), joint.marginal(before)))
        found[district] = functools.reduce(fm.times, boxes)
    return found


def do_by_combs(graph: Admg, joint: Table, x: str) -> Table:
    """Eq. (4): p(all others | do(x)) from the observed distribution of the graph's nodes, the axis of x being what it is set to.

    Raises `GraphError` where a child of x is in its district, so that the diagram cannot be taken apart there; ID may know another way.
    """
    graph.dag.check([x], "a cut")
    own = graph.district(x)
    joined = [name for name in graph.dag.children(x) if name in own]
    if joined:
        raise GraphError(
            f"diagram: hidden wires join {x} and its child {joined[0]}; no comb comes apart there, identify may know another way"
        )
    parts = [table.marginal(set(table.names) - {x}) if district is own else table for district, table in combs(graph, joint).items()]
    everywhere = Table((x,), np.ones(joint.array.shape[joint.names.index(x)]))  # where nothing depends on x, its axis is there all the same
    return functools.reduce(fm.times, parts, everywhere)
