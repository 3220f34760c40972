"""Fields of a causal transformer: what a config may say about it beyond its blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from causal_gen.nn.precision import Policy
from causal_gen.nn.transformer_config import TransformerConfig
from causal_gen.sampling.truncation import DecodingConfig
from causal_gen.structure import expression
from causal_gen.types import ConfigError, Entry, at_least


@dataclasses.dataclass(frozen=True)
class CacheConfig:
    """What decoding keeps (sampling/cache.py): every token, the last `slots` (ring), or `slots` chosen by score (evict).

    `slots` 0 makes room for the whole text. Merged latents (transformer.latent.stride) bring a cache of their own.
    """

    kind: str = dataclasses.field(default="append", metadata={"choices": ("append", "ring", "evict")})
    slots: int = dataclasses.field(default=0, metadata={"min": 0})


@dataclasses.dataclass(frozen=True)
class WeightsConfig:
    """Weights of the squared normaliser (losses/categorical.py, eq. 2) and of the balance of experts (nn/experts.py, eq. 2)."""

    z: float = at_least(0.0, 0.0)
    balance: float = at_least(0.01, 0.0)


@dataclasses.dataclass(frozen=True)
class CausalTransformerConfig:
    """The model section of a config.

    visibility: who sees whom, as in structure/masks.py: "causal() & same_document()".  tokens: the entry that is generated.
    classes: integer entries [b] that condition it; `drop` is the share of examples trained without them, needed by sampling.omega.
    capture: layers whose hidden states and attention `conditionals` returns, for the probes of an evaluation (evaluate/probes.py).
    """

    name: str = "causal_transformer"
    tokens: str = "tokens"
    visibility: str = "causal()"
    classes: tuple[str, ...] = ()
    drop: float = at_least(0.0, 0.0, 1.0)
    capture: tuple[int, ...] = ()
    transformer: TransformerConfig = TransformerConfig()
    weights: WeightsConfig = WeightsConfig()
    cache: CacheConfig = CacheConfig()

    def __post_init__(self):
        expression.read(self.visibility)
        if self.cache.kind != "append" and not self.cache.slots:
            raise ConfigError(f"cache.kind={self.cache.kind} needs a number of slots; set cache.slots")
        if self.stride > 1 and self.cache != CacheConfig():
            raise ConfigError("transformer.latent.stride above 1 merges tokens in a cache of its own; leave the section cache as it is")
        if any(not 0 <= layer < self.transformer.layers for layer in self.capture):
            raise ConfigError(f"capture {self.capture} names a layer outside 0..{self.transformer.layers - 1}")

    @property
    def stride(self) -> int:
        """Tokens that share a slot of the cache."""
        return self.transformer.latent.stride if self.transformer.attention == "latent" else 1

    def make(self, entries: Mapping[str, Entry], stats: Mapping[str, Any], sampling: DecodingConfig, precision: str, remat: str) -> Any:
        """The model over a data source's entries. Raises `ConfigError`, with all problems at once."""
        from causal_gen.models.causal_transformer import CausalTransformer  # networks are imported when one is built

        del stats
        if problems := self._problems(entries, sampling):
            raise ConfigError(problems)
        transformer = dataclasses.replace(self.transformer, remat=self.transformer.remat or remat != "none")
        values = [entries[name].vocabulary for name in (self.tokens, *self.classes)]
        vocabulary, *classes = (int(value) for value in values if value is not None)
        length = entries[self.tokens].shape[0]
        return CausalTransformer(self, transformer, length, vocabulary, tuple(classes), sampling, Policy.parse(precision))

    def _problems(self, entries: Mapping[str, Entry], sampling: DecodingConfig) -> list[str]:
        """What this config and a data source disagree on, a line each."""
        problems = []
        for key, name, rank in (("tokens", self.tokens, 1), *(("classes", name, 0) for name in self.classes)):
            entry = entries.get(name)
            if entry is None:
                problems.append(f"model.{key}: entry {name!r} is not in the data; its entries are {', '.join(entries)}")
            elif entry.vocabulary is None or len(entry.shape) != rank:
                what = "a sequence of tokens" if rank else "one token an example"
                problems.append(f"model.{key}: entry {name!r} has shape {entry.shape} and vocabulary {entry.vocabulary}; it must be {what}")
            elif rank and self.transformer.position == "learned" and self.transformer.length < entry.shape[0]:
                problems.append(f"model.transformer.length: {self.transformer.length} positions for texts of {entry.shape[0]}; raise it")
        if sampling.omega != 1 and not (self.drop and self.classes):
            problems.append(
                f"sampling.omega: {sampling.omega} needs a model trained without its classes now and then; "
                "set model.classes and model.drop and train, or omega to 1"
            )
        return problems
