"""Fields of a bidirectional model with a causal prior."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from causal_gen.models.diffusion_ae_config import EncoderConfig
from causal_gen.scm.block import BlockScm
from causal_gen.scm.marginal import Marginal, Scaling
from causal_gen.structure.graph import Dag
from causal_gen.types import ConfigError, Entry, at_least


@dataclasses.dataclass(frozen=True)
class BidirectionalConfig:
    """The model section of a config.

    graph: edges (parent, child) over the data's factors; `nodes` fixes their order and adds isolated ones.
    spare: entries of the code that are no factor's, for what else is to be seen.
    supervised: lambda of eq. (5).  penalty: of the critic's slope, eq. (3).  clip: the ratio of eq. (4) is kept within 1 / clip and clip.
    pace: the critic's learning rate over that of the others.
    """

    name: str = "bidirectional"
    graph: tuple[tuple[str, str], ...] = ()
    nodes: tuple[str, ...] = ()
    image: str = "image"
    spare: int = at_least(2, 1)
    mechanism_widths: tuple[int, ...] = (64, 64)
    encoder: EncoderConfig = EncoderConfig()
    generator_widths: tuple[int, ...] = at_least((256, 512), 1)
    critic_widths: tuple[int, ...] = at_least((512, 256), 1)
    supervised: float = at_least(5.0, 0)
    penalty: float = at_least(1.0, 0)
    clip: float = at_least(2.0, 1)
    pace: float = at_least(1.0, 0)

    def make(self, entries: Mapping[str, Entry], stats: Mapping[str, Any], sampling: Any, precision: str, remat: str) -> Any:
        """The model over a data source's entries. Raises `ConfigError`, with all problems of names at once."""
        from causal_gen.models.bidirectional import Bidirectional  # networks are imported when one is built

        del sampling, precision, remat
        factors = Dag.from_edges(self.graph, self.nodes)
        known = ", ".join(sorted(stats))
        problems = [
            f"model.graph: factor {name!r} is not in the data; its factors are {known}"
            for name in factors.nodes
            if name not in entries or name not in stats
        ]
        if self.image not in entries or len(entries[self.image].shape) != 3:
            problems.append(f"model.image: {self.image!r} is no picture of the data; its entries are {', '.join(entries)}")
        if self.encoder.norm == "batch":
            problems.append("model.encoder.norm: 'batch' would couple the examples of the loss; use 'group'")
        if problems:
            raise ConfigError(problems)
        scalings = tuple(Scaling.fit("standard", stats[n], entries[n].low, entries[n].high) for n in factors.nodes)
        marginals = tuple(
            None if factors.parents(n) else Marginal.fit(stats[n]["quantiles"], scaling)
            for n, scaling in zip(factors.nodes, scalings, strict=True)
        )
        h, w, channels = entries[self.image].shape
        return Bidirectional(self, BlockScm(factors, 1, scalings, marginals), (h, w, channels))
