"""Fields of a hybrid transformer: its objectives, and how they are mixed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from causal_gen.models.causal_transformer_config import CacheConfig, CausalTransformerConfig
from causal_gen.models.mixing import MixerConfig
from causal_gen.process.masking import Schedule, SubTokens, check_mask
from causal_gen.structure import expression
from causal_gen.structure.visibility import Visibility
from causal_gen.types import ConfigError, Entry, at_least, choice

SEEN = {"prefix": "causal() | prefix()", "described": "causal()", "span": "causal()", "permuted": "skip_causal()"}  # the others: full()
MADE = {**dict.fromkeys(("prefix", "described", "span"), ("prefix",)), "permuted": ("block", "noisy", "position")}  # the others: valid
FILLED = ("masked", "any_order", "diffusion", "permuted")  # kinds that say what stands at masked places, whatever the others are


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """One way to train the stack; models/objectives.py says what each kind predicts from what.

    next       every token from those before it, under the model's own visibility
    masked     a share of the tokens, low to high (drawn a row), from the others; `span`: hidden in runs of about so many; a share of the
               hidden ones is `kept` as it is, and one is `noise`: another token of the data
    any_order  any number of tokens, uniform, with the weight of ARDM; order "identity": always the last so many
    diffusion  those that a noising process with `schedule` has masked by a random time; with `parts`, digit by digit (Prime)
    prefix     a share of the tokens at the end, low to high, one after the other, from a start that sees itself whole
    described  what is scored, one token after the other, and a share of what stands before it, low to high, which is masked (PanGu-Coder,
               Christopoulou et al. 2022, sec. 3); with hides="all" every token one after the other, scored or not
    span       `spans` runs of `shortest` to `longest` tokens, moved to the end, and with `rest` the others too, one after the other (CM3);
               `placed`: all keep the positions that they have in the row (as pseudo-masks do), else they are numbered as they are read
    permuted   a share of the tokens, low to high, each from the rest and those before it in a random order, in one run of twice the slots;
               order "identity": as they stand (pseudo-masks of s2s-ft)
    visibility: who sees whom; "" is that of the kind.  shifted: token i is predicted where token i - 1 stands, as next tokens are (MNTP).
    hides: only scored tokens are hidden, or all.  share: of the mixture.  weight: of its loss.
    """

    kind: str = choice("next", "masked", "any_order", "diffusion", "prefix", "described", "span", "permuted")
    name: str = ""
    visibility: str = ""
    shifted: bool = False
    share: float = at_least(1.0, 0.0)
    weight: float = at_least(1.0, 0.0)
    low: float = at_least(0.15, 0.0, 1.0)
    high: float = at_least(0.15, 0.0, 1.0)
    span: int = at_least(1, 1)
    kept: float = at_least(0.0, 0.0, 1.0)
    noise: float = at_least(0.0, 0.0, 1.0)
    hides: str = choice("scored", "all")
    order: str = choice("random", "identity")
    schedule: Schedule = Schedule()
    parts: int = at_least(1, 1)
    spans: int = at_least(1, 1)
    shortest: int = at_least(32, 1)
    longest: int = at_least(64, 1)
    rest: bool = True
    placed: bool = False

    def __post_init__(self):
        if self.low > self.high:
            raise ConfigError(f"{self.called}: low={self.low} is above high={self.high}; exchange them")
        if self.kept + self.noise > 1:
            raise ConfigError(f"{self.called}: kept={self.kept} and noise={self.noise} are more than all hidden tokens; lower them")
        if self.shortest > self.longest:
            raise ConfigError(f"{self.called}: shortest={self.shortest} is above longest={self.longest}; exchange them")
        if self.kind == "next" and self.visibility:
            raise ConfigError(f"{self.called}: next tokens are read by model.visibility, as decoding does; set that instead")
        if self.shifted and self.kind not in ("masked", "any_order", "diffusion", "described"):
            raise ConfigError(f"{self.called}: shifted is about masks; kind={self.kind} has its own place to predict from, set it to false")
        if self.kind == "described" and not self.shifted:
            raise ConfigError(f"{self.called}: a described token is predicted where the one before it stands; set shifted to true")
        if self.kind == "span" and self.rest and "prefix" in self.seen.fields:
            raise ConfigError(f"{self.called}: {self.visibility!r} shows the rest, which rest=true wants predicted; set rest to false")
        if self.placed and self.kind != "span":
            raise ConfigError(f"{self.called}: placed is about spans that are moved; kind={self.kind} moves none, set it to false")
        if self.parts > 1 and (self.kind != "diffusion" or self.schedule.kind == "learned"):
            raise ConfigError(f"{self.called}: parts={self.parts} are digits of diffusion under one schedule; set parts to 1")

    @property
    def called(self) -> str:
        """Its name."""
        return self.name or self.kind

    @property
    def seen(self) -> Visibility:
        """Who sees whom; of next tokens the model says it."""
        return expression.read(self.visibility or SEEN.get(self.kind, "full()"))

    @property
    def made(self) -> tuple[str, ...]:
        """Fields that it makes itself."""
        return (*MADE.get(self.kind, ("valid",)), *(("position",) if self.placed else ()))

    def slots(self, length: int) -> int:
        """Places that a row of `length` tokens takes."""
        return {"next": length, "span": length + 2 * self.spans, "permuted": 2 * length + 1}.get(self.kind, length + 1)


@dataclasses.dataclass(frozen=True)
class HybridTransformerConfig(CausalTransformerConfig):
    """The model section of a config: that of a causal transformer, and

    objectives, mixer: what it is trained for (models/mixing.py).  drawn: the objective by which it is drawn and scored ("": the first);
    next tokens are drawn left to right, masked ones as the section sampling says (sampling/unmask_config.py).
    mask: the token of the data that stands for what is hidden; it has to be one that the data reserves (none: a token of its own).
    draws: calls of the network a row that a bound on the likelihood takes; `coupled` ones are pairs of complementary masks, so that a pair
    hides every token once (DiffuCoder).
    """

    name: str = "hybrid_transformer"
    objectives: tuple[ObjectiveConfig, ...] = (ObjectiveConfig(),)
    mixer: MixerConfig = MixerConfig()
    drawn: str = ""
    mask: int | None = None
    draws: int = at_least(8, 1)
    coupled: bool = False

    def __post_init__(self):
        super().__post_init__()
        names = [objective.called for objective in self.objectives]
        if not names:
            raise ConfigError("objectives: there are none; give at least one, such as {'kind': 'next'}")
        if len(set(names)) < len(names):
            raise ConfigError(f"objectives: two have one name among {', '.join(names)}; set name")
        self.mixer.check(self.shares)
        if self.drawn and self.drawn not in names:
            raise ConfigError(f"drawn: there is no objective {self.drawn!r}; they are {', '.join(names)}")
        if self.way.kind not in ("next", *FILLED):
            raise ConfigError(f"drawn: {self.way.called!r} says nothing of a whole row; name one of the kinds next, {', '.join(FILLED)}")
        if self.coupled and self.draws % 2:
            raise ConfigError(f"coupled draws come in pairs, and draws={self.draws} is odd; give an even number")
        schedule = self.way.schedule
        if self.coupled and (self.way.kind != "diffusion" or self.way.parts > 1 or schedule.kind != "linear" or schedule.steps):
            raise ConfigError(
                f"coupled draws are of diffusion over whole tokens under a linear schedule in continuous time, and {self.way.called!r} is "
                "not that; set coupled to false"
            )
        if self.prefixes or self.latents or self.capture or self.transformer.experts > 1 or self.transformer.gates:
            raise ConfigError("prefixes, latents, capture, experts and gates are about next tokens alone; leave them off")
        if self.cache != CacheConfig() or self.stride > 1:
            raise ConfigError("cache: a hybrid keeps every token; leave the section cache and latent.stride as they are")

    @property
    def shares(self) -> tuple[float, ...]:
        """Of the objectives in the mixture."""
        return tuple(objective.share for objective in self.objectives)

    @property
    def way(self) -> ObjectiveConfig:
        """The objective by which the model is drawn."""
        return next((objective for objective in self.objectives if objective.called == self.drawn), self.objectives[0])

    def objective(self, name: str) -> ObjectiveConfig:
        """The objective of that name, "" for the one that draws. Raises `ConfigError` for an unknown one."""
        if not name:
            return self.way
        for objective in self.objectives:
            if objective.called == name:
                return objective
        raise ConfigError(f"query: there is no objective {name!r}; they are {', '.join(o.called for o in self.objectives)}")

    def _family(self) -> Any:
        from causal_gen.models.hybrid_transformer import HybridTransformer  # networks are imported when one is built

        return HybridTransformer

    def _problems(self, entries: Mapping[str, Entry], sampling: Any) -> list[str]:
        problems = super()._problems(entries, sampling)
        if problems:
            return problems
        entry = entries[self.tokens]
        length, vocabulary = entry.shape[0], entry.vocabulary or 0
        if self.mask is not None:
            try:
                check_mask(self.mask, int(entry.high if entry.high is not None else vocabulary - 1) + 1)
            except ConfigError as error:
                problems.append(f"model.{error}")
            if not 0 <= self.mask < vocabulary:
                problems.append(f"model.mask: {self.mask} is no token of the data's vocabulary of {vocabulary}; leave it none")
        for objective in self.objectives:
            where = f"model.objectives: {objective.called}"
            slots = objective.slots(length)
            if self.transformer.position == "learned" and self.transformer.length < slots:
                problems.append(f"{where} takes {slots} places; raise model.transformer.length")
            if objective.kind == "span" and objective.longest > length // objective.spans:
                problems.append(f"{where}: {objective.spans} spans of up to {objective.longest} in {length} tokens; lower longest or spans")
            if objective.parts > 1:
                try:
                    SubTokens(vocabulary, objective.parts)
                except ConfigError as error:
                    problems.append(f"{where}: {error}")
        if self.way.kind != "next":
            try:
                sampling.budget(length)
            except ConfigError as error:
                problems.append(str(error))
        return problems
