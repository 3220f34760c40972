"""Fields of an embedder: what a config may say about it beyond the stack that reads the inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from causal_gen.models.encoding_config import EncodingConfig
from causal_gen.types import ConfigError, Entry, at_least, choice


@dataclasses.dataclass(frozen=True)
class EmbedderConfig(EncodingConfig):
    """The model section of a config, beyond what models/encoding_config.py says.

    partner: the entry that belongs to the inputs and is of their kind.
    temperature: of the contrastive loss.  hard: so many negatives of a batch, the hardest (0: all).
    """

    name: str = "embedder"
    partner: str = "partner"
    pool: str = choice("mean", "last", "slot")
    temperature: float = at_least(0.05, 1e-3)
    hard: int = at_least(0, 0)

    def __post_init__(self):
        super().__post_init__()
        if self.resampler.diversity:
            raise ConfigError("resampler.diversity is a part of the loss of a labeller, not of an embedder; leave it at 0")

    def make(self, entries: Mapping[str, Entry], stats: Mapping[str, Any], sampling: Any, precision: str, remat: str) -> Any:
        """The model over a data source's entries. Raises `ConfigError`, with all problems at once."""
        from causal_gen.models.embedder import Embedder  # networks are imported when one is built

        del stats, sampling
        problems = self.encoding_problems(entries)
        one, other = entries.get(self.inputs), entries.get(self.partner)
        if other is None:
            problems.append(f"model.partner: entry {self.partner!r} is not in the data; its entries are {', '.join(entries)}")
        elif one is not None and (one.shape, one.vocabulary) != (other.shape, other.vocabulary):
            problems.append(f"model.partner: entry {self.partner!r} is not of the kind of {self.inputs!r}; give two entries of one kind")
        if problems:
            raise ConfigError(problems)
        return Embedder(self, self.encoding(entries, precision, remat))
