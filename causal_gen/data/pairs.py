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

from causal_gen.data.sequences import stream
from causal_gen.data.text import token_entries
from causal_gen.scm.intervention import Acts, Intervention
from causal_gen.types import Entry, Int, at_least

Rows = tuple[np.ndarray, np.ndarray]  # two texts, i32 [n, t]


@dataclasses.dataclass(frozen=True)
class PairsConfig:
    """Eq. (1): tokens are words, then languages. `root` is taken as by every source; nothing is read there."""

    name: str = "pairs"
    root: str | None = None
    size: int = at_least(20_000, 1)
    test_size: int = at_least(1_000, 1)
    seed: int = at_least(0, 0)
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

    def draw(self, split: str) -> Rows:
        """All rows of a split."""
        num = self.size if split == "train" else self.test_size
        dictionary = np.argsort(stream(self.seed, 0x9A0).random((self.languages, self.concepts)), 1)
        every = stream(self.seed, 0x9A1, split).random((num, self.concepts)).argsort(1)  # the meaning first, then what is not of it
        language = stream(self.seed, 0x9A2, split).random((num, self.languages)).argsort(1)[:, :2]
        texts = []
        for side in range(2):
            rng = stream(self.seed, 0x9A3 + side, split)
            own, beyond = every[:, : self.words], every[:, self.words : 2 * self.words]
            meaning = np.sort(np.where(rng.random((num, self.words)) < self.noise, beyond, own), 1)
            words = dictionary[language[:, side, None], meaning]
            texts.append(np.concatenate([words, self.concepts + language[:, side, None]], 1).astype(np.int32))
        return texts[0], texts[1]

    def make(self) -> Pairs:
        """The source, its rows in memory."""
        return Pairs(self, {split: self.draw(split) for split in ("train", "test")})


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
    """The source of (1)."""

    config: PairsConfig
    rows: Mapping[str, Rows]

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def entries(self) -> Mapping[str, Entry]:
        return self.config.entries

    def size(self, split: str) -> int:
        return len(self.rows[split][0])

    def gather(self, split: str, indices: Int[np.ndarray, "b"]) -> dict[str, np.ndarray]:
        """The rows at `indices`."""
        tokens, partner = (part[indices] for part in self.rows[split])
        return {"tokens": tokens, "loss_mask": np.ones(tokens.shape, np.float32), "partner": partner}

    def stats(self) -> dict[str, Any]:
        """The size of the vocabulary."""
        return {"tokens": {"vocabulary": self.config.vocabulary}}

    def truth(self, split: str, indices: Int[np.ndarray, "b"], do: Intervention | Acts | None) -> None:
        """Unknown: rows have laws, not mechanisms with a noise of their own."""
        del split, indices, do
