"""Fields of a structural causal model: the graph, and what mechanism each node has."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from causal_gen.process.gaussian import GaussianProcess
from causal_gen.scm.marginal import SCALINGS, Scaling
from causal_gen.scm.mechanism import Column, Line, Monotone
from causal_gen.scm.transform import Affine, Spline
from causal_gen.structure.graph import Dag
from causal_gen.types import ConfigError, Entry, at_least, choice

REAL = ("linear", "additive", "location_scale", "spline", "diffusion", "vae")
DISCRETE = ("discrete", "table")


@dataclasses.dataclass(frozen=True)
class MechanismConfig:
    """A node's mechanism, for a real node

    linear           a line in the parents and normal noise; fitted by least squares
    additive         a network of `widths` in the parents, plus noise: normal, or with `noise` "spline" of a law that is learned
    location_scale   mean and scale of normal noise from a network
    spline           a monotone spline of `bins` bins on [-bound, bound] standard deviations, all its numbers from a network
    diffusion        a conditional diffusion of `timesteps` steps, inverted by DDIM in `sampling.steps` (and `sampling.refine` sweeps)
    vae              a conditional variational autoencoder of `latents` entries: a bound for a likelihood

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
    timesteps: int = at_least(100, 10)
    latents: int = at_least(4, 1)
    scaling: str = choice("standard", *(kind for kind in SCALINGS if kind != "standard"))

    def real(self, column: Column, parents: tuple[Column, ...], sampling: Any) -> Any:
        """The mechanism of a real node; `sampling` says how one is drawn that takes steps."""
        inputs = sum(parent.width for parent in parents)
        if self.name == "linear":
            return Monotone(column, parents, Affine(), 1 if parents else 0, Line(inputs) if parents else None)
        from causal_gen.nn.conditioner import Net  # networks are imported when one is built

        if self.name == "diffusion":
            from causal_gen.models.diffusion_mechanism import TIME, Diffusion

            process = GaussianProcess(self.timesteps, prediction="v")
            net = Net(1 + TIME + inputs, 1, self.widths)
            return Diffusion(column, parents, net, process, min(sampling.steps, self.timesteps), sampling.refine)
        if self.name == "vae":
            from causal_gen.models.vae_mechanism import Variational

            encoder, decoder = Net(1 + inputs, 2 * self.latents, self.widths), Net(self.latents + inputs, 1, self.widths)
            return Variational(column, parents, self.latents, encoder, decoder)
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
    for some nodes, {node: {"name": "additive", ..}}; the others have `default`. `joint` makes one masked autoregressive flow of all nodes,
    which are real: splines as in `default`, the widths being units a node.
    """

    name: str = "structural"
    graph: tuple[tuple[str, str], ...] = ()
    nodes: tuple[str, ...] = ()
    default: MechanismConfig = MechanismConfig()
    mechanisms: Mapping[str, MechanismConfig] = dataclasses.field(default_factory=dict)
    joint: bool = False

    def __post_init__(self):
        if self.joint and (self.mechanisms or self.default.name not in ("spline", "location_scale") or len(set(self.default.widths)) != 1):
            raise ConfigError("joint: one flow has no mechanisms of single nodes, a default 'spline' or 'location_scale', and equal widths")

    def make(self, entries: Mapping[str, Entry], stats: Mapping[str, Any], sampling: Any, precision: str, remat: str) -> Any:
        """The model over a data source's entries. Raises `ConfigError`, with all problems at once."""
        from causal_gen.models.structural import Structural

        del precision, remat
        graph = Dag.from_edges(self.graph, self.nodes)
        chosen = {name: self.mechanisms.get(name, self.default) for name in graph.nodes}
        if problems := [*self._problems(graph, entries), *_kinds(self.mechanisms, self.default, graph, entries)]:
            raise ConfigError(problems)
        columns = {name: _column(name, entries[name], stats, chosen[name].scaling) for name in graph.nodes}
        if self.joint:
            return Structural(graph, (self._flow(graph, columns),), (None,) * len(graph.nodes))
        mechanisms = []
        for name in graph.order:
            parents = tuple(columns[parent] for parent in graph.parents(name))
            discrete = columns[name].categories is not None
            made = chosen[name].discrete(columns[name], parents) if discrete else chosen[name].real(columns[name], parents, sampling)
            mechanisms.append(made)
        return Structural(graph, tuple(mechanisms), tuple(columns[name].categories for name in graph.nodes))

    def _flow(self, graph: Dag, columns: Mapping[str, Column]) -> Any:
        from causal_gen.models.masked_flow import MaskedFlow

        transform = Spline(self.default.bins, self.default.bound) if self.default.name == "spline" else Affine()
        return MaskedFlow(graph, tuple(columns[name] for name in graph.nodes), transform, self.default.widths[0], len(self.default.widths))

    def _problems(self, graph: Dag, entries: Mapping[str, Entry]) -> list[str]:
        """What the graph and a data source disagree on, a line each."""
        if not graph.nodes:
            return ["model.graph: it has no nodes; give edges (parent, child), or model.nodes"]
        problems = []
        for name in graph.nodes:
            if name not in entries:
                problems.append(f"model.graph: node {name!r} is not in the data; its entries are {', '.join(entries)}")
            elif entries[name].shape != ():
                problems.append(f"model.graph: entry {name!r} has shape {entries[name].shape}; a node is one number an example")
        if discrete := [name for name in graph.nodes if self.joint and name in entries and entries[name].vocabulary is not None]:
            problems.append(f"model.joint: {discrete[0]!r} is discrete; a flow is over real nodes, set joint to false")
        unknown = [name for name in self.mechanisms if name not in graph.nodes]
        problems += [f"model.mechanisms.{name}: no node of the graph; they are {', '.join(graph.nodes)}" for name in unknown]
        return problems


def _kinds(named: Mapping[str, MechanismConfig], default: MechanismConfig, graph: Dag, entries: Mapping[str, Entry]) -> list[str]:
    """Nodes that cannot have the mechanism that they are given, a line each."""
    problems = []
    for name in graph.nodes:
        if name not in entries:
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
