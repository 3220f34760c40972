"""Who is independent of whom given what, and which sets make an effect readable from observations.

    X, Y m-separated by Z: every path between them has a non-collider in Z, or a collider that has no descendant in Z              (1)
    back-door set Z:   no node of Z is a descendant of X, and Z separates X from Y where X has no effects                             (2)
        p(y | do(x)) = sum_z p(y | x, z) p(z)
    adjustment set Z:  the same sum holds. It may hold descendants of X too, but none of a node that an effect of X on Y passes       (3)
    front-door set Z:  it meets every directed path from X to Y; no back-door path leads from X to Z; X blocks those from Z to Y      (4)
        p(y | do(x)) = sum_z p(z | x) sum_x' p(y | x', z) p(x')
    instrument (W, Z): W depends on X given Z, which separates it from Y where X has no effects                                       (5)

Separation is reachability (Shachter's ball), minimal separators are listed in the moral graph of the ancestors (van der Zander et al.
2014), whose nodes that must not be in a set are eliminated first. Sources: Pearl, Causality, def. 3.3.1, 3.3.3, 7.4.1; Richardson,
Scand. J. Stat. 30 (2003); Shpitser, VanderWeele & Robins, UAI 2010 for (3).
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator

from causal_gen.structure.graph import Dag
from causal_gen.structure.graph_mixed import Admg
from causal_gen.types import GraphError

MOST = 1000  # sets that are listed
WIDEST = 12  # candidates of a front-door set of which every subset is tried; of more, subsets of up to three


def separated(graph: Dag | Admg, x: Collection[str], y: Collection[str], given: Collection[str] = ()) -> bool:
    """Whether `given` m-separates `x` from `y`, eq. (1); in a `Dag` this is d-separation. Nodes in both sets are not separated.

    Raises `GraphError` for an unknown node, and for one that is asked about and given.
    """
    mixed = _mixed(graph)
    mixed.dag.check((*x, *y, *given), "a question of separation")
    both = sorted((set(x) | set(y)) & set(given))
    if both:
        raise GraphError(f"graph: {both[0]!r} is asked about and given; name it once")
    dag, _ = mixed.with_latents()
    return not _reached(dag, x, frozenset(given)) & set(y)


def _reached(dag: Dag, start: Collection[str], given: frozenset[str]) -> set[str]:
    """Nodes that a ball reaches from `start`: it passes a non-collider that is not given and a collider with a given descendant."""
    parents: dict[str, list[str]] = {name: [] for name in dag.nodes}
    children: dict[str, list[str]] = {name: [] for name in dag.nodes}
    for parent, child in dag.edges:
        parents[child].append(parent)
        children[parent].append(child)
    above = Admg(dag).ancestors(*given)
    queue = [(name, "up") for name in start]
    seen = set(queue)
    while queue:
        name, heading = queue.pop()
        steps: list[tuple[str, str]] = []
        if heading == "up" and name not in given:  # came from a child, or starts here
            steps = [(parent, "up") for parent in parents[name]] + [(child, "down") for child in children[name]]
        if heading == "down":
            steps = [(child, "down") for child in children[name]] if name not in given else []
            steps += [(parent, "up") for parent in parents[name]] if name in above else []
        fresh = [step for step in steps if step not in seen]
        seen.update(fresh)
        queue += fresh
    return {name for name, _ in seen if name not in given}


def _mixed(graph: Dag | Admg) -> Admg:
    return graph if isinstance(graph, Admg) else Admg(graph)


def _ends(graph: Admg, x: Collection[str], y: Collection[str]) -> None:
    graph.dag.check((*x, *y), "an effect")
    if set(x) & set(y) or not x or not y:
        raise GraphError(f"graph: the effect of {', '.join(x) or 'nothing'} on {', '.join(y) or 'nothing'}: name disjoint sets of nodes")


# ---- adjustment ------------------------------------------------------------------------------------------------------------------


def _proper(graph: Admg, x: Collection[str], y: Collection[str]) -> tuple[Admg, frozenset[str]]:
    """The graph without the first edges of effects of X on Y, and the nodes that such effects pass, Y included."""
    cut = graph.do(*x)
    passed = (cut.descendants(*x) - set(x)) & cut.without_effects(*x).ancestors(*y)
    edges = tuple(edge for edge in graph.edges if not (edge[0] in x and edge[1] in passed))
    return Admg(Dag(graph.nodes, edges), graph.bidirected), passed


def _forbidden(graph: Admg, x: Collection[str], y: Collection[str], back_door: bool) -> frozenset[str]:
    passed = x if back_door else _proper(graph, x, y)[1]
    return graph.descendants(*passed) | set(x) | set(y)


def is_back_door(graph: Dag | Admg, x: Collection[str], y: Collection[str], given: Collection[str]) -> bool:
    """Whether `given` is a back-door set of the effect of `x` on `y`, eq. (2). Raises `GraphError` for unknown or common nodes."""
    return _adjusts(_mixed(graph), x, y, given, back_door=True)


def is_adjustment(graph: Dag | Admg, x: Collection[str], y: Collection[str], given: Collection[str]) -> bool:
    """Whether adjusting for `given` gives the effect of `x` on `y` in every model of the graph, eq. (3)."""
    return _adjusts(_mixed(graph), x, y, given, back_door=False)


def _adjusts(graph: Admg, x: Collection[str], y: Collection[str], given: Collection[str], back_door: bool) -> bool:
    _ends(graph, x, y)
    graph.dag.check(given, "an adjustment set")
    if set(given) & _forbidden(graph, x, y, back_door):
        return False
    return separated(_proper(graph, x, y)[0], x, y, given)


def back_door_sets(graph: Dag | Admg, x: Collection[str], y: Collection[str]) -> tuple[frozenset[str], ...]:
    """All minimal back-door sets, eq. (2), the smallest first, at most `MOST`; () if there is none, (frozenset(),) if none is needed."""
    return _adjusting(_mixed(graph), x, y, back_door=True)


def adjustment_sets(graph: Dag | Admg, x: Collection[str], y: Collection[str]) -> tuple[frozenset[str], ...]:
    """All minimal adjustment sets, eq. (3), the smallest first, at most `MOST`."""
    return _adjusting(_mixed(graph), x, y, back_door=False)


def _adjusting(graph: Admg, x: Collection[str], y: Collection[str], back_door: bool) -> tuple[frozenset[str], ...]:
    _ends(graph, x, y)
    proper = _proper(graph, x, y)[0]
    return tuple(itertools.islice(minimal_separators(proper, x, y, _forbidden(graph, x, y, back_door)), MOST))


def minimal_separators(graph: Admg, x: Collection[str], y: Collection[str], forbidden: Collection[str] = ()) -> Iterator[frozenset[str]]:
    """Every set that m-separates `x` from `y`, holds no node of `forbidden`, and of which no part does; the smallest first.

    A minimal separator lies among the ancestors of x and y, so that it separates in their moral graph (Lauritzen 1990).
    """
    dag, latent = graph.with_latents()
    names = Admg(dag).ancestors(*x, *y)
    near = _moral(Admg(dag).subgraph(names).dag)
    a, b = "\0x", "\0y"  # all of x, and all of y, become one node
    near = _merged(_merged(near, a, set(x)), b, set(y))
    for name in sorted((set(forbidden) | latent) & set(near)):
        around = near.pop(name) - {name}
        for node in around:
            near[node] = (near[node] | around) - {name, node}
    if b not in near[a]:
        yield from sorted(_separators(near, a, b), key=lambda found: (len(found), sorted(found)))


def _moral(dag: Dag) -> dict[str, set[str]]:
    """Neighbours in the moral graph: parents and children, and parents of one child."""
    near: dict[str, set[str]] = {name: set() for name in dag.nodes}
    for child in dag.nodes:
        for one, other in itertools.permutations((child, *dag.parents(child)), 2):
            near[one].add(other)
    return near


def _merged(near: dict[str, set[str]], name: str, old: set[str]) -> dict[str, set[str]]:
    around = set().union(*(near[node] for node in old)) - old
    kept = {node: {name if other in old else other for other in others} for node, others in near.items() if node not in old}
    return {**kept, name: around}


def _component(near: dict[str, set[str]], start: str, without: Collection[str]) -> set[str]:
    found, queue = {start}, [start]
    while queue:
        fresh = near[queue.pop()] - found - set(without)
        found |= fresh
        queue += fresh
    return found


def _separators(near: dict[str, set[str]], a: str, b: str) -> set[frozenset[str]]:
    """All minimal separators of a and b: from the one next to a, nodes move one by one to a's side (Kloks & Kratsch 1998)."""

    def close(blocked: set[str]) -> frozenset[str]:
        side = _component(near, b, blocked)
        return frozenset(set().union(*(near[node] for node in side)) - side)

    found = {close(near[a])}
    queue = list(found)
    while queue and len(found) < MOST:
        current = queue.pop()
        for node in current:
            if b not in near[node]:
                further = close(set(current) | near[node] - _component(near, a, current))
                if further not in found:
                    found.add(further)
                    queue.append(further)
    return found


# ---- front door and instruments ----------------------------------------------------------------------------------------------------


def is_front_door(graph: Dag | Admg, x: Collection[str], y: Collection[str], given: Collection[str]) -> bool:
    """Whether `given` is a front-door set of the effect of `x` on `y`, eq. (4). Raises `GraphError` for unknown or common nodes."""
    mixed, z = _mixed(graph), set(given)
    _ends(mixed, x, y)
    mixed.dag.check(given, "a front-door set")
    if z & (set(x) | set(y)):
        return False
    rest = mixed.subgraph(set(mixed.nodes) - z)
    if rest.descendants(*x) & set(y):
        return False
    return not z or (separated(mixed.without_effects(*x), x, z) and separated(mixed.without_effects(*z), z, y, x))


def front_door_sets(graph: Dag | Admg, x: Collection[str], y: Collection[str]) -> tuple[frozenset[str], ...]:
    """All minimal front-door sets, eq. (4), the smallest first; in graphs with over `WIDEST` candidates those of up to three nodes."""
    mixed = _mixed(graph)
    _ends(mixed, x, y)
    without = mixed.without_effects(*x)
    able = [name for name in mixed.order if name not in (*x, *y) and separated(without, x, [name])]
    found: list[frozenset[str]] = []
    for size in range((len(able) if len(able) <= WIDEST else 3) + 1):
        for given in map(frozenset, itertools.combinations(able, size)):
            if not any(less <= given for less in found) and is_front_door(mixed, x, y, given):
                found.append(given)
    return tuple(found)


def instruments(graph: Dag | Admg, x: str, y: str) -> tuple[tuple[str, frozenset[str]], ...]:
    """Instruments W of the effect of `x` on `y`, each with a smallest set Z to condition on, eq. (5): for linear models.

    Neither is a descendant of x. For every W the minimal sets that separate it from y are tried; an instrument that needs a larger set
    is not found.
    """
    mixed = _mixed(graph)
    _ends(mixed, [x], [y])
    without, found = mixed.without_effects(x), []
    for name in mixed.order:
        if name in mixed.descendants(x) or name == y:
            continue
        for given in itertools.islice(minimal_separators(without, [name], [y], {*mixed.descendants(x), y}), MOST):
            if not separated(mixed, [name], [x], given):
                found.append((name, given))
                break
    return tuple(found)
