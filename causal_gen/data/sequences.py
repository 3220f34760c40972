"""Sequences of tokens whose best possible loss is known: copying, associative recall, Markov chains in context, reversed facts.

    copy      x_1 .. x_n  0  x_1 .. x_n                            scored: the second x; best loss 0
    recall    k_1 v_1 .. k_n v_n  0  k_i v_i  k_j v_j ..           keys distinct; scored: the values after 0; best loss 0
    markov    s_i ~ pi(. | s_p(i)), roots uniform;  pi ~ Dirichlet(alpha) a row, drawn anew for every sequence          (1)
    reversal  F a 0 b   and   B b 0 a                              scored: what follows 0; best loss 0 for who knows the facts

In (1) the graph p is one for the whole set. The best prediction of s_i from what comes before integrates pi out, by conjugacy:

    P(s_i = j | s_<i) = (n_aj + alpha) / (n_a + alpha S),  a = s_p(i),  n_aj = #{k < i: s_p(k) = a, s_k = j}            (2)

Roots are uniform, where the source draws them from pi's stationary law, since then they tell nothing about pi and (2) is exact.

Reversal trains on every fact forwards and on some backwards; its test rows ask the others backwards, which no training row shows.

Source: (1) Nichani, Damian and Lee, How transformers learn causal structure with gradient descent, ICML 2024, section 2; recall: Arora
et al., Zoology, ICLR 2024; reversal: Berglund et al., The reversal curse, ICLR 2024.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from causal_gen.data.generated import Generated, Rows, choose, stream
from causal_gen.data.text import token_entries
from causal_gen.types import Entry, Float, Int, at_least

Drawn = tuple[np.ndarray, np.ndarray]  # tokens i32 [n, t], and f32 [n, t]: 1 where a token is scored
MARK = 0  # the token between the two halves of a copy, a recall or a fact


@dataclasses.dataclass(frozen=True)
class Task(Generated):
    """What the tasks share."""

    @property
    @abc.abstractmethod
    def length(self) -> int: ...

    @property
    @abc.abstractmethod
    def tokens(self) -> int:
        """Number of values that a token may take."""

    @abc.abstractmethod
    def draw(self, split: str) -> Drawn:
        """All sequences of a split."""

    def best(self, tokens: Int[np.ndarray, "b t"]) -> Float[np.ndarray, "b"]:
        """Nats that the best predictor loses on the scored tokens of each sequence."""
        return np.zeros(len(tokens))

    def fields(self, tokens: Int[np.ndarray, "b t"]) -> dict[str, Int[np.ndarray, "b t"]]:
        """What the slots of these rows are beside their places, for visibilities and positions; slot i holds token i - 1."""
        del tokens
        return {}

    @property
    def entries(self) -> Mapping[str, Entry]:
        names = self.fields(np.zeros((1, self.length), np.int32))
        fields = {name: Entry((self.length,), "int32", description=f"field {name!r} of the slots") for name in names}
        return {**token_entries(self.length, self.tokens, f"sequences of the task {self.name}"), **fields}

    def make(self) -> Sequences:
        return Sequences(self, {s: dict(zip(("tokens", "loss_mask"), self.draw(s), strict=True)) for s in ("train", "test")})


@dataclasses.dataclass(frozen=True)
class CopyConfig(Task):
    """`symbols` symbols, `items` of them in a row, uniform and independent; the first `copied` of them (0: all) are copied."""

    name: str = "copy"
    symbols: int = at_least(16, 1)
    items: int = at_least(16, 1)
    copied: int = at_least(0, 0)

    def __post_init__(self):
        if self.copied > self.items:
            raise ValueError(f"copied={self.copied} are more than the {self.items} items; lower it")

    @property
    def length(self) -> int:
        return self.items + 1 + (self.copied or self.items)

    @property
    def tokens(self) -> int:
        return self.symbols + 1

    def draw(self, split: str) -> Drawn:
        num = self.count(split)
        half = stream(self.seed, 0xC0, split).integers(1, self.symbols + 1, (num, self.items), dtype=np.int32)
        copy = half[:, : self.copied or None]
        tokens = np.concatenate([half, np.full((num, 1), MARK, np.int32), copy], axis=1)
        return tokens, scored(num, self.length, slice(self.items + 1, None))


@dataclasses.dataclass(frozen=True)
class RecallConfig(Task):
    """`pairs` of distinct keys (of `keys`) with values (of `values`), then `queries` of the keys again, each with its value."""

    name: str = "recall"
    keys: int = at_least(16, 1)
    values: int = at_least(16, 1)
    pairs: int = at_least(8, 1)
    queries: int = at_least(4, 1)

    def __post_init__(self):
        if self.pairs > self.keys:
            raise ValueError(f"pairs={self.pairs} need as many distinct keys, there are {self.keys}; raise keys")
        if self.queries > self.pairs:
            raise ValueError(f"queries={self.queries} ask more than the {self.pairs} pairs; raise pairs")

    @property
    def length(self) -> int:
        return 2 * (self.pairs + self.queries) + 1

    @property
    def tokens(self) -> int:
        return 1 + self.keys + self.values

    def draw(self, split: str) -> Drawn:
        num = self.count(split)
        keys = 1 + choose(stream(self.seed, 0x4E1, split), num, self.keys, self.pairs)
        values = stream(self.seed, 0x4E2, split).integers(1 + self.keys, self.tokens, (num, self.pairs), dtype=np.int32)
        asked = choose(stream(self.seed, 0x4E3, split), num, self.pairs, self.queries)
        pairs = np.stack([keys, values], axis=-1)
        queries = np.take_along_axis(pairs, asked[..., None], axis=1)
        parts = [pairs.reshape(num, -1), np.full((num, 1), MARK, np.int32), queries.reshape(num, -1)]
        return np.concatenate(parts, axis=1).astype(np.int32), scored(num, self.length, slice(2 * self.pairs + 2, None, 2))


@dataclasses.dataclass(frozen=True)
class MarkovConfig(Task):
    """Chains (1) over `states`, `items` tokens long.

    graph: "chain", p(i) = i - 1; or "random", where i is a root with chance `roots` or p(i) uniform before i, drawn once for the set.
    scored: "last" makes the token before the last a root, so that every state is asked for, and scores the last; "all" scores every token.
    """

    name: str = "markov"
    states: int = at_least(4, 2)
    items: int = at_least(32, 3)
    alpha: float = dataclasses.field(default=1.0, metadata={"min": 1e-3})
    graph: str = dataclasses.field(default="random", metadata={"choices": ("random", "chain")})
    roots: float = dataclasses.field(default=0.1, metadata={"min": 0.0, "max": 1.0})
    scored: str = dataclasses.field(default="last", metadata={"choices": ("last", "all")})

    @property
    def length(self) -> int:
        return self.items

    @property
    def tokens(self) -> int:
        return self.states

    @property
    def parents(self) -> Int[np.ndarray, "t"]:
        """p of (1), -1 for roots."""
        if self.graph == "chain":
            parents = np.arange(-1, self.items - 1)
        else:
            rng = stream(self.seed, 0x3A0)
            drawn = np.floor(rng.random(self.items) * np.arange(self.items)).astype(np.int64)
            parents = np.where(rng.random(self.items) < self.roots, -1, drawn)
            parents[0] = -1
        if self.scored == "last":
            parents[-2:] = -1, self.items - 2
        return parents

    def draw(self, split: str) -> Drawn:
        num = self.count(split)
        rows = stream(self.seed, 0x3A1, split).dirichlet(np.full(self.states, self.alpha), (num, self.states))
        steps = rows.cumsum(-1)
        steps[..., -1] = 1.0  # rounding must not leave a draw without a state
        uniform = stream(self.seed, 0x3A2, split).random((num, self.items))
        tokens = np.empty((num, self.items), np.int32)
        every = np.arange(num)
        for i, parent in enumerate(self.parents):
            flat = np.floor(uniform[:, i] * self.states)
            tokens[:, i] = flat if parent < 0 else (uniform[:, i, None] >= steps[every, tokens[:, parent]]).sum(-1)
        return tokens, scored(num, self.items, slice(-1 if self.scored == "last" else 0, None))

    def predictive(self, tokens: Int[np.ndarray, "b t"]) -> Float[np.ndarray, "b t"]:
        """P(s_i | s_<i) of every token, eq. (2); 1 / states for roots."""
        num, length = tokens.shape
        counts, every = np.zeros((num, self.states, self.states)), np.arange(num)
        found = np.full((num, length), 1.0 / self.states)
        for i, parent in enumerate(self.parents):
            if parent >= 0:
                before = counts[every, tokens[:, parent]]
                found[:, i] = (before[every, tokens[:, i]] + self.alpha) / (before.sum(-1) + self.alpha * self.states)
                counts[every, tokens[:, parent], tokens[:, i]] += 1
        return found

    def best(self, tokens: Int[np.ndarray, "b t"]) -> Float[np.ndarray, "b"]:
        losses = -np.log(self.predictive(tokens))
        return losses[:, -1] if self.scored == "last" else losses.sum(1)


@dataclasses.dataclass(frozen=True)
class ReversalConfig(Task):
    """`size` facts (a, b), all names distinct, each of `letters` letters out of `alphabet`. All of them are trained on forwards, all but
    `test_size` also backwards; those are asked backwards in the test."""

    name: str = "reversal"
    size: int = at_least(1_000, 1)
    test_size: int = at_least(200, 1)
    letters: int = at_least(4, 1)
    alphabet: int = at_least(16, 2)

    def __post_init__(self):
        if self.test_size > self.size:
            raise ValueError(f"test_size={self.test_size} asks more facts than the {self.size} there are; raise size")
        if 2 * self.size > self.alphabet**self.letters:
            raise ValueError(f"{self.alphabet}^{self.letters} names are too few for {self.size} facts; raise letters or alphabet")
        if self.alphabet**self.letters > 2**62:
            raise ValueError(f"{self.alphabet}^{self.letters} names cannot be numbered; lower letters or alphabet")

    @property
    def length(self) -> int:
        return 2 * self.letters + 2

    @property
    def tokens(self) -> int:
        return self.alphabet + 3  # MARK, forwards, backwards, letters

    @property
    def facts(self) -> Int[np.ndarray, "n 2 k"]:
        """The names of every fact, as letters 3 .. alphabet + 2."""
        rng, needed, number = stream(self.seed, 0x4EF), 2 * self.size, self.alphabet**self.letters
        codes = np.zeros(0, np.int64)
        while len(codes) < needed:  # the names are at most half of all there are, so that this ends soon
            drawn = np.concatenate([codes, rng.integers(0, number, needed)])
            codes = drawn[np.sort(np.unique(drawn, return_index=True)[1])]
        digits = codes[:needed, None] // self.alphabet ** np.arange(self.letters) % self.alphabet
        return (3 + digits).astype(np.int32).reshape(self.size, 2, self.letters)

    def draw(self, split: str) -> Drawn:
        facts = self.facts
        known = self.size - self.test_size
        forwards, backwards = _told(1, facts), _told(2, facts[:, ::-1])
        tokens = np.concatenate([forwards, backwards[:known]]) if split == "train" else backwards[known:]
        return tokens, scored(len(tokens), self.length, slice(self.letters + 2, None))


def _told(direction: int, facts: np.ndarray) -> np.ndarray:
    num = len(facts)
    parts = [np.full((num, 1), direction), facts[:, 0], np.full((num, 1), MARK), facts[:, 1]]
    return np.concatenate(parts, axis=1).astype(np.int32)


def scored(num: int, length: int, places: slice) -> np.ndarray:
    """The mask f32 [num, length] that scores these places of every row."""
    mask = np.zeros((num, length), np.float32)
    mask[:, places] = 1.0
    return mask


@dataclasses.dataclass(frozen=True, eq=False)
class Sequences(Rows):
    """The source of a task."""

    def gather(self, split: str, indices: Int[np.ndarray, "b"]) -> dict[str, np.ndarray]:
        """The sequences at `indices`, which of their tokens are scored, and the task's fields."""
        found = super().gather(split, indices)
        return {**found, **self.config.fields(found["tokens"])}

    def best(self, split: str, indices: Int[np.ndarray, "b"]) -> Float[np.ndarray, "b"]:
        """Nats that the best predictor loses on the scored tokens of each sequence: the floor of any model's loss, on average."""
        return self.config.best(self.rows[split]["tokens"][indices])

    def stats(self) -> dict[str, Any]:
        """The size of the vocabulary, and what the best predictor loses on a scored test token, in nats."""
        rows, counted = np.arange(self.size("test")), float(self.rows["test"]["loss_mask"].sum())
        return {"tokens": {"vocabulary": self.config.tokens, "best_loss": float(self.best("test", rows).sum() / counted)}}
