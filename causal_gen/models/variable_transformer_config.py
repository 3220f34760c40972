"""Fields of a transformer over variables: what a config may say about it beyond its blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from causal_gen.nn.precision import Policy
from causal_gen.nn.transformer_config import TransformerConfig
from causal_gen.scm.marginal import Scaling
from causal_gen.structure.graph import Dag
from causal_gen.types import ConfigError, Entry


@dataclasses.dataclass(frozen=True)
class VariableTransformerConfig:
    """The model section of a config.

    graph: edges (parent, child) over the data's entries; `nodes` fixes their order and adds isolated ones.
    """

    name: str = "variable_transformer"
    graph: tuple[tuple[str, str], ...] = ()
    nodes: tuple[str, ...] = ()
    transformer: TransformerConfig = TransformerConfig(position="none")

    def __post_init__(self):
        if self.transformer.position != "none":
            raise ConfigError(f"variables have names, not places: transformer.position is {self.transformer.position!r}; set it to 'none'")
        if self.transformer.experts > 1:
            raise ConfigError(f"transformer.experts={self.transformer.experts} need a loss that balances them; set it to 1")

    def make(self, entries: Mapping[str, Entry], stats: Mapping[str, Any], sampling: Any, precision: str, remat: str) -> Any:
        """The model over a data source's entries. Raises `ConfigError`, with all problems at once."""
        from causal_gen.models.variable_transformer import VariableTransformer  # networks are imported when one is built

        del sampling
        graph = Dag.from_edges(self.graph, self.nodes)
        if problems := _problems(graph, entries):
            raise ConfigError(problems)
        transformer = dataclasses.replace(self.transformer, remat=remat)
        values = tuple(entries[name].vocabulary for name in graph.nodes)
        scalings = tuple(None if entries[name].vocabulary else Scaling.fit("standard", stats[name], None, None) for name in graph.nodes)
        return VariableTransformer(self, transformer, graph, values, scalings, Policy.parse(precision))


def _problems(graph: Dag, entries: Mapping[str, Entry]) -> list[str]:
    """What the graph and a data source disagree on, a line each."""
    if not graph.nodes:
        return ["model.graph: it has no nodes; give edges (parent, child), or model.nodes"]
    problems = []
    for name in graph.nodes:
        if name not in entries:
            problems.append(f"model.graph: node {name!r} is not in the data; its entries are {', '.join(entries)}")
        elif entries[name].shape != ():
            problems.append(f"model.graph: entry {name!r} has shape {entries[name].shape}; a variable is one number an example")
    return problems
