"""What the unmasking of a masked model is told; a field of the model, so that abduct and predict always use the same."""

from __future__ import annotations

import dataclasses

from causal_gen.sampling.truncation import DecodingConfig
from causal_gen.types import ConfigError, at_least
from causal_gen.types import choice as one_of


@dataclasses.dataclass(frozen=True)
class UnmaskConfig(DecodingConfig):
    """Which places are filled when (sampling/policies.py), in at most `steps` calls of the network; 0: one place a call.

    policy: which come first: random ones, those whose drawn token is likeliest (confidence), whose two likeliest tokens differ most
    (margin), whose law has the least entropy, or those that come first in `order`, a permutation of all places (empty: left to right).
    counts: how many a step: equally many (even), few at first (cosine), 1, 2, 4, .. (ascending), as many as chance has it under the
    model's own noising process (ancestral), or the numbers `plan`, as sampling/planner.py finds them.
    choice: temperature of the Gumbel noise on a policy's score, falling to 0 over the steps.
    block: places are filled block by block of so many, left to right, each in its share of the steps (0: all are one block).
    remask: share of the places filled before that are emptied again after each step but the last, the least certain first.
    end, reject: a score whose drawn token is `end` counts, as a probability, only `reject` times at first, rising to 1 over the steps, so
    that a text does not end before it has been written.
    window: > 0, with policy=order: so many masks stand at a time, that of the place to be filled and those right after it, and behind them
    `end`, so that a model of short gaps writes a text of any length (generative BERT).
    The tokens themselves are drawn as `temperature`, `top_k`, `top_p`, `min_p` and `omega` say.
    """

    policy: str = one_of("random", "confidence", "margin", "entropy", "order")
    counts: str = one_of("even", "cosine", "ascending", "ancestral", "plan")
    steps: int = at_least(0, 0)
    order: tuple[int, ...] = ()
    plan: tuple[int, ...] = ()
    choice: float = at_least(0.0, 0.0)
    block: int = at_least(0, 0)
    remask: float = at_least(0.0, 0.0, 1.0)
    end: int | None = dataclasses.field(default=None, metadata={"min": 0})
    reject: float = at_least(1.0, 0.0, 1.0)
    window: int = at_least(0, 0)

    def __post_init__(self):
        super().__post_init__()
        if self.repetition != 1:
            raise ConfigError(f"sampling.repetition: {self.repetition} reads what came before, places are filled in any order; set 1")
        if sorted(self.order) != list(range(len(self.order))):
            raise ConfigError(f"sampling.order: not a permutation of 0..{len(self.order) - 1}: {spell(self.order)}; name every place once")
        if self.order and self.policy != "order":
            raise ConfigError(f"sampling.order: is read by policy=order alone, not by {self.policy}; leave it empty, or set the policy")
        if self.counts == "ancestral" and (self.policy != "random" or self.remask):
            raise ConfigError("sampling.counts: ancestral steps leave which places come to chance; set policy=random and remask=0")
        if bool(self.plan) != (self.counts == "plan"):
            raise ConfigError(f"sampling.plan: {spell(self.plan)} with counts={self.counts}; counts=plan and its numbers come together")
        if self.plan and (min(self.plan) < 1 or self.block):
            raise ConfigError(f"sampling.plan: {spell(self.plan)} must hold numbers from 1 on, for all places at once (block=0)")
        if self.plan and self.steps not in (0, len(self.plan)):
            raise ConfigError(f"sampling.steps: {self.steps} steps for a plan of {len(self.plan)}; leave it at 0")
        if self.reject != 1 and (self.end is None or self.policy not in ("confidence", "margin", "entropy")):
            raise ConfigError("sampling.reject: needs an end token and a policy that scores tokens; set sampling.end and sampling.policy")
        if self.window and (
            self.end is None or self.policy != "order" or self.order or self.steps or self.plan or self.remask or self.block
        ):
            raise ConfigError(
                f"sampling.window: {self.window} masks go on from left to right, one place a call, up to an end; set policy=order and an "
                "end, and leave order, steps, plan, remask and block as they are"
            )

    def budget(self, length: int) -> int:
        """Calls of the network for rows of `length` places. Raises `ConfigError` where the config does not fit them."""
        blocks = self.blocks(length)
        steps = len(self.plan) or self.steps or length
        if steps > length:
            raise ConfigError(f"sampling.steps: {steps} are more than the {length} places to fill; lower it, or 0 for one a step")
        if steps < blocks:
            raise ConfigError(f"sampling.steps: {steps} steps for {blocks} blocks of {self.block} places; give each block a step at least")
        if self.order and len(self.order) != length:
            raise ConfigError(f"sampling.order: {len(self.order)} places, but rows have {length}; name every place once")
        if self.plan and sum(self.plan) != length:
            raise ConfigError(f"sampling.plan: fills {sum(self.plan)} places, but rows have {length}; plan for that many")
        return steps

    def blocks(self, length: int) -> int:
        """Blocks of a row."""
        return -(-length // self.block) if self.block else 1


def spell(numbers: tuple[int, ...]) -> str:
    """The first of them, for a message."""
    return ",".join(map(str, numbers[:8])) + (", .." if len(numbers) > 8 else "") or "nothing"
