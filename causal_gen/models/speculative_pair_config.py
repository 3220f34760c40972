"""Fields of a speculative pair: a target, a draft, and the tree of candidates between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from causal_gen.models.causal_transformer_config import CausalTransformerConfig
from causal_gen.sampling.speculative import Tree
from causal_gen.sampling.truncation import DecodingConfig
from causal_gen.types import ConfigError, Entry, at_least


@dataclasses.dataclass(frozen=True)
class SpeculativePairConfig:
    """The model section of a config: two causal transformers over the same tokens, and the tree of candidates between them.

    `branches` candidates below each node of a level; a tree goes on where its best path has a chance of `least`: its probability under the
    draft, or with `decision`, the width of a head that learns it (nn/acceptance.py), the chance that it is accepted.
    """

    name: str = "speculative_pair"
    target: CausalTransformerConfig = CausalTransformerConfig()
    draft: CausalTransformerConfig = CausalTransformerConfig()
    branches: tuple[int, ...] = (2, 2, 1)
    least: float = at_least(0.0, 0.0, 1.0)
    decision: int = at_least(0, 0)

    def __post_init__(self):
        Tree(self.branches, self.least)
        if self.target.tokens != self.draft.tokens:
            raise ConfigError(f"draft.tokens is {self.draft.tokens!r}, the target's {self.target.tokens!r}; they write one text")
        for name, side in (("target", self.target), ("draft", self.draft)):
            if side.classes:
                raise ConfigError(f"{name}.classes: a speculative pair writes unconditioned texts; leave them empty")
            if side.cache.kind != "append" or side.stride > 1:
                raise ConfigError(
                    f"{name}: a tree of candidates is taken back from a cache that appends; leave cache and stride as they are"
                )

    def make(self, entries: Mapping[str, Entry], stats: Mapping[str, Any], sampling: DecodingConfig, precision: str, remat: str) -> Any:
        """The model over a data source's entries. Raises `ConfigError`, with all problems at once."""
        from causal_gen.models.speculative_pair import SpeculativePair  # networks are imported when one is built

        if sampling.repetition != 1:
            raise ConfigError("sampling.repetition: a node's law would hang on its path; set it to 1 for a speculative pair")
        target, draft = (side.make(entries, stats, sampling, precision, remat) for side in (self.target, self.draft))
        if fields := sorted({*target.context, *draft.context}):
            raise ConfigError(f"model: a visibility of the pair reads {fields[0]!r}, which a speculative text does not have; leave it out")
        return SpeculativePair(self, target, draft)
