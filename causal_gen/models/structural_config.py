"""Fields of a structural causal model: the graph, and what mechanism each node has."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from causal_gen.models.picture_config import PictureConfig
from causal_gen.scm.marginal import SCALINGS, Scaling
from causal_gen.scm.mechanism import Column, Line, Monotone
from causal_gen.scm.transform import Affine, Spline
from causal_gen.structure.graph import Dag
from causal_gen.types import ConfigError, Entry, at_least, choice

REAL = ("linear", "additive", "location_scale", "spline")
DISCRETE = ("discrete", "table")


@dataclasses.dataclass(frozen=True)
class MechanismConfig:
    """A node's mechanism, for a real node

    linear           a line in the parents and normal noise; fitted by least squares
    additive         a network of `widths` in the parents, plus noise: normal, or with `noise` "spline" of a law that is learned
    location_scale   mean and scale of normal noise from a network
    spline           a monotone spline of `bins` bins on [-bound, bound] standard deviations, all its numbers from a network

    and for a discrete one (`default` stands for the first of them there)

    discrete         logits from a network of `widths`, by () from a line
    table            logits a row for each configuration of the parents, which are discrete too; fitted by counting

    `scaling` brings a real node to unit scale: "standard", "log" for a node above the lower end of its support, "logit" within both ends.
    """

    name: str = choice("spline", *(name for name in (*REAL, *DISCRETE) if name != "spline"))
    widths: tuple[int, ...] = at_least((32, 32), 1)
    bins: int = at_least(8, 2, 32)
    bound: float = at_least(4.0, 1.0)
    noise: str = choice("normal", "spline")
    scaling: str = choice("standard", *(kind for kind in SCALINGS if kind != "standard"))

    def real(self, column: Column, parents: tuple[Column, ...]) -> Any:
        """The mechanism of a real node."""
        inputs = sum(parent.width for parent in parents)
        if self.name == "linear":
            return Monotone(column, parents, Affine(), 1 if parents else 0, Line(inputs) if parents else None)
        from causal_gen.nn.conditioner import Net  # networks are imported when one is built

        spline = self.name == "spline" or (self.name == "additive" and self.noise == "spline")
        transform = Spline(self.bins, self.bound) if spline else Affine()
        conditional = (1 if self.name == "additive" else transform.size) if parents else 0
        return Monotone(column, parents, transform, conditional, Net(inputs, conditional, self.widths) if parents else None)

    def discrete(self, column: Column, parents: tuple[Column, ...]) -> Any:
        """The mechanism of a discrete node."""
        from causal_gen.models.discrete_mechanism import Discrete, Table
        from causal_gen.nn.conditioner import Net

        assert column.categories is not None
        if not parents:
            return Discrete(column, parents)
        if self.name == "table":
            return Discrete(column, parents, Table(tuple(parent.width for parent in parents), column.categories))
        widths = () if self.name == "linear" else self.widths
        return Discrete(column, parents, Net(sum(parent.width for parent in parents), column.categories, widths))


@dataclasses.dataclass(frozen=True)
class StructuralConfig:
    """The model section of a config.

    graph: edges (parent, child) over the data's entries; `nodes` fixes their order and adds isolated ones. `mechanisms` names a mechanism
    for some nodes, {node: {"name": "additive", ..}}; the others have `default`. One node may be a picture [h, w, c], which is the last
    of the graph and has the mechanism `picture`.
    """

    name: str = "structural"
    graph: tuple[tuple[str, str], ...] = ()
    nodes: tuple[str, ...] = ()
    default: MechanismConfig = MechanismConfig()
    mechanisms: Mapping[str, MechanismConfig] = dataclasses.field(default_factory=dict)
    picture: PictureConfig = PictureConfig()

    def make(self, entries: Mapping[str, Entry], stats: Mapping[str, Any], sampling: Any, precision: str, remat: str) -> Any:
        """The model over a data source's entries. Raises `ConfigError`, with all problems at once."""
        from causal_gen.models.structural import Structural

        del sampling, precision, remat
        graph = Dag.from_edges(self.graph, self.nodes)
        chosen = {name: self.mechanisms.get(name, self.default) for name in graph.nodes}
        if problems := [*self._problems(graph, entries), *_kinds(self.mechanisms, self.default, graph, entries)]:
            raise ConfigError(problems)
        pictures = [name for name in graph.nodes if len(entries[name].shape) == 3]
        columns = {name: _column(name, entries[name], stats, chosen[name].scaling) for name in graph.nodes if name not in pictures}
        mechanisms = []
        for name in graph.order:
            if name in pictures:
                mechanisms.append(self._picture(name, entries[name], tuple(columns[parent] for parent in graph.parents(name))))
                continue
            make = chosen[name].discrete if columns[name].categories else chosen[name].real
            mechanisms.append(make(columns[name], tuple(columns[parent] for parent in graph.parents(name))))
        discrete = tuple(columns[name].categories if name in columns else None for name in graph.nodes)
        if not pictures:
            return Structural(graph, tuple(mechanisms), discrete)
        from causal_gen.models.pictured import Pictured

        return Pictured(graph, tuple(mechanisms), discrete, pictures[0])

    def _picture(self, name: str, entry: Entry, parents: tuple[Column, ...]) -> Any:
        """The mechanism of a picture."""
        from causal_gen.models.picture_mechanism import Picture

        h, w, channels = entry.shape
        return Picture(name, parents, (h, w, channels), self.picture)

    def _problems(self, graph: Dag, entries: Mapping[str, Entry]) -> list[str]:
        """What the graph and a data source disagree on, a line each."""
        if not graph.nodes:
            return ["model.graph: it has no nodes; give edges (parent, child), or model.nodes"]
        problems = []
        for name in graph.nodes:
            if name not in entries:
                problems.append(f"model.graph: node {name!r} is not in the data; its entries are {', '.join(entries)}")
            elif len(entries[name].shape) not in (0, 3):
                shape = entries[name].shape
                problems.append(f"model.graph: entry {name!r} has shape {shape}; a node is one number an example, or a picture [h, w, c]")
        problems += self._picture_problems(graph, entries)
        unknown = [name for name in self.mechanisms if name not in graph.nodes]
        problems += [f"model.mechanisms.{name}: no node of the graph; they are {', '.join(graph.nodes)}" for name in unknown]
        return problems

    def _picture_problems(self, graph: Dag, entries: Mapping[str, Entry]) -> list[str]:
        """What cannot be of a picture, a line each."""
        pictures = [name for name in graph.nodes if name in entries and len(entries[name].shape) == 3]
        if len(pictures) > 1:
            return [f"model.graph: {' and '.join(pictures)} are pictures; one of them can be a node"]
        problems = []
        for name in pictures:
            if children := graph.children(name):
                problems.append(
                    f"model.graph: {name!r} is a picture and has the child {children[0]!r}; turn the edge round, or leave it out"
                )
            level = self.picture.level
            if level is not None and level not in graph.parents(name):
                problems.append(
                    f"model.picture.level: {level!r} is no parent of {name!r}; they are {', '.join(graph.parents(name)) or 'none'}"
                )
            if name in self.mechanisms:
                problems.append(f"model.mechanisms.{name}: it is a picture; its mechanism is the section model.picture")
        return problems


def _kinds(named: Mapping[str, MechanismConfig], default: MechanismConfig, graph: Dag, entries: Mapping[str, Entry]) -> list[str]:
    """Nodes that cannot have the mechanism that they are given, a line each."""
    problems = []
    for name in graph.nodes:
        if name not in entries or entries[name].shape != ():
            continue
        found, where = (named[name], f"model.mechanisms.{name}.name") if name in named else (default, "model.default.name")
        discrete = entries[name].vocabulary is not None
        fits = name not in named or found.name in (*DISCRETE, "linear") if discrete else found.name in REAL
        if not fits:
            kind, known = ("discrete", DISCRETE) if discrete else ("a real number", REAL)
            problems.append(f"{where}: {found.name!r}, but {name!r} is {kind}; give one of {', '.join(known)}")
        real = [parent for parent in graph.parents(name) if parent in entries and entries[parent].vocabulary is None]
        if discrete and found.name == "table" and real:
            problems.append(f"{where}: 'table', but {real[0]!r}, a parent of {name!r}, is a real number; give 'discrete'")
    return problems


def _column(name: str, entry: Entry, stats: Mapping[str, Any], scaling: str) -> Column:
    if entry.vocabulary is not None:
        return Column(name, None, entry.vocabulary)
    try:
        return Column(name, Scaling.fit(scaling, stats[name], entry.low, entry.high))
    except ValueError as error:
        raise ConfigError(f"model.mechanisms.{name}.scaling: {error}") from error
