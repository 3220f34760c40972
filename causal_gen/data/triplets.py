"""Triplet-Counting: how many pairs of tokens make a sum with the last one.

    x_1 .. x_n  uniform in 0 .. m - 1,   then  x_{k+1} = f(x_1 .. x_k)  for k = n .. n + a - 1                              (1)
    f(x_1 .. x_k) = |{i < j <= k : x_i + x_j + x_k = 0 (mod m)}|                                                           (2)

Scored are the a answers; best loss 0. Who reads x_k first can let every token count its partners, k of them at once; a causal mask has to
keep all that any x_k may ask for. Source: Ewer et al., ENTP (2024), where m is k, pairs are ordered, and the count too is taken modulo k.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from causal_gen.data.generated import stream
from causal_gen.data.sequences import Drawn, Task, scored
from causal_gen.types import Int, at_least


@dataclasses.dataclass(frozen=True)
class TripletsConfig(Task):
    """m is `symbols`, n `items`, a `answers`."""

    name: str = "triplets"
    symbols: int = at_least(8, 2)
    items: int = at_least(8, 2)
    answers: int = at_least(1, 1)

    @property
    def length(self) -> int:
        return self.items + self.answers

    @property
    def tokens(self) -> int:
        pairs = (self.length - 1) * (self.length - 2) // 2
        return max(self.symbols, pairs + 1)

    def draw(self, split: str) -> Drawn:
        num = self.count(split)
        tokens = stream(self.seed, 0x333, split).integers(0, self.symbols, (num, self.items), dtype=np.int32)
        for _ in range(self.answers):
            tokens = np.concatenate([tokens, count(tokens, tokens[:, -1:], self.symbols)[:, None]], 1)
        return tokens, scored(num, self.length, slice(self.items, None))


def count(tokens: Int[np.ndarray, "b k"], last: Int[np.ndarray, "b 1"], symbols: int) -> Int[np.ndarray, "b"]:
    """Eq. (2) with x_k given as `last`, from how often each residue occurs: its partners, each pair counted from both sides."""
    times = np.stack([(tokens % symbols == residue).sum(1) for residue in range(symbols)], 1)
    partner = (-np.arange(symbols)[None] - last) % symbols
    met = np.take_along_axis(times, partner, 1)
    ordered = (times * met).sum(1) - (times * (partner == np.arange(symbols)[None])).sum(1)  # no token is its own partner
    return (ordered // 2).astype(np.int32)
