"""Fields of a codebook transformer: what a config may say about it beyond its blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from causal_gen.models.hybrid_transformer_config import ObjectiveConfig
from causal_gen.nn.precision import Policy
from causal_gen.nn.transformer_config import TransformerConfig
from causal_gen.sampling.truncation import DecodingConfig
from causal_gen.types import ConfigError, Entry, at_least


@dataclasses.dataclass(frozen=True)
class CodebookTransformerConfig:
    """The model section of a config.

    tokens: the entry with the codes, step after step, `codebooks` a step.  offsets: how many steps later each codebook is told (empty:
    0, 1, 2, .., so that a code knows those of lower codebooks of its step).
    spans, shortest, longest: so many runs of so many steps are moved to the end and told last; a share `plain` of the rows has none.
    right: what follows a span is seen; without it a span is told from the left alone (spans=1).
    codebook_weights: of the loss of each codebook (empty: 1).
    """

    name: str = "codebook_transformer"
    tokens: str = "tokens"
    codebooks: int = at_least(4, 1)
    offsets: tuple[int, ...] = dataclasses.field(default=(), metadata={"min": 0})
    spans: int = at_least(1, 1)
    shortest: int = at_least(2, 1)
    longest: int = at_least(8, 1)
    plain: float = at_least(0.1, 0.0, 1.0)
    right: bool = True
    codebook_weights: tuple[float, ...] = dataclasses.field(default=(), metadata={"min": 0.0})
    transformer: TransformerConfig = TransformerConfig()

    def __post_init__(self):
        for name in ("offsets", "codebook_weights"):
            if getattr(self, name) and len(getattr(self, name)) != self.codebooks:
                raise ConfigError(f"{name}: {len(getattr(self, name))} for {self.codebooks} codebooks; give each one, or none")
        if self.codebook_weights and not sum(self.codebook_weights):
            raise ConfigError("codebook_weights: they sum to zero; give one codebook a weight")
        if not self.right and self.spans > 1:
            raise ConfigError(f"right=false with {self.spans} spans: what is to the right of one is to the left of another; set spans to 1")
        if self.transformer.experts > 1 or self.transformer.gates or self.transformer.places:
            raise ConfigError("transformer: experts, gates and places of rows or frames are not for codebooks; leave them off")
        self.moved.__post_init__()  # its own bounds

    @property
    def late(self) -> tuple[int, ...]:
        """Steps by which each codebook is delayed."""
        return self.offsets or tuple(range(self.codebooks))

    @property
    def moved(self) -> ObjectiveConfig:
        """The spans, as an objective of spans draws them."""
        return ObjectiveConfig("span", spans=self.spans, shortest=self.shortest, longest=self.longest)

    def make(self, entries: Mapping[str, Entry], stats: Mapping[str, Any], sampling: Any, precision: str, remat: str) -> Any:
        """The model over a data source's entries. Raises `ConfigError`, with all problems at once."""
        from causal_gen.models.codebook_transformer import CodebookTransformer  # networks are imported when one is built

        del stats
        if problems := self._problems(entries, sampling):
            raise ConfigError(problems)
        entry, transformer = entries[self.tokens], dataclasses.replace(self.transformer, remat=remat)
        return CodebookTransformer(self, transformer, entry.shape[0], int(entry.vocabulary or 0), sampling, Policy.parse(precision))

    def _problems(self, entries: Mapping[str, Entry], sampling: DecodingConfig) -> list[str]:
        """What this config and a data source disagree on, a line each."""
        entry = entries.get(self.tokens)
        if entry is None:
            return [f"model.tokens: entry {self.tokens!r} is not in the data; its entries are {', '.join(entries)}"]
        if entry.vocabulary is None or len(entry.shape) != 1:
            return [f"model.tokens: entry {self.tokens!r} has shape {entry.shape} and vocabulary {entry.vocabulary}; it must be codes"]
        problems, steps = [], entry.shape[0] // self.codebooks
        if entry.shape[0] % self.codebooks:
            problems.append(f"model.codebooks: {entry.shape[0]} tokens are no whole steps of {self.codebooks}; set the codec's number")
        if self.longest > steps // self.spans:
            problems.append(f"model.longest: {self.spans} spans of up to {self.longest} in {steps} steps; lower longest or spans")
        if sampling.omega != 1 or sampling.repetition != 1:
            problems.append("sampling: omega and repetition are about texts with classes and one token a step; leave them at 1")
        if self.transformer.position == "learned":
            problems.append("model.transformer.position: learned places would be those of arranged slots; set it to rope")
        return problems
