"""Fields of a causal transformer: what a config may say about it beyond its blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from causal_gen.nn.precision import Policy
from causal_gen.nn.transformer_config import TransformerConfig
from causal_gen.sampling.truncation import DecodingConfig
from causal_gen.structure import expression
from causal_gen.types import ConfigError, Entry, at_least, choice


@dataclasses.dataclass(frozen=True)
class CacheConfig:
    """What decoding keeps (sampling/cache.py): every token, the last `slots` (ring), or `slots` chosen by score (evict).

    reread: the tokens alone, which are read anew at every step (models/rereading.py), as a visibility that is not causal needs.
    score: what evict goes by (models/retaining.py): age, the attention received so far, or what heads that learn it expect to come; the
    last `recent` tokens are never evicted.
    `slots` 0 makes room for the whole text. Merged latents (transformer.latent.stride) bring a cache of their own.
    """

    kind: str = dataclasses.field(default="append", metadata={"choices": ("append", "ring", "evict", "reread")})
    slots: int = dataclasses.field(default=0, metadata={"min": 0})
    score: str = choice("age", "attention", "learned")
    recent: int = at_least(0, 0)

    def __post_init__(self):
        if self.score != "age" and self.kind != "evict":
            raise ConfigError(f"cache.score={self.score} says what is evicted, and cache.kind={self.kind} goes by age; set it to evict")
        if self.recent and self.score == "age":
            raise ConfigError(f"cache.recent={self.recent} keeps the last tokens, which score age does anyway; choose another score")
        if self.recent and self.recent >= self.slots:
            raise ConfigError(f"cache.recent={self.recent} leaves nothing to evict among {self.slots} slots; lower it")


@dataclasses.dataclass(frozen=True)
class WeightsConfig:
    """Weights of the squared normaliser (losses/categorical.py, eq. 2), of the balance of experts (nn/experts.py, eq. 2), and of the
    number of keys that a slot sees where it has gates (transformer.gates)."""

    z: float = at_least(0.0, 0.0)
    balance: float = at_least(0.01, 0.0)
    seen: float = at_least(0.01, 0.0)


@dataclasses.dataclass(frozen=True)
class CausalTransformerConfig:
    """The model section of a config.

    visibility: who sees whom, as in structure/masks.py: "causal() & same_document()".  tokens: the entry that is generated.
    prefixes: the last so many tokens are predicted, each by a run of the stack on the slots up to its own and nothing else, so that the
    visibility need not be causal (models/rereading.py); those before are never scored, their logits are 0. 0: one run for all.
    latents: Perceiver AR: the last so many of all slots go on after the first layer, which reads the whole text; they alone are scored,
    logits before them are 0. Later layers see latents only, by a cache too, whose room is that of the whole text. 0: all slots go on.
    classes: integer entries [b] that condition it; `drop` is the share of examples trained without them, needed by sampling.omega.
    capture: layers whose hidden states and attention `conditionals` returns, for the probes of an evaluation (evaluate/probes.py).
    """

    name: str = "causal_transformer"
    tokens: str = "tokens"
    visibility: str = "causal()"
    prefixes: int = at_least(0, 0)
    latents: int = at_least(0, 0)
    classes: tuple[str, ...] = ()
    drop: float = at_least(0.0, 0.0, 1.0)
    capture: tuple[int, ...] = ()
    transformer: TransformerConfig = TransformerConfig()
    weights: WeightsConfig = WeightsConfig()
    cache: CacheConfig = CacheConfig()

    def __post_init__(self):
        if "gate" in expression.read(self.visibility).fields and not self.transformer.gates:
            raise ConfigError(f"visibility {self.visibility!r} reads gates, which nobody makes; set transformer.gates to the text's length")
        if self.cache.kind in ("ring", "evict") and not self.cache.slots:
            raise ConfigError(f"cache.kind={self.cache.kind} needs a number of slots; set cache.slots")
        if self.stride > 1 and self.cache != CacheConfig():
            raise ConfigError("transformer.latent.stride above 1 merges tokens in a cache of its own; leave the section cache as it is")
        if self.prefixes and self.cache.kind != "reread":
            raise ConfigError(f"prefixes={self.prefixes}: what a slot says changes with every token after it; set cache.kind to reread")
        if self.prefixes and (self.capture or self.transformer.experts > 1 or self.transformer.gates):
            raise ConfigError("prefixes: capture, experts and gates are about one run of the stack; leave them empty, at 1 and at 0")
        if self.latents and (self.prefixes or self.capture):
            raise ConfigError("latents: only some slots reach the later layers; leave capture empty and prefixes at 0")
        if any(not 0 <= layer < self.transformer.layers for layer in self.capture):
            raise ConfigError(f"capture {self.capture} names a layer outside 0..{self.transformer.layers - 1}")

    @property
    def stride(self) -> int:
        """Tokens that share a slot of the cache."""
        return self.transformer.latent.stride if self.transformer.attention == "latent" else 1

    def _family(self) -> Any:
        """The class of the model."""
        from causal_gen.models.causal_transformer import CausalTransformer  # networks are imported when one is built
        from causal_gen.models.retaining import RetainingTransformer

        return CausalTransformer if self.cache.score == "age" else RetainingTransformer

    def make(self, entries: Mapping[str, Entry], stats: Mapping[str, Any], sampling: Any, precision: str, remat: str) -> Any:
        """The model over a data source's entries. Raises `ConfigError`, with all problems at once."""
        del stats
        if problems := self._problems(entries, sampling):
            raise ConfigError(problems)
        transformer = dataclasses.replace(self.transformer, remat=remat)
        values = [entries[name].vocabulary for name in (self.tokens, *self.classes)]
        vocabulary, *classes = (int(value) for value in values if value is not None)
        length = entries[self.tokens].shape[0]
        return self._family()(self, transformer, length, vocabulary, tuple(classes), sampling, Policy.parse(precision))

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
            elif rank and self.latents > entry.shape[0]:
                problems.append(f"model.latents: {self.latents} latents for texts of {entry.shape[0]} tokens; lower it")
            elif rank and 0 < self.transformer.gates < entry.shape[0]:
                problems.append(f"model.transformer.gates: {self.transformer.gates} places for texts of {entry.shape[0]}; raise it")
            elif rank and self.transformer.position == "learned" and self.transformer.length < entry.shape[0]:
                problems.append(f"model.transformer.length: {self.transformer.length} positions for texts of {entry.shape[0]}; raise it")
        if sampling.omega != 1 and not (self.drop and self.classes):
            problems.append(
                f"sampling.omega: {sampling.omega} needs a model trained without its classes now and then; "
                "set model.classes and model.drop and train, or omega to 1"
            )
        return problems
