"""What the page says of a model whose variables have names: its question, its graph, its mechanisms, and what was asked of it."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from causal_gen.evaluate import graph_drawing
from causal_gen.evaluate.workdir import answers, as_dict
from causal_gen.structure.graph import Dag
from causal_gen.types import GraphError

MAX_ASKED, MAX_ROWS, MAX_COLUMNS = 12, 8, 8  # interventions that are drawn, rows of an answer, and its columns
MISSING_GRAPH, BROKEN_GRAPH = "The config names no graph.", "The graph in the config cannot be drawn."


def factor_graph(config: Mapping[str, Any], metadata: Mapping[str, Any]) -> tuple[list[str], list[tuple[str, str]]]:
    """Nodes and edges of the factors' graph, from `config.model`: `graph` lists (parent, child) pairs, `nodes` may add lone nodes."""
    model = as_dict(config.get("model"))
    graph = model.get("graph") or as_dict(metadata.get("graph")).get("edges") or []
    edges = [(str(pair[0]), str(pair[1])) for pair in graph if isinstance(pair, list | tuple) and len(pair) == 2]
    nodes = dict.fromkeys([*(str(node) for node in model.get("nodes") or []), *(name for edge in edges for name in edge)])
    sink = sink_of(config)
    return [node for node in nodes if node != sink], [edge for edge in edges if sink not in edge]


def sink_of(config: Mapping[str, Any]) -> str:
    """The entry under all factors that is a picture; empty for a model of named numbers alone."""
    model = config.get("model") or {}
    if model.get("name") in ("structural", "variable_transformer"):
        return "image" if any("image" in pair for pair in model.get("graph") or []) else ""
    return str(model.get("image") or "image")


def question(config: Mapping[str, Any], factors: Sequence[str], edges: Sequence[tuple[str, str]]) -> str:
    """What the model answers, in a sentence."""
    data, sink = (config.get("data") or {}).get("name", "data"), sink_of(config)
    if not factors:
        return f"A generative model of the {data} {'pictures' if sink else 'data'}."
    cause = next((name for name in factors if any(parent == name for parent, _ in edges)), factors[0])
    effects = [child for parent, child in edges if parent == cause]
    listed = effects[0] if len(effects) == 1 else f"{', '.join(effects[:-1])} and {effects[-1]}" if effects else ""
    follows = f", with {listed} following as its effect{'s' if len(effects) > 1 else ''}" if effects else ""
    if sink:
        return (
            f"How would this very {data} picture look, had {cause} been different{follows}, and everything else about it stayed as it was?"
        )
    chance = "and all that was left to chance as it was"
    return f"What would this very row of {data} data have been, had {cause} been different{follows}, {chance}?"


def mechanisms(config: Mapping[str, Any], factors: Sequence[str], edges: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The mechanism of every node, in a word or two."""
    model, sink = config.get("model") or {}, sink_of(config)
    children = {child for _, child in edges}
    if model.get("name") == "structural":
        found = {name: _mechanism(name, model, config) for name in factors}
        return found | ({sink: "VAE of the picture"} if sink else {})
    if model.get("name") == "diffusion_ae":
        roots = "fitted marginal" if model.get("root_prior") == "fitted" else "standard normal"
        found = {name: "network of its causes" if name in children else roots for name in factors}
        return found | {sink: "diffusion decoder"}
    return dict.fromkeys(factors, "one transformer") if model.get("name") == "variable_transformer" else {}


def _mechanism(name: str, model: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    if model.get("joint"):
        return "joint flow"
    own = (model.get("mechanisms") or {}).get(name)
    stats = ((config.get("data") or {}).get("stats") or {}).get(name) or {}
    kind = str((own or model.get("default") or {}).get("name", "?"))
    return "discrete" if "categories" in stats and kind != "table" else kind


def parts(workdir: Path, config: Mapping[str, Any], metadata: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    """For the template: the graph as SVG with its legend, the interventions of this page as graphs, and answers in rows."""
    factors, edges = factor_graph(config, metadata)
    kinds = mechanisms(config, factors, edges)
    found: dict[str, Any] = {
        "kinds": graph_drawing.legend(kinds),
        "asked": [],
        "answers": _answers(workdir),
        "svg": "",
        "why": MISSING_GRAPH,
    }
    if not factors:
        return found
    try:
        dag = Dag(tuple(factors), tuple(edges))
        assert dag.order  # a cycle is found here
    except GraphError:
        return found | {"why": BROKEN_GRAPH}
    sink = sink_of(config)
    found["svg"] = graph_drawing.draw(dag, sink, kinds)
    for title, terms in _interventions(workdir, metrics, factors).items():
        act = graph_drawing.asked(dag, terms)
        if act is not None and len(found["asked"]) < MAX_ASKED:
            found["asked"].append((title, graph_drawing.draw(dag, sink, None, act)))
    return found


def _interventions(workdir: Path, metrics: Mapping[str, Any], factors: Sequence[str]) -> dict[str, dict[str, str]]:
    """What the answers and figures on the page ask, once each set of nodes: its title, and terms as in an answer's metrics.json."""
    found: dict[tuple[str, ...], tuple[str, dict[str, str]]] = {}
    for _, written in answers(workdir):
        terms = written.get("intervention")
        if isinstance(terms, dict) and terms:
            title = ", ".join(f"{term.rstrip(')')} = {str(value).replace(':', ', ')})" for term, value in terms.items())
            found.setdefault(tuple(sorted(terms)), (title, terms))
    for name in as_dict(metrics.get("do")):
        if name in factors:
            found.setdefault((f"do({name})",), (f"do({name})", {f"do({name})": ""}))
    return dict(found.values())


def _answers(workdir: Path) -> list[dict[str, Any]]:
    """The first rows of every counterfactual.csv: cells as they were and, where they differ, as they would have been."""
    found = []
    for folder, _ in answers(workdir):
        path = folder / "counterfactual.csv"
        try:
            with open(path, encoding="utf-8", newline="") as file:
                lines = [row for _, row in zip(range(MAX_ROWS), csv.DictReader(file), strict=False)]
        except (OSError, UnicodeDecodeError, csv.Error):
            continue
        names = [key.removeprefix("factual_") for key in (lines[0] if lines else {}) if key and key.startswith("factual_")][:MAX_COLUMNS]
        rows = [[(row.get(f"factual_{name}") or "", row.get(f"counterfactual_{name}") or "") for name in names] for row in lines]
        if rows:
            found.append({"caption": path.relative_to(workdir).as_posix(), "names": names, "rows": rows, "first": MAX_ROWS})
    return found
