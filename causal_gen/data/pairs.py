"""Pairs of texts that say the same in two languages, where only the last word tells which language it was: retrieval with hard negatives.

    a meaning is `words` concepts of `concepts`, in ascending order;  language L writes concept c as word pi_L(c), pi_L a permutation
    a text is the words of its language, a share `noise` of its concepts replaced by others, and then the language itself        (1)

All languages use the same words, so that a word means nothing before its language is known. Texts of one row are of two languages, with
noise of their own. The first by itself is a language model's text: order makes languages tell-tale. Letters: n rows, t tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from causal_gen.data.generated import Columns, Generated, choose, stream
from causal_gen.data.text import token_entries
from causal_gen.types import Entry, at_least


@dataclasses.dataclass(frozen=True)
class PairsConfig(Generated):
    """Eq. (1): tokens are words, then languages."""

    name: str = "pairs"
    concepts: int = at_least(32, 2)
    words: int = at_least(12, 1)
    languages: int = at_least(4, 2)
    noise: float = at_least(0.25, 0.0, 1.0)

    def __post_init__(self):
        if 2 * self.words > self.concepts:
            raise ValueError(f"words={self.words} need twice as many concepts, there are {self.concepts}; raise concepts")

    @property
    def length(self) -> int:
        return self.words + 1

    @property
    def vocabulary(self) -> int:
        return self.concepts + self.languages

    @property
    def entries(self) -> Mapping[str, Entry]:
        """Two texts, and which tokens of the first a language model is scored on (all)."""
        partner = Entry((self.length,), "int32", "", 0.0, self.vocabulary - 1.0, "the same in another language", self.vocabulary)
        return {**token_entries(self.length, self.vocabulary, "words of a language, and the language"), "partner": partner}

    def draw(self, split: str) -> dict[str, np.ndarray]:
        """The first texts with the mask of what is scored (all), and their partners."""
        num = self.count(split)
        dictionary = np.argsort(stream(self.seed, 0x9A0).random((self.languages, self.concepts)), 1)
        every = stream(self.seed, 0x9A1, split).random((num, self.concepts)).argsort(1)  # the meaning first, then what is not of it
        language = choose(stream(self.seed, 0x9A2, split), num, self.languages, 2)
        texts = []
        for side in range(2):
            rng = stream(self.seed, 0x9A3 + side, split)
            own, beyond = every[:, : self.words], every[:, self.words : 2 * self.words]
            meaning = np.sort(np.where(rng.random((num, self.words)) < self.noise, beyond, own), 1)
            words = dictionary[language[:, side, None], meaning]
            texts.append(np.concatenate([words, self.concepts + language[:, side, None]], 1).astype(np.int32))
        return {"tokens": texts[0], "loss_mask": np.ones(texts[0].shape, np.float32), "partner": texts[1]}

    def facts(self, rows: Mapping[str, Columns]) -> dict[str, Any]:
        """The size of the vocabulary."""
        del rows
        return {"tokens": {"vocabulary": self.vocabulary}}
