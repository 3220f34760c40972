"""Fields of a labeller: what a config may say about it beyond the stack that reads the inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from causal_gen.models.causal_transformer_config import WeightsConfig
from causal_gen.models.encoding_config import EncodingConfig
from causal_gen.types import ConfigError, Entry


@dataclasses.dataclass(frozen=True)
class LabelSampling:
    """How labels are drawn: from softmax(logits / temperature)."""

    temperature: float = 1.0

    def __post_init__(self):
        if not self.temperature > 0:
            raise ConfigError(f"sampling.temperature: must be positive, got {self.temperature}")


@dataclasses.dataclass(frozen=True)
class LabellerConfig(EncodingConfig):
    """The model section of a config, beyond what models/encoding_config.py says.

    labels: the entry that is told, one label an input [t] or one an example [b].
    """

    name: str = "labeller"
    labels: str = "labels"
    weights: WeightsConfig = WeightsConfig()

    def make(self, entries: Mapping[str, Entry], stats: Mapping[str, Any], sampling: LabelSampling, precision: str, remat: str) -> Any:
        """The model over a data source's entries. Raises `ConfigError`, with all problems at once."""
        from causal_gen.models.labeller import Labeller  # networks are imported when one is built

        del stats
        problems, entry = self.encoding_problems(entries), entries.get(self.labels)
        if entry is None:
            problems.append(f"model.labels: entry {self.labels!r} is not in the data; its entries are {', '.join(entries)}")
        elif entry.vocabulary is None or not problems and entry.shape not in ((), entries[self.inputs].shape[:1]):
            what = "one of a number of classes, an input or an example"
            problems.append(
                f"model.labels: entry {self.labels!r} has shape {entry.shape}, vocabulary {entry.vocabulary}; it must be {what}"
            )
        elif entry.shape and self.resampler.queries:
            problems.append(f"model.labels: entry {self.labels!r} has a label an input, and a resampler reads them away; set queries to 0")
        if problems or entry is None or entry.vocabulary is None:
            raise ConfigError(problems)
        return Labeller(self, self.encoding(entries, precision, remat), entry.vocabulary, bool(entry.shape), sampling)
