"""Arithmetic with its working: terms, running sums, perhaps the result again and again, the end of the working, the answer.

    x_1 .. x_n  _ ..  0  s_1 .. s_n  s_n ..  E  F  s_n  _ ..        s_i = x_1 + .. + x_i  mod base                         (1)

n is uniform in 2 .. terms; 0 is MARK, _ a blank, E the terminator; what follows 0 is scored, up to the answer. The result is restated r
times, a working that goes on when all is said; r is uniform in 0 .. restated and all that cannot be known, so that the best loss of a row
is log(restated + 1). With restated 0 every step is needed, since a model that is asked at once has learned no more than to copy the sum so
far. With `formats` f > 1 F is one of f instructions, at random, and the answer is written in the alphabet of that format, of which the
working says nothing (log f more to the best loss); with one there is no F.
Source: Nye et al. 2021 (scratchpads); Li et al. 2025 (ThinkLess) for what may be cut and what is then put in.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from causal_gen.data.generated import stream
from causal_gen.data.sequences import MARK, Drawn, Task
from causal_gen.types import Bool, Float, Int, at_least

END, BLANK, DIGITS = 1, 2, 3  # digit d is the token DIGITS + d; behind the digits come the instructions, then the digits of other formats


@dataclasses.dataclass(frozen=True)
class ScratchpadConfig(Task):
    """Sums (1) of up to `terms` digits in `base`, the result restated up to `restated` times before the working ends,
    and the answer in one of `formats`."""

    name: str = "scratchpad"
    terms: int = at_least(6, 2)
    base: int = at_least(10, 2)
    restated: int = at_least(0, 0)
    formats: int = at_least(1, 1)

    @property
    def length(self) -> int:
        return self.question + self.terms + self.restated + 1 + len(self.closing)

    @property
    def tokens(self) -> int:
        return DIGITS + self.formats * self.base + (self.formats if self.formats > 1 else 0)

    @property
    def question(self) -> int:
        """Tokens up to the mark."""
        return self.terms + 1

    @property
    def closing(self) -> tuple[int, ...]:
        """The token that ends the working, and where there are formats the instruction that asks for the last of them."""
        return (END,) if self.formats == 1 else (END, DIGITS + self.base + self.formats - 1)

    def working(self, tokens: Int[np.ndarray, "b t"]) -> Int[np.ndarray, "b"]:
        """Tokens between the mark and the terminator."""
        return np.argmax(tokens == END, 1) - self.question

    def answers(self, tokens: Int[np.ndarray, "b t"]) -> Int[np.ndarray, "b"]:
        """The token where the answer stands."""
        return np.take_along_axis(tokens, np.argmax(tokens == END, 1)[:, None] + len(self.closing), 1)[:, 0]

    def asked(self, tokens: Int[np.ndarray, "b t"]) -> Int[np.ndarray, "b"]:
        """The right answer in the format that `closing` asks for, from true rows."""
        last = np.take_along_axis(tokens, np.argmax(tokens == END, 1)[:, None] - 1, 1)[:, 0]
        return self._written(last - DIGITS, self.formats - 1)

    def formatted(self, answers: Int[np.ndarray, "b"]) -> Bool[np.ndarray, "b"]:
        """Whether answers, right or wrong, are in the format that `closing` asks for."""
        first = self._written(0, self.formats - 1)
        return (answers >= first) & (answers < first + self.base)

    def _written(self, digit: Any, form: Any) -> Any:
        """The token of a digit in a format."""
        return DIGITS + digit + np.where(np.asarray(form) > 0, self.formats + self.base * form, 0)

    def draw(self, split: str) -> Drawn:
        num = self.count(split)
        rng = stream(self.seed, 0x5C, split)
        count = rng.integers(2, self.terms + 1, (num, 1))
        terms = rng.integers(0, self.base, (num, self.terms))
        again = rng.integers(0, self.restated + 1, (num, 1))
        form = rng.integers(0, self.formats, (num, 1))
        # of what follows the mark, counted from the terminator on
        place = np.arange(self.terms + self.restated + 1 + len(self.closing))[None] - count - again
        sums = np.where(np.arange(self.terms) < count, terms, 0).cumsum(1) % self.base  # goes on with s_n
        working = DIGITS + np.concatenate([sums, np.repeat(sums[:, -1:], place.shape[1] - self.terms, 1)], 1)
        answer = self._written(sums[:, -1:], form)
        ending = [END, answer] if self.formats == 1 else [END, DIGITS + self.base + form, answer]
        written = np.select([place < 0, *(place == i for i in range(len(ending)))], [working, *ending], BLANK)
        asked = np.where(np.arange(self.terms) < count, DIGITS + terms, BLANK)
        tokens = np.concatenate([asked, np.full((num, 1), MARK), written], 1).astype(np.int32)
        scored = np.concatenate([np.zeros((num, self.question), bool), place < len(ending)], 1)
        return tokens, scored.astype(np.float32)

    def best(self, tokens: Int[np.ndarray, "b t"]) -> Float[np.ndarray, "b"]:
        return np.full(len(tokens), np.log(self.restated + 1) + np.log(self.formats))
