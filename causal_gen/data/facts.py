"""Facts of a made-up world: a subject has one object in each relation, which is told in several wordings. For probing what a model knows.

    fact (s, r)  ->  o(s, r), uniform among the `objects` objects of relation r, drawn once for the set                        (1)
    a row        s  w  o  END,   w one of the `wordings` wordings of r                                                           (2)

The wording w = (s + r) mod wordings of a fact is shown by no row. It is what a model is asked in: among the statements (2) with each
object of the relation, which is the likeliest? A wording says no more than its relation, so that who has learned the facts from the other
wordings is always right; who has not is right once in `objects`. `phase` tells the facts of the first or the second half of the
relations alone, so that a run that goes on from another shows what it forgets; statements are of all relations, whatever the phase.

Source: BEAR, Wiland et al. 2024; over phases: Ploner et al., LM-PUB-QUIZ, 2024. Letters: n rows, t places.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from causal_gen.data.generated import Columns, Generated, Rows, stream
from causal_gen.data.statements import Statements
from causal_gen.data.text import token_entries
from causal_gen.data.tokenizer import END
from causal_gen.types import Entry, Float, Int, at_least, choice

LENGTH = 4  # eq. (2)


@dataclasses.dataclass(frozen=True)
class FactsConfig(Generated):
    """Eq. (1) and (2). Tokens are END, then subjects, wordings by relation, and objects by relation."""

    name: str = "facts"
    size: int = at_least(20_000, 1)
    test_size: int = at_least(1_000, 1)
    subjects: int = at_least(50, 1)
    relations: int = at_least(4, 1)
    objects: int = at_least(10, 2)
    wordings: int = at_least(3, 2)
    phase: str = choice("all", "first", "second")

    def __post_init__(self):
        if self.phase != "all" and self.relations < 2:
            raise ValueError(f"phase={self.phase} tells half of the relations, there is {self.relations}; raise relations")

    @property
    def length(self) -> int:
        return LENGTH

    @property
    def vocabulary(self) -> int:
        return 1 + self.subjects + self.relations * (self.wordings + self.objects)

    @property
    def entries(self) -> Mapping[str, Entry]:
        return token_entries(LENGTH, self.vocabulary, "a subject, a wording of a relation, an object, and the end")

    @property
    def told(self) -> Int[np.ndarray, "r"]:
        """The relations that the rows are of."""
        half = self.relations // 2
        return {"all": np.arange(self.relations), "first": np.arange(half), "second": np.arange(half, self.relations)}[self.phase]

    @functools.cached_property
    def answers(self) -> Int[np.ndarray, "s r"]:
        """Eq. (1): the number of the true object among those of its relation."""
        return stream(self.seed, 0xFA0).integers(0, self.objects, (self.subjects, self.relations))

    def spell(self, subject: Any, relation: Any, wording: Any, answer: Any) -> Int[np.ndarray, "... t"]:
        """Eq. (2) as tokens."""
        first = 1 + self.subjects
        words = first + relation * self.wordings + wording
        things = first + self.relations * self.wordings + relation * self.objects + answer
        parts = np.broadcast_arrays(1 + subject, words, things, END)
        return np.stack(parts, -1).astype(np.int32)

    def draw(self, split: str) -> dict[str, np.ndarray]:
        """Rows with their masks: every token is scored."""
        num, rng = self.count(split), stream(self.seed, 0xFA1, split)
        subject, relation = rng.integers(0, self.subjects, num), self.told[rng.integers(0, len(self.told), num)]
        wording = (subject + relation + 1 + rng.integers(0, self.wordings - 1, num)) % self.wordings
        tokens = self.spell(subject, relation, wording, self.answers[subject, relation])
        return {"tokens": tokens, "loss_mask": np.ones(tokens.shape, np.float32)}

    def facts(self, rows: Mapping[str, Columns]) -> dict[str, Any]:
        """The size of the vocabulary."""
        del rows
        return {"tokens": {"vocabulary": self.vocabulary}}

    def make(self) -> Facts:
        return Facts(self, {split: self.draw(split) for split in ("train", "test")})


@dataclasses.dataclass(frozen=True, eq=False)
class Facts(Rows):
    """The source."""

    def best(self, split: str, indices: Int[np.ndarray, "b"]) -> Float[np.ndarray, "b"]:
        """-log p of a row, of which subject, relation and wording are chance and the rest is known."""
        del split
        return np.full(len(indices), math.log(self.config.subjects * len(self.config.told) * (self.config.wordings - 1)))

    def statements(self) -> dict[str, Statements]:
        """Every fact of every relation in the wording that no row shows, with each object of the relation in its place."""
        c, found = self.config, {}
        subject = np.arange(c.subjects)
        for relation in range(c.relations):
            wording = (subject + relation) % c.wordings
            tokens = c.spell(subject[:, None], relation, wording[:, None], np.arange(c.objects)[None])
            mask = np.ones(tokens.shape, np.float32)
            found[f"relation {relation}"] = Statements(tokens, mask, c.answers[:, relation].astype(np.int32))
        return found
