"""What stands between a model's logits and a categorical draw: constraints, repetition penalty, temperature, truncation, in this order.

    constraint   logits of forbidden tokens become -inf                                                               (1)
    repetition   logits of tokens already seen: l / r where l > 0, l r where l < 0      (Keskar et al. 2019, sec. 4.1)   (2)
    temperature  l / T                                                                                                (3)
    top-k        the k largest logits, ties in order of the vocabulary; k = 1 is greedy decoding                      (4)
    top-p        the smallest set of most probable tokens whose mass reaches p          (Holtzman et al. 2020, eq. 3)    (5)
    min-p        tokens of at least m times the largest probability                     (Nguyen et al. 2024, alg. 1)     (6)

A constraint is any object with the three methods of `Constraint`; `Trie` allows a given set of sequences, `Insert` forces a token.
Letters: b batch, v vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.types import Array, Bool, ConfigError, Float, Int, PyTree


@dataclasses.dataclass(frozen=True)
class DecodingConfig:
    """Eqs. (2-6), None for those that are off, and the weight `omega` of classifier-free guidance (1: none)."""

    temperature: float = 1.0
    top_k: int | None = dataclasses.field(default=None, metadata={"min": 1})
    top_p: float | None = None
    min_p: float | None = dataclasses.field(default=None, metadata={"min": 0.0, "max": 1.0})
    repetition: float = 1.0
    omega: float = 1.0

    def __post_init__(self):
        if not self.temperature > 0:
            raise ConfigError(f"sampling.temperature: must be positive, got {self.temperature}; for greedy decoding use sampling.top_k=1")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"sampling.top_k: must be at least 1, got {self.top_k}; None keeps every token")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"sampling.top_p: must lie in (0, 1], got {self.top_p}; None keeps every token")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise ConfigError(f"sampling.min_p: must lie in [0, 1], got {self.min_p}; None keeps every token")
        if not self.repetition > 0:
            raise ConfigError(f"sampling.repetition: must be positive, got {self.repetition}; 1 is no penalty")

    @property
    def greedy(self) -> bool:
        """Whether every draw is the most probable token, whatever the noise."""
        return self.top_k == 1

    @property
    def truncates(self) -> bool:
        """Whether some tokens cannot be drawn."""
        return self.top_k is not None or (self.top_p or 1.0) < 1 or bool(self.min_p)


@runtime_checkable
class Constraint(Protocol):
    """Which tokens may come next: a state a row, pure functions of it."""

    def start(self, num: int) -> PyTree:
        """The state of `num` rows before the first token."""
        ...

    def allowed(self, state: PyTree) -> Bool[Array, "b v"]:
        """The tokens that may come next."""
        ...

    def follow(self, state: PyTree, tokens: Int[Array, "b"]) -> PyTree:
        """The state after `tokens`."""
        ...


def warp(
    logits: Float[Array, "b v"],
    config: DecodingConfig,
    seen: Bool[Array, "b v"] | None = None,
    allowed: Bool[Array, "b v"] | None = None,
) -> Float[Array, "b v"]:
    """Eqs. (1-6); -inf for what cannot be drawn. `seen` marks tokens for eq. (2)."""
    if allowed is not None:
        logits = jnp.where(allowed, logits, -jnp.inf)
    if config.repetition != 1 and seen is not None:
        logits = jnp.where(seen, jnp.where(logits > 0, logits / config.repetition, logits * config.repetition), logits)
    if config.temperature != 1:
        logits = logits / config.temperature
    if config.top_k is not None:
        logits = top_k(logits, config.top_k)
    if config.top_p is not None:
        logits = top_p(logits, config.top_p)
    return logits if config.min_p is None else min_p(logits, config.min_p)


def top_k(logits: Float[Array, "b v"], k: int) -> Float[Array, "b v"]:
    """Eq. (4)."""
    if k >= logits.shape[-1]:
        return logits
    last = jax.lax.top_k(logits, k)[0][:, -1:]
    tied = logits == last
    places = k - (logits > last).sum(-1, keepdims=True)
    return jnp.where((logits > last) | (tied & (jnp.cumsum(tied, -1) <= places)), logits, -jnp.inf)


def top_p(logits: Float[Array, "b v"], p: float) -> Float[Array, "b v"]:
    """Eq. (5); the most probable token always stays."""
    order = jnp.argsort(-logits, axis=-1)
    probabilities = jnp.take_along_axis(jax.nn.softmax(logits, -1), order, -1)
    before = jnp.cumsum(probabilities, -1) - probabilities  # mass of what is more probable
    kept = jnp.take_along_axis(before < p, jnp.argsort(order, axis=-1), -1)
    return jnp.where(kept, logits, -jnp.inf)


def min_p(logits: Float[Array, "b v"], share: float) -> Float[Array, "b v"]:
    """Eq. (6)."""
    if share == 0:
        return logits
    return jnp.where(logits >= logits.max(-1, keepdims=True) + float(np.log(share)), logits, -jnp.inf)


@dataclasses.dataclass(frozen=True, eq=False)
class Always:
    """The same tokens at every place."""

    mask: np.ndarray  # bool [v]

    def __post_init__(self):
        if not self.mask.any():
            raise ConfigError("constraint: it forbids every token; allow at least one")

    def start(self, num: int) -> PyTree:
        return jnp.zeros((num, 0))

    def allowed(self, state: PyTree) -> Bool[Array, "b v"]:
        return jnp.broadcast_to(jnp.asarray(self.mask)[None], (state.shape[0], len(self.mask)))

    def follow(self, state: PyTree, tokens: Int[Array, "b"]) -> PyTree:
        return state


@dataclasses.dataclass(frozen=True, eq=False)
class Trie:
    """One of a set of sequences, then `end` for ever; without `end`, anything.

    `table` [nodes, v] names the node after a token, -1: forbidden. Node 0 is the start, the last one what comes after a whole sequence.
    Make it with `Trie.of`.
    """

    table: np.ndarray

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]], vocabulary: int, end: int | None = None) -> Trie:
        """Raises `ConfigError` for no sequences, an empty one, or a token out of range."""
        if not sequences or not all(len(sequence) for sequence in sequences):
            raise ConfigError("constraint: a trie without sequences, or with an empty one, forbids every token; give at least one token")
        for token in (token for sequence in (*sequences, *([[end]] if end is not None else [])) for token in sequence):
            if not 0 <= token < vocabulary:
                raise ConfigError(f"constraint: token {token} is not in the vocabulary of {vocabulary}; give ids 0..{vocabulary - 1}")
        nodes: list[dict[int, int]] = [{}]
        whole = set()
        for sequence in sequences:
            node = 0
            for token in sequence:
                if token not in nodes[node]:
                    nodes.append({})
                    nodes[node][token] = len(nodes) - 1
                node = nodes[node][token]
            whole.add(node)
        table = np.full((len(nodes) + 1, vocabulary), -1, np.int32)
        after = len(nodes)
        for node in (*whole, after):
            table[node, slice(None) if end is None else end] = after
        for node, children in enumerate(nodes):
            for token, child in children.items():
                table[node, token] = child
        return cls(table)

    def start(self, num: int) -> Int[Array, "b"]:
        return jnp.zeros((num,), jnp.int32)

    def allowed(self, state: Int[Array, "b"]) -> Bool[Array, "b v"]:
        return jnp.asarray(self.table)[state] >= 0

    def follow(self, state: Int[Array, "b"], tokens: Int[Array, "b"]) -> Int[Array, "b"]:
        # a token that was forced against the constraint leads to what comes after a sequence
        found = jnp.asarray(self.table)[state, tokens]
        return jnp.where(found < 0, len(self.table) - 1, found)


@dataclasses.dataclass(frozen=True, eq=False)
class Insert:
    """`tokens` in a row after `after` [b] drawn tokens, and whatever the model says everywhere else; where the model draws the first of
    them before that, the rest follows it there.

    With the end of a working as the first token, it ends there at the latest, and what comes after can be an instruction for the answer
    (ThinkLess: Li et al. 2025, sec. 3).
    """

    tokens: tuple[int, ...]
    after: np.ndarray
    vocabulary: int

    def __post_init__(self):
        if not self.tokens:
            raise ConfigError("constraint: there is no token to insert; give at least one")
        for token in self.tokens:
            if not 0 <= token < self.vocabulary:
                raise ConfigError(f"constraint: token {token} is not in the vocabulary of {self.vocabulary}; give ids below that")

    def start(self, num: int) -> PyTree:
        """How many tokens were written, and how many of the inserted ones.

        Raises `ConfigError` unless there is a place for each row.
        """
        if num != len(self.after):
            raise ConfigError(f"constraint: {len(self.after)} places to insert at for {num} rows; give one a row")
        return jnp.zeros((num,), jnp.int32), jnp.zeros((num,), jnp.int32)

    def allowed(self, state: PyTree) -> Bool[Array, "b v"]:
        count, written = state
        due = jnp.where(written == 0, count == jnp.asarray(self.after), written < len(self.tokens))
        return ~due[:, None] | jax.nn.one_hot(self._next(written), self.vocabulary, dtype=bool)

    def follow(self, state: PyTree, tokens: Int[Array, "b"]) -> PyTree:
        count, written = state
        return count + 1, written + ((tokens == self._next(written)) & (written < len(self.tokens)))

    def _next(self, written: Int[Array, "b"]) -> Int[Array, "b"]:
        return jnp.asarray(self.tokens, jnp.int32)[jnp.minimum(written, len(self.tokens) - 1)]


@dataclasses.dataclass(frozen=True, eq=False)
class Listing:
    """A list of pairs, a token of `kinds` [v] and then one of the row's `words` [b, v], and after it `end`, by `room` tokens at the latest.

    What is drawn is so always an answer that can be read. Raises `ConfigError` where there is no kind, or no room for an end.
    """

    kinds: np.ndarray
    words: np.ndarray
    end: int
    room: int

    def __post_init__(self):
        if not self.kinds.any() or self.kinds[self.end] or self.room < 1:
            raise ConfigError("constraint: a list needs a kind of pair, an end that is none, and room for the end; give all three")

    def start(self, num: int) -> PyTree:
        """How many tokens were written, and whether the list has ended. Raises `ConfigError` unless there are words for each row."""
        if num != len(self.words):
            raise ConfigError(f"constraint: words of {len(self.words)} rows for {num} rows; give each row its own")
        return jnp.zeros((num,), jnp.int32), jnp.zeros((num,), bool)

    def allowed(self, state: PyTree) -> Bool[Array, "b v"]:
        count, ended = state
        end = jax.nn.one_hot(self.end, self.kinds.size, dtype=bool)[None]
        full = (count + 3 > self.room)[:, None]  # a pair and an end do not fit any more
        first = jnp.where(full, end, end | jnp.asarray(self.kinds)[None])
        return jnp.where(ended[:, None], end, jnp.where((count % 2 == 0)[:, None], first, jnp.asarray(self.words)))

    def follow(self, state: PyTree, tokens: Int[Array, "b"]) -> PyTree:
        count, ended = state
        return count + 1, ended | ((tokens == self.end) & (count % 2 == 0))
