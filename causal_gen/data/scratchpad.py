"""Arithmetic with its working: terms, running sums, perhaps the result again and again, the end of the working, the answer.

    x_1 .. x_n  _ ..  0  s_1 .. s_n  s_n ..  E  s_n  _ ..        s_i = x_1 + .. + x_i  mod base                            (1)

n is uniform in 2 .. terms; 0 is MARK, _ a blank, E the terminator; what follows 0 is scored, up to the answer, or, with `padded`, to the
end. The result is restated r times, a working that goes on when all is said; r is uniform in 0 .. restated and all that cannot be known,
so that the best loss of a row is log(restated + 1). With restated 0 every step is needed, since a model that is asked at once has learned
no more than to copy the sum so far. Source: Nye et al. 2021 (scratchpads); Li et al. 2025 (ThinkLess) for what may be cut.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from causal_gen.data.generated import stream
from causal_gen.data.sequences import MARK, Drawn, Task
from causal_gen.types import Float, Int, at_least

END, BLANK, DIGITS = 1, 2, 3  # digit d is the token DIGITS + d


@dataclasses.dataclass(frozen=True)
class ScratchpadConfig(Task):
    """Sums (1) of up to `terms` digits in `base`, the result restated up to `restated` times before the working ends.

    padded: the blanks at the end are scored too, so that a model that fills in has to find where a text ends.
    """

    name: str = "scratchpad"
    terms: int = at_least(6, 2)
    base: int = at_least(10, 2)
    restated: int = at_least(0, 0)
    padded: bool = False

    @property
    def length(self) -> int:
        return self.question + self.terms + self.restated + 2

    @property
    def tokens(self) -> int:
        return DIGITS + self.base

    @property
    def question(self) -> int:
        """Tokens up to the mark."""
        return self.terms + 1

    @property
    def terminator(self) -> int:
        """The token that ends the working."""
        return END

    def working(self, tokens: Int[np.ndarray, "b t"]) -> Int[np.ndarray, "b"]:
        """Tokens between the mark and the terminator."""
        return np.argmax(tokens == END, 1) - self.question

    def answers(self, tokens: Int[np.ndarray, "b t"]) -> Int[np.ndarray, "b"]:
        """The token after the terminator."""
        return np.take_along_axis(tokens, np.argmax(tokens == END, 1)[:, None] + 1, 1)[:, 0]

    def draw(self, split: str) -> Drawn:
        num = self.count(split)
        rng = stream(self.seed, 0x5C, split)
        count = rng.integers(2, self.terms + 1, (num, 1))
        terms = rng.integers(0, self.base, (num, self.terms))
        again = rng.integers(0, self.restated + 1, (num, 1))
        place = np.arange(self.terms + self.restated + 2)[None] - count - again  # of what follows the mark, from the terminator on
        sums = np.where(np.arange(self.terms) < count, terms, 0).cumsum(1) % self.base  # goes on with s_n
        sums = DIGITS + np.concatenate([sums, np.repeat(sums[:, -1:], self.restated + 2, 1)], 1)
        written = np.select([place < 0, place == 0, place == 1], [sums, END, sums[:, -1:]], BLANK)
        asked = np.where(np.arange(self.terms) < count, DIGITS + terms, BLANK)
        tokens = np.concatenate([asked, np.full((num, 1), MARK), written], 1).astype(np.int32)
        scored = np.concatenate([np.zeros((num, self.question), bool), (place < 2) | self.padded], 1)
        return tokens, scored.astype(np.float32)

    def best(self, tokens: Int[np.ndarray, "b t"]) -> Float[np.ndarray, "b"]:
        return np.full(len(tokens), np.log(self.restated + 1))
