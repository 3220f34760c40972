"""Descriptions and the programs that they ask for: calls in words, first to last, and the same as code, from the outermost call inwards.

    w_1 w_1' a_1  ..  w_n w_n' a_n  _ ..  0   f_n b_n  ..  f_1 b_1  E  _ ..                                                  (1)

A call applies one of `operations` with one of `numbers`. Its operation f is said by two different words w, w' out of its own `synonyms`,
its number b by a word a, one of two; each is drawn uniform. So of every pair of words one can be told from the other but for its synonym,
and every description has one program. n is uniform in 1 .. calls; 0 is MARK, E the end, _ a blank. The program up to its end is scored;
its best loss is 0.

The task is this project's own, after the pairs of descriptions and functions of Christopoulou et al., PanGu-Coder (2022).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from causal_gen.data.generated import stream
from causal_gen.data.sequences import MARK, Drawn, Task
from causal_gen.types import at_least

END, BLANK, FIRST = 1, 2, 3  # the words of operations begin at FIRST, then come those of numbers, operations and numbers of code


@dataclasses.dataclass(frozen=True)
class ProgramsConfig(Task):
    """Pairs (1) of up to `calls` calls."""

    name: str = "programs"
    calls: int = at_least(4, 1)
    operations: int = at_least(12, 1)
    synonyms: int = at_least(4, 2)
    numbers: int = at_least(5, 1)

    @property
    def described(self) -> int:
        """Tokens of a description, blanks among them."""
        return 3 * self.calls

    @property
    def length(self) -> int:
        return self.described + 1 + 2 * self.calls + 1

    @property
    def tokens(self) -> int:
        return FIRST + self.operations * (self.synonyms + 1) + 3 * self.numbers

    def draw(self, split: str) -> Drawn:
        num = self.count(split)
        rng = stream(self.seed, 0x9C0, split)
        count = rng.integers(1, self.calls + 1, (num, 1))
        operation = rng.integers(0, self.operations, (num, self.calls))
        number = rng.integers(0, self.numbers, (num, self.calls))
        words = rng.random((num, self.calls, self.synonyms)).argsort(-1)[..., :2]
        spelled = rng.integers(0, 2, (num, self.calls))
        spoken = FIRST + self.operations * self.synonyms  # words of numbers, then code
        code = spoken + 2 * self.numbers
        said = [FIRST + operation * self.synonyms + words[..., 0], FIRST + operation * self.synonyms + words[..., 1]]
        said = np.stack([*said, spoken + 2 * number + spelled], -1).reshape(num, -1)
        said = np.where(np.arange(self.described)[None] < 3 * count, said, BLANK)
        call = np.stack([code + operation, code + self.operations + number], -1)
        at = count - 1 - np.arange(self.calls)[None]  # the last call is the outermost
        written = np.take_along_axis(call, np.maximum(at, 0)[..., None], 1).reshape(num, -1)
        place = np.arange(2 * self.calls + 1)[None] - 2 * count
        written = np.where(place < 0, np.pad(written, ((0, 0), (0, 1))), np.where(place == 0, END, BLANK))
        tokens = np.concatenate([said, np.full((num, 1), MARK), written], 1).astype(np.int32)
        counted = np.concatenate([np.zeros((num, self.described + 1), bool), place <= 0], 1)
        return tokens, counted.astype(np.float32)
