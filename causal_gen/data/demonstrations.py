"""Finding names as a text to be continued: sentences with their answers, one after another, the last answer being asked for.

    row = (sentence 0 answer) x shots, sentence 0 answer;   answer = (type name) for every mention, in order, then 1 to its end    (1)

A sentence is `items` stretches of `span` tokens of data/labelled.py; in each a name and its cue stand with probability `mentions`, else
fillers alone. The type of a mention is that of its cue, which comes after the name. Answers alone are scored, those of the demonstrations
too, up to the first 1. Who reads the sentence before it answers has seen every cue, and can always be right (best loss 0); a label put on a
name before its cue is seen is right as often as data/labelled.py, eq. 2, says.
Source: the set-up of Dukic et al. 2025 (SIFT). Letters: b batch, t position.
"""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np

from causal_gen.data.generated import stream
from causal_gen.data.labelled import TaggingConfig
from causal_gen.data.sequences import MARK, Drawn, Task
from causal_gen.types import Bool, Int, at_least, choice

END = 1  # of an answer
TYPES = 2  # type c is the token TYPES + c; behind the types come the words of the sentences


@dataclasses.dataclass(frozen=True)
class DemonstrationsConfig(Task):
    """Rows (1). `scored`: "answers", or "sentences" for a language model that has been taught no answers."""

    name: str = "demonstrations"
    shots: int = at_least(2, 0)
    cues: int = at_least(4, 2)
    entities: int = at_least(16, 1)
    fillers: int = at_least(12, 1)
    items: int = at_least(3, 1)
    span: int = at_least(4, 2)
    mentions: float = at_least(0.7, 0.0, 1.0)
    scored: str = choice("answers", "sentences")

    @property
    def answer(self) -> int:
        """Tokens that an answer has room for."""
        return 2 * self.items + 1

    @property
    def length(self) -> int:
        return (self.shots + 1) * (self.items * self.span + 1 + self.answer)

    @property
    def tokens(self) -> int:
        return TYPES + 2 * self.cues + self.entities + self.fillers

    @property
    def end(self) -> int:
        """The token that ends an answer."""
        return END

    def prompt(self, tokens: Int[np.ndarray, "b t"]) -> Int[np.ndarray, "b p"]:
        """All but the last answer."""
        return tokens[:, : self.length - self.answer]

    def sentence(self, tokens: Int[np.ndarray, "b t"]) -> Int[np.ndarray, "b w"]:
        """The last sentence, of which names are asked."""
        last = self.length - self.answer - 1
        return tokens[:, last - self.items * self.span : last]

    def types(self) -> Bool[np.ndarray, "v"]:
        """Which tokens are types."""
        found = np.zeros(self.tokens, bool)
        found[TYPES : TYPES + self.cues] = True
        return found

    def parsed(self, answer: Int[np.ndarray, "n"], sentence: Int[np.ndarray, "w"]) -> Counter | None:
        """The (type, name) pairs of an answer; None where it is no list of types with words of the sentence, or does not end."""
        ends = np.flatnonzero(answer == END)
        body = answer[: ends[0]] if len(ends) else answer
        pairs = body.reshape(-1, 2) if len(ends) and len(body) % 2 == 0 else np.zeros((1, 2), answer.dtype)
        known = self.types()[pairs[:, 0]] & np.isin(pairs[:, 1], sentence)
        return Counter(map(tuple, pairs.tolist())) if known.all() else None

    def draw(self, split: str) -> Drawn:
        num, several = self.count(split), self.shots + 1
        words = TaggingConfig(
            seed=self.seed, cues=self.cues, entities=self.entities, fillers=self.fillers, items=self.items, span=self.span,
            size=self.size * several, test_size=self.test_size * several,
        )  # fmt: skip
        drawn, rng = words.draw(split), stream(self.seed, 0xDE0, split)
        shape = (num * several, self.items)
        said = drawn["tokens"].reshape(*shape, self.span)
        mentioned = rng.random(shape) < self.mentions
        fillers = self.cues + self.entities + rng.integers(0, self.fillers, said.shape)
        silent = ~mentioned[..., None] & (said < self.cues + self.entities)
        said = TYPES + self.cues + np.where(silent, fillers, said)
        marks = drawn["labels"].reshape(said.shape)
        where = marks.argmax(-1)[..., None]
        pairs = np.concatenate([TYPES + np.take_along_axis(marks, where, -1) - 1, np.take_along_axis(said, where, -1)], -1)
        order = np.argsort(~mentioned, axis=1, kind="stable")[..., None]  # what is mentioned comes first
        pairs = np.where(np.take_along_axis(mentioned[..., None], order, 1), np.take_along_axis(pairs, order, 1), END)
        answers = np.concatenate([pairs.reshape(len(pairs), -1), np.full((len(pairs), 1), END)], 1)
        sentences = np.concatenate([said.reshape(len(said), -1), np.full((len(said), 1), MARK)], 1)
        told = np.arange(self.answer) <= 2 * mentioned.sum(1, keepdims=True)
        scored = (
            [np.zeros(sentences.shape, bool), told] if self.scored == "answers" else [np.ones(sentences.shape, bool), np.zeros_like(told)]
        )
        tokens, mask = (np.concatenate(parts, 1).reshape(num, -1) for parts in ([sentences, answers], scored))
        return tokens.astype(np.int32), mask.astype(np.float32)
