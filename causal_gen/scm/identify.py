"""Which effects a graph with latent common causes identifies, and by what formula: the algorithms ID and IDC.

    p(y | do(x)) in a graph G with the observed distribution P, by ID(y, x, P, G):                                           (1)
      1  x is empty: sum P over all but y
      2  some nodes are no ancestors of y: go on in the graph of its ancestors
      3  some nodes are no ancestors of y once x is set: set them too, to any value
      4  G without x falls into districts S_1 .. S_k: the sum over what is neither x nor y of the product of ID(S_i, all others)
      5  G without x is one district S, and G is one district: refuse; (G, S) is a hedge
      6  S is a district of G: the sum over S without y of the product of P(v | nodes before v), v in S
      7  S lies within a district S' of G: go on there, with P the product of those conditionals of S'
    p(y | do(x), z), IDC: a node of z that x's effect makes independent of y by rule 2 is set; then the ratio of (1) for y, z         (2)

A hedge (F, F') is a pair of sets of nodes, each one district, F' a part of F, F' without a node of x and F with one, F' above y: two models
can then agree in all that is observed and differ in the effect. ID refuses if and only if there is one (Shpitser & Pearl, AAAI 2006, and
for conditional effects UAI 2006). Conditionals are shortened by the Markov property of districts (Tian & Pearl 2002). The answer is a
statement about the graph: it is as good as the graph is.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection

import numpy as np

from causal_gen.scm import formula as fm
from causal_gen.scm.formula import Formula, Prob, Table
from causal_gen.structure.graph import Dag
from causal_gen.structure.graph_mixed import Admg
from causal_gen.structure.graph_separation import separated
from causal_gen.types import DataError, GraphError, UserError


@dataclasses.dataclass(frozen=True)
class Effect:
    """p(y | do(x), given): tuples of nodes, `x` may be empty."""

    y: tuple[str, ...]
    x: tuple[str, ...] = ()
    given: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Effect:
        """From "p(y | do(x))", "p(y, z | do(x, w), c)" or "p(y | do(x), do(w), c)". Raises `GraphError` for anything else."""
        way = "write p(y | do(x)), or p(y | do(x), z) for an effect among those with a certain z"
        found = re.fullmatch(r"\s*[pP]\s*\((.*)\)\s*", text)
        if not found:
            raise GraphError(f"effect: cannot read {text!r}; {way}")
        left, _, right = found[1].partition("|")
        inner = re.findall(r"\bdo\s*\(([^()]*)\)", right)
        rest = re.sub(r"\bdo\s*\([^()]*\)", "", right)
        x = [name for part in inner for name in _names(part)]
        y, given = _names(left), _names(rest)
        wrong = [name for name in (*y, *x, *given) if not re.fullmatch(r"[\w.\[\]]+", name)]
        if not y or wrong:
            cause = f"{wrong[0]!r} is no name of a node" if wrong else "there is no outcome before the |"
            raise GraphError(f"effect: cannot read {text!r}: {cause}; {way}")
        return cls(tuple(y), tuple(x), tuple(given))

    def __str__(self) -> str:
        right = [f"do({', '.join(self.x)})"] * bool(self.x) + list(self.given)
        return f"p({', '.join(self.y)}{' | ' + ', '.join(right) if right else ''})"

    def latex(self) -> str:
        """The same in LaTeX."""
        of, given = fm.latex(Prob(self.y))[2:-1], [fm.latex(Prob((name,)))[2:-1] for name in self.given]
        right = [rf"\mathrm{{do}}({fm.latex(Prob(self.x))[2:-1]})"] * bool(self.x) + given
        bar = r" \mid " if right else ""
        return f"p({of}{bar}{', '.join(right)})"

    def check(self, graph: Admg) -> None:
        """Raises `GraphError` for a node that the graph lacks, and for one in two places."""
        everything = (*self.y, *self.x, *self.given)
        graph.dag.check(everything, f"the effect {self}")
        twice = [name for name in everything if everything.count(name) > 1]
        if twice:
            raise GraphError(f"effect: {twice[0]!r} stands twice in {self}; name it once")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


class NotIdentified(UserError):
    """An effect that the graph does not identify. `forest` and `inner` are the hedge (F, F'), frozensets of nodes."""

    def __init__(self, effect: Effect, graph: Admg, forest: frozenset[str], inner: frozenset[str]):
        self.effect, self.forest, self.inner = effect, forest, inner
        outer, names = graph.sorted(forest - inner), ", ".join(graph.sorted(inner))
        forest_names = ", ".join(graph.sorted(forest))
        pairs = [f"{a} <-> {b}" for a, b in graph.bidirected if a in forest and b in forest]
        super().__init__(
            f"effect: {effect} is not identified by the graph: hedge F = {{{forest_names}}}, F' = {{{names}}}, joined by "
            f"{', '.join(pairs)}; two models can agree in all that is observed and differ in it. "
            f"Measure a latent cause of {outer[0]} and of what it is joined to, or randomise {outer[0]}"
        )


@dataclasses.dataclass(frozen=True)
class Identified:
    """An effect and the formula that gives it from observations. `spare` are variables of the formula whose value does not matter."""

    effect: Effect
    formula: Formula
    spare: tuple[str, ...] = ()

    def __str__(self) -> str:
        note = f", for any value of {', '.join(self.spare)}" if self.spare else ""
        return f"{self.effect} = {fm.text(self.formula)}{note}"

    def latex(self) -> str:
        """The equation in LaTeX."""
        return f"{self.effect.latex()} = {fm.latex(self.formula)}"

    def evaluate(self, joint: Table) -> np.ndarray:
        """The effect under an observed joint distribution: axes y, x, given, each in the order of `effect`; nan where it is undefined.

        A spare variable is averaged out by its own distribution. Raises `DataError` for a variable that the table lacks.

        One axis a variable, [y, x, given].
        """
        names = (*self.effect.y, *self.effect.x, *self.effect.given)
        lacking = [name for name in names if name not in joint.names]
        if lacking:
            raise DataError(f"table: there is no variable {lacking[0]!r}; the variables are {', '.join(joint.names)}")
        found = fm.evaluate(self.formula, joint)
        spare = tuple(name for name in found.names if name not in names)
        if spare:
            weighted = fm.times(found, joint.marginal(spare))
            found = weighted.marginal(set(weighted.names) - set(spare))
        shape = [joint.array.shape[joint.names.index(name)] for name in names]
        return np.broadcast_to(found.over(names), shape).copy()


def identify(graph: Admg | Dag, effect: Effect) -> Identified:
    """The formula of `effect` over what is observed. Raises `NotIdentified` with a hedge, `GraphError` for unknown or repeated nodes."""
    mixed = graph if isinstance(graph, Admg) else Admg(graph)
    effect.check(mixed)
    found = _Search(effect, mixed).conditional(frozenset(effect.y), frozenset(effect.x), frozenset(effect.given))
    named = {*effect.y, *effect.x, *effect.given}
    return Identified(effect, found, mixed.sorted(fm.free(found) - named))


@dataclasses.dataclass(frozen=True)
class _Kernel:
    """P of eq. (1) over the nodes of the graph at hand, as a product of one factor a node in topological order, less what is summed out.

    Every factor is a distribution of its node given those before it, so that the last factors of a product drop when their nodes are
    summed out. `summed` are nodes that have a factor but are no longer in the graph.
    """

    order: tuple[str, ...]
    factors: tuple[Formula, ...]
    summed: frozenset[str] = frozenset()

    def upto(self, count: int, keep: Collection[str]) -> Formula:
        """The marginal over `keep` of the product of the first `count` factors."""
        while count and self.order[count - 1] not in keep:
            count -= 1
        return fm.total([name for name in self.order[:count] if name not in keep], fm.product(self.factors[:count]))

    def conditional(self, name: str) -> Formula:
        """P(name | nodes before it)."""
        i = self.order.index(name)
        if not self.summed & set(self.order[:i]):
            return self.factors[i]
        before = set(self.order[:i]) - self.summed
        return fm.ratio(self.upto(i + 1, before | {name}), self.upto(i, before))

    def sum_out(self, names: Collection[str]) -> _Kernel:
        """Without `names`."""
        return dataclasses.replace(self, summed=self.summed | frozenset(names))

    def marginal(self, keep: Collection[str]) -> Formula:
        """The distribution of `keep`."""
        return self.upto(len(self.order), keep)


@dataclasses.dataclass(frozen=True)
class _Search:
    """One run of ID or IDC; `effect` and `graph` are what was asked, for the refusal."""

    effect: Effect
    graph: Admg

    def conditional(self, y: frozenset[str], x: frozenset[str], z: frozenset[str]) -> Formula:
        """Eq. (2)."""
        for name in self.graph.sorted(z):
            rest = z - {name}
            if separated(self.graph.do(*x).without_effects(name), y, [name], x | rest):
                return self.conditional(y, x | {name}, rest)
        joint = self.unconditional(y | z, x, self.graph, None)
        return fm.ratio(joint, fm.total(self.graph.sorted(y), joint)) if z else joint

    def unconditional(self, y: frozenset[str], x: frozenset[str], graph: Admg, kernel: _Kernel | None) -> Formula:
        """Eq. (1), by its lines. `kernel` None is the observed joint distribution of the graph's nodes."""
        everything = frozenset(graph.nodes)
        if not x:  # 1
            return Prob(graph.sorted(y)) if kernel is None else kernel.marginal(y)
        above = graph.ancestors(*y)
        if above != everything:  # 2
            smaller = kernel if kernel is None else kernel.sum_out(everything - above)
            return self.unconditional(y, x & above, graph.subgraph(above), smaller)
        idle = everything - x - graph.do(*x).ancestors(*y)
        if idle:  # 3
            return self.unconditional(y, x | idle, graph, kernel)
        districts = graph.subgraph(everything - x).districts
        if len(districts) > 1:  # 4
            parts = [self.unconditional(part, everything - part, graph, kernel) for part in districts]
            return fm.total(graph.sorted(everything - y - x), fm.product(reversed(parts)))
        inner = next(iter(districts))
        around = graph.district(next(iter(inner)))
        if around == everything:  # 5
            raise NotIdentified(self.effect, self.graph, everything, inner)
        factors = _conditionals(graph, around, kernel)
        if around == inner:  # 6
            return factors.marginal(y)
        return self.unconditional(y, x & around, graph.subgraph(around), factors)  # 7


def _conditionals(graph: Admg, district: frozenset[str], kernel: _Kernel | None) -> _Kernel:
    """The factors P(v | nodes before v) of one district."""
    if kernel is not None:  # in the order that its factors are made for; the graph at hand may have others
        order = tuple(name for name in kernel.order if name in district)
        return _Kernel(order, tuple(kernel.conditional(name) for name in order))
    order = graph.sorted(district)
    return _Kernel(order, tuple(_observed(graph, name) for name in order))


def _observed(graph: Admg, name: str) -> Prob:
    """p(v | nodes before v), of which only v's district among those, and the parents of that, matter."""
    before = graph.order[: graph.order.index(name) + 1]
    part = graph.subgraph(before)
    district = part.district(name)
    return Prob((name,), graph.sorted((district | part.parents(*district)) - {name}))
