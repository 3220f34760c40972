"""Causal graphs for the report as inline SVG: nodes coloured by mechanism, and what an intervention does to the graph.

Causes stand above effects. Where the model draws a picture its factors are boxed together, with one arrow from the box to the picture.
Colours are the page's CSS variables and follow the reader's dark or light theme.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from html import escape

from causal_gen.structure.graph import Dag

BOX_W, BOX_H, STEP_X, STEP_Y, PAD = 132, 34, 152, 84, 16
COLOURS = 6  # classes kind0 to kind5 of the page's style


@dataclasses.dataclass(frozen=True)
class Asked:
    """What an intervention touches: `nodes` that are set, `cut` edges, `moves`, the nodes that follow."""

    nodes: frozenset[str]
    cut: frozenset[tuple[str, str]]
    moves: frozenset[str]


def asked(dag: Dag, terms: Mapping[str, str]) -> Asked | None:
    """Of the terms in an answer's metrics.json, {"do(angle)": "20"}; None where one names no node of the graph.

    A do cuts the edges into its node, along an edge that edge alone; a shift or a soft intervention keeps them.
    """
    nodes, cut = set[str](), set[tuple[str, str]]()
    for term in terms:
        kind, _, target = term.rstrip(")").partition("(")
        parent, arrow, child = target.partition("->")
        if not {parent, *([child] if arrow else [])} <= set(dag.nodes):
            return None
        nodes.add(child if arrow else parent)
        if arrow:
            cut.add((parent, child))
        elif kind == "do":
            cut.update((above, parent) for above in dag.parents(parent))
    moves = frozenset(below for node in nodes for below in dag.descendants(node)) - nodes
    return Asked(frozenset(nodes), frozenset(cut), moves)


def draw(dag: Dag, sink: str = "", kinds: Mapping[str, str] | None = None, act: Asked | None = None) -> str:
    """The nodes of `dag` in layers. `kinds` names the mechanism of each node, one colour a mechanism in their order; `act` marks
    what is set.

    `sink` is the picture under all factors; without it every node stands alike.
    """
    names = [name for name in dag.order if name != sink]
    at, width, inner = _places(dag, names, sink)
    height = inner + (54 + BOX_H + 8 if sink else 0)
    if sink:
        at[sink] = (width / 2, inner + 50 + BOX_H / 2)
    title = "causal graph" if act is None else f"causal graph with {', '.join(sorted(act.nodes))} set"
    parts = [f'<svg class="dag" viewBox="0 0 {width:g} {height:g}" style="max-width:{width:g}px" role="img" aria-label="{escape(title)}">']
    parts.append('<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">')
    parts.append('<path class="tip" d="M0 0 L8 4 L0 8 z"/></marker></defs>')
    if sink:
        parts.append(f'<rect class="frame" x="2" y="4" width="{width - 4:g}" height="{inner:g}" rx="10"/>')
        parts.append(f'<text class="note" x="{PAD - 4}" y="21">factors, each with noise of its own</text>')
        x, y = at[sink]
        parts.append(f'<path class="edge" d="M{x:g} {inner + 4:g} V{y - BOX_H / 2 - 2:g}" marker-end="url(#tip)"/>')
        parts.append(f'<text class="note" x="{x + 10:g}" y="{inner + 30:g}">decoder and its noise</text>')
    for parent, child in dag.edges:
        if sink not in (parent, child):
            gone = act is not None and (parent, child) in act.cut
            parts.append(_edge(at[parent], at[child], gone))
    order = list(dict.fromkeys((kinds or {}).values()))
    for name, place in at.items():
        parts += _node(name, place, _class(name, order, kinds or {}, act, sink))
    return "".join(parts) + "</svg>"


def _places(dag: Dag, names: list[str], sink: str) -> tuple[dict[str, tuple[float, float]], float, float]:
    """The middle of every node, and the width and height that they take: a node lies below the lowest of its causes."""
    depth: dict[str, int] = {}
    for name in names:
        depth[name] = max((depth[parent] + 1 for parent in dag.parents(name) if parent != sink), default=0)
    layers = [[name for name in names if depth[name] == level] for level in range(max(depth.values(), default=0) + 1)]
    width = max(2, *(len(layer) for layer in layers)) * STEP_X + 2 * PAD  # two, so that the texts fit
    top = 4 + PAD + 18 if sink else 4 + PAD
    inner = (len(layers) - 1) * STEP_Y + BOX_H + 2 * PAD + (18 if sink else 0)
    at = {}
    for level, layer in enumerate(layers):
        for place, name in enumerate(layer):
            at[name] = (width / 2 + (place - (len(layer) - 1) / 2) * STEP_X, top + level * STEP_Y + BOX_H / 2)
    return at, width, inner


def _edge(start: tuple[float, float], end: tuple[float, float], gone: bool) -> str:
    (x0, y0), (x1, y1) = start, end
    skipped = round((y1 - y0) / STEP_Y) - 1
    side = 1.0 if x1 >= x0 else -1.0
    bend = side * STEP_X * 1.05 if skipped > 0 else 0.0  # around the layers that it skips
    lean = side * min(skipped, 3) * 9  # beside the straight edges at both ends
    path = f"M{x0 + lean:.1f} {y0 + BOX_H / 2:.1f} Q{(x0 + x1) / 2 + bend:.1f} {(y0 + y1) / 2:.1f} {x1 + lean:.1f} {y1 - BOX_H / 2 - 2:.1f}"
    return f'<path class="edge cut" d="{path}"/>' if gone else f'<path class="edge" d="{path}" marker-end="url(#tip)"/>'


def _class(name: str, order: list[str], kinds: Mapping[str, str], act: Asked | None, sink: str) -> str:
    colour = f" kind{order.index(kinds[name]) % COLOURS}" if name in kinds else ""
    if act is None:
        return f"node{colour}"
    return "node set" if name in act.nodes else "node moves" if name in act.moves or name == sink else "node stays"


def _node(name: str, place: tuple[float, float], kind: str) -> list[str]:
    x, y = place
    shown = name if len(name) <= 18 else name[:17] + "\u2026"
    parts = [f'<rect class="plain" x="{x - BOX_W / 2:g}" y="{y - BOX_H / 2:g}" width="{BOX_W}" height="{BOX_H}" rx="8"/>']
    parts.append(f'<rect class="{kind}" x="{x - BOX_W / 2:g}" y="{y - BOX_H / 2:g}" width="{BOX_W}" height="{BOX_H}" rx="8"/>')
    parts.append(f'<text class="label" x="{x:g}" y="{y + 5:g}" text-anchor="middle">{escape(shown)}<title>{escape(name)}</title></text>')
    return parts


def legend(kinds: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """For the page: (colour's class, mechanism, its nodes)."""
    order = list(dict.fromkeys(kinds.values()))
    return [(f"kind{i % COLOURS}", kind, ", ".join(name for name in kinds if kinds[name] == kind)) for i, kind in enumerate(order)]
