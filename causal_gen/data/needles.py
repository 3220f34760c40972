"""A few tokens that will be asked for, in a haystack that will not: what a bounded cache has to know how to keep.

    h h n(k_1, v_1) h n(k_2, v_2) h h ..  0  ?(k_i) v_i  ?(k_j) v_j ..                                                     (1)

h are uniform and mean nothing; a needle n(k, v) is one token that says a kind and its value, kinds distinct, at random places; ?(k) asks
for one. The values after 0 are scored, and can be known: the best loss is 0. Which tokens matter is written on them, how long ago they
came is not. Source: the needle in a haystack of Kamradt 2023, with several needles as in Hsieh et al. 2024 (RULER).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from causal_gen.data.generated import choose, stream
from causal_gen.data.sequences import MARK, Drawn, Task, scored
from causal_gen.types import at_least


@dataclasses.dataclass(frozen=True)
class NeedlesConfig(Task):
    """Texts (1): `needles` of `kinds` x `values` among `haystack` tokens, the rest of `fillers`; `queries` of them are asked for."""

    name: str = "needles"
    kinds: int = at_least(8, 1)
    values: int = at_least(8, 1)
    fillers: int = at_least(16, 1)
    needles: int = at_least(6, 1)
    queries: int = at_least(4, 1)
    haystack: int = at_least(48, 1)

    def __post_init__(self):
        if self.needles > min(self.kinds, self.haystack):
            raise ValueError(f"needles={self.needles} need as many kinds and places, there are {self.kinds} and {self.haystack}")
        if self.queries > self.needles:
            raise ValueError(f"queries={self.queries} ask more than the {self.needles} needles; raise needles")

    @property
    def length(self) -> int:
        return self.haystack + 1 + 2 * self.queries

    @property
    def tokens(self) -> int:
        return self.asking + self.kinds + self.values

    @property
    def asking(self) -> int:
        """The first token that asks; those before it are the mark, fillers and needles, those after it values."""
        return 1 + self.fillers + self.kinds * self.values

    def draw(self, split: str) -> Drawn:
        num = self.count(split)
        rng = stream(self.seed, 0x4EED, split)
        kinds = choose(rng, num, self.kinds, self.needles)
        values = rng.integers(0, self.values, kinds.shape)
        places = choose(rng, num, self.haystack, self.needles)
        hay = rng.integers(1, 1 + self.fillers, (num, self.haystack))
        np.put_along_axis(hay, places, 1 + self.fillers + kinds * self.values + values, 1)
        asked = choose(rng, num, self.needles, self.queries)
        pairs = [self.asking + kinds, self.asking + self.kinds + values]
        told = np.stack([np.take_along_axis(side, asked, 1) for side in pairs], -1).reshape(num, -1)
        tokens = np.concatenate([hay, np.full((num, 1), MARK), told], 1).astype(np.int32)
        return tokens, scored(num, self.length, slice(self.haystack + 2, None, 2))
