"""Who may see whom in attention: an algebra of predicates over (query, key) pairs.

A visibility gives every pair a weight in [0, 1]; attention multiplies exp(score) by it:

    p(k | q)  =  w(q, k) exp(s(q, k)) / sum_j w(q, j) exp(s(q, j))                                   (1)
    (a & b)   =  a b            (a | b)  =  a + b (1 - a)            ~a  =  1 - a                    (2)
    soft(a, b, alpha)  =  (1 - alpha) a + alpha b                                                    (3)

Almost all visibilities are hard (w is 0 or 1) and are computed as booleans, for which (2) is ordinary logic. `__call__` says
where w > 0, `bias` is log w (0, -inf, or between where it is soft), `weight` is w itself: the form that carries a gradient to gates
that are closed, since log has none there.

Visibilities are static and hashable; what varies from batch to batch are *fields*, arrays of one entry a token: "index" (the
place in the sequence) is always there; "position", "segment", "document", "frame", "block", "order", "noisy", "group" and any other
name are up to the user. Named visibilities are in masks.py, choices by layer, head, schedule and gate in variants.py, the map of tiles
that blocked attention need not visit in tiles.py. A new one is a function under `predicate` (CONTRIBUTING.md):

    @predicate
    def same(q: Side, k: Side, field: str) -> Array:
        return q[field] == k[field]

Nothing is evaluated until it is called, on whatever slice of the fields: a blocked attention calls it tile by tile.

The algebra is this project's own; on hard masks (2) is Boolean.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Concatenate, ParamSpec, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.types import Array, Bool, ConfigError, Float

Fields: TypeAlias = Mapping[str, Any]  # name -> [t] or [b, t], or a vector a token [b, t, n]; numpy arrays stay known while tracing
Layer: TypeAlias = Any  # None, an int or a traced i32[]
P = ParamSpec("P")


def length(fields: Fields) -> int:
    """Tokens that the fields describe."""
    return np.shape(fields["index"])[-1]


def time_axis(field: Any) -> int:
    """The axis of a field that runs over tokens: the last, or the second of a vector field [b, t, n]."""
    return 1 if np.ndim(field) == 3 else np.ndim(field) - 1


def fields_for(tq: int, tk: int, **user: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields of `tq` queries that are the last of `tk` keys (rectangular attention is aligned at the end), and of the keys.

    Each of `user` is a scalar, an array over the keys (the queries take its last `tq` entries), or a pair (over the queries, over the
    keys) where queries are not among the keys. "index" counts 0 .. tk-1 and is a numpy array, so that it stays known under jit.

    Raises `ConfigError` for a field with another number of entries.
    """
    q: dict[str, Any] = {"index": np.arange(tk - tq, tk, dtype=np.int32)}
    k: dict[str, Any] = {"index": np.arange(tk, dtype=np.int32)}
    for name, value in user.items():
        if not isinstance(value, tuple):
            value = np.asarray(value) if isinstance(value, list) else value
            if np.ndim(value) == 0:
                value = jnp.broadcast_to(value, (tk,)) if isinstance(value, jax.Array) else np.full(tk, value)
            value = (cut(value, tk - tq, tq) if np.shape(value)[time_axis(value)] == tk >= tq else value, value)
        q[name], k[name] = (np.asarray(side) if isinstance(side, list) else side for side in value)
    for side, fields, t in (("query", q, tq), ("key", k, tk)):
        for name, value in fields.items():
            if np.ndim(value) == 0 or np.shape(value)[time_axis(value)] != t:
                raise ConfigError(f"fields: {side} field {name!r} has shape {np.shape(value)}; it needs one entry for each of {t} tokens")
    return q, k


def cut(field: Any, start: Any, size: int) -> Any:
    """`size` tokens of one field from `start` on; a traced start is clamped as in `lax.dynamic_slice`."""
    axis = time_axis(field)
    if isinstance(start, int):
        return field[(slice(None),) * axis + (slice(start, start + size),)]
    return jax.lax.dynamic_slice_in_dim(jnp.asarray(field), start, size, axis)


@dataclasses.dataclass(frozen=True, eq=False)
class Side:
    """The queries or the keys as a rule sees them: `side[name]` is [b, 1, tq, 1] for queries and [b, 1, 1, tk] for keys.

    A field that is not there is a `ConfigError` that names it.
    """

    fields: Fields
    is_query: bool
    tokens: int

    def __getitem__(self, name: str) -> Array:
        """A field of one number a token."""
        return self._read(name, vector=False)

    def vector(self, name: str) -> Array:
        """A field of one vector a token, with one more axis at the end: [b, 1, tq, 1, n] or [b, 1, 1, tk, n]."""
        return self._read(name, vector=True)

    def _read(self, name: str, vector: bool) -> Array:
        if name not in self.fields:
            side = "queries" if self.is_query else "keys"
            have = ", ".join(sorted(self.fields)) or "none"
            raise ConfigError(f"visibility: the {side} have no field {name!r}; give it with the batch (there are: {have})")
        field = jnp.asarray(self.fields[name])
        t, form = self.tokens, "[b, t, n]" if vector else "[t] or [b, t]"
        if field.ndim not in ((3,) if vector else (1, 2)) or field.shape[time_axis(field)] != t:
            raise ConfigError(f"visibility: field {name!r} has shape {field.shape}; with {t} tokens it needs the form {form}")
        batch, rest = (field.shape[0] if field.ndim > 1 else 1), field.shape[2:]  # rest: (n,) or nothing
        return field.reshape((batch, 1, t, 1, *rest) if self.is_query else (batch, 1, 1, t, *rest))


@dataclasses.dataclass(frozen=True)
class Visibility(abc.ABC):
    """A static predicate over query and key fields. Combine with `&`, `|`, `~`, `per_layer`, `per_head`, `soft`.

    Subclasses give `evaluate` (bool where `hard`, else a weight in [0, 1]; always 4-D, broadcastable to [b, h, tq, tk]), `reads` (the
    fields that it takes from the queries and from the keys) and `parts`.
    """

    @abc.abstractmethod
    def evaluate(self, q: Side, k: Side, layer: Layer) -> Array:
        """The weight of every pair, or a boolean where it is hard: what broadcasts to [b, h, q, k]."""
        ...

    @property
    def reads(self) -> tuple[frozenset[str], frozenset[str]]:
        both = [part.reads for part in self.parts]
        return frozenset().union(*(q for q, _ in both)), frozenset().union(*(k for _, k in both))

    @property
    def parts(self) -> tuple[Visibility, ...]:
        """The visibilities that this one is made of."""
        return ()

    @property
    def fields(self) -> frozenset[str]:
        """Names of the fields that it needs, on either side."""
        return frozenset().union(*self.reads)

    @property
    def hard(self) -> bool:
        """Whether every pair is either seen or hidden, so that `__call__` says all there is."""
        return all(part.hard for part in self.parts)

    @property
    def gated(self) -> bool:
        """Whether gates are learned: attention must multiply by `weight`, for `bias` has no gradient where a gate is closed."""
        return any(part.gated for part in self.parts)

    @property
    def layered(self) -> bool:
        """Whether it differs from layer to layer, so that `layer` must be given."""
        return any(part.layered for part in self.parts)

    @property
    def heads(self) -> int:
        """Heads that it tells apart; 1 where all see the same. Raises `ConfigError` where its parts are for different numbers."""
        counts = {part.heads for part in self.parts} - {1}
        if len(counts) > 1:
            raise ConfigError(f"visibility: its parts are for {' and '.join(map(str, sorted(counts)))} heads; give each as many")
        return counts.pop() if counts else 1

    def __post_init__(self):
        self.heads  # noqa: B018  (raises where the parts disagree)

    def bounds(self, q: Side, k: Side, layer: Layer) -> tuple[Array, Array]:
        """(may be seen, is surely seen) from those fields alone that are there: what a tile map can know while tracing."""
        known = self.reads[0] <= q.fields.keys() and self.reads[1] <= k.fields.keys()
        if not known:
            return jnp.ones((1, 1, 1, 1), bool), jnp.zeros((1, 1, 1, 1), bool)
        seen = as_seen(self.evaluate(q, k, layer))
        return seen, seen

    def __call__(self, q: Fields, k: Fields, layer: Layer = None) -> Bool[Array, "b h q k"]:
        """Where a query sees a key, broadcastable to [b, h, tq, tk]."""
        return as_seen(self.evaluate(Side(q, True, length(q)), Side(k, False, length(k)), layer))

    def weight(self, q: Fields, k: Fields, layer: Layer = None) -> Float[Array, "b h q k"]:
        """The factor of exp(score) in eq. (1), in [0, 1]."""
        return as_weight(self.evaluate(Side(q, True, length(q)), Side(k, False, length(k)), layer))

    def bias(self, q: Fields, k: Fields, layer: Layer = None) -> Float[Array, "b h q k"]:
        """log weight: what to add to the scores."""
        weight = self.weight(q, k, layer)
        # the inner where keeps an infinite slope out of the gradient
        return jnp.where(weight > 0, jnp.log(jnp.where(weight > 0, weight, 1.0)), -jnp.inf)

    def show(self, t: int | tuple[int, int] = 8, *, layer: int | None = None, **fields: Any) -> str:
        """A picture, a row a query: '#' seen, '.' hidden, a digit the tenths of a weight between; heads stand side by side.

        `t` is the number of tokens, or (queries, keys); `fields` are as in `fields_for`, a list for an array.
        """
        q, k = fields_for(*((t, t) if isinstance(t, int) else t), **fields)
        shape = (1, self.heads, length(q), length(k))
        weight = np.asarray(jnp.broadcast_to(self.weight(q, k, layer)[:1], shape))[0]
        return "\n".join("  ".join("".join(map(_cell, head[row].tolist())) for head in weight) for row in range(shape[2]))

    def __and__(self, other: Visibility) -> Visibility:
        return And(self, other)

    def __or__(self, other: Visibility) -> Visibility:
        return Or(self, other)

    def __invert__(self) -> Visibility:
        return Not(self)


def as_seen(value: Array) -> Array:
    """What `evaluate` gives, as a boolean. [b, h, q, k], or what broadcasts to it."""
    return value if value.dtype == bool else value > 0


def as_weight(value: Array) -> Array:
    """What `evaluate` gives, as a weight. [b, h, q, k], or what broadcasts to it."""
    return value.astype(jnp.float32)


def _cell(weight: float) -> str:
    return "#" if weight >= 1 else "." if weight <= 0 else str(int(10 * weight))


@dataclasses.dataclass(frozen=True)
class Rule(Visibility):
    """A predicate with its static arguments, as `predicate` makes it."""

    rule: Callable[..., Array]
    args: tuple[tuple[str, Any], ...]

    def evaluate(self, q: Side, k: Side, layer: Layer) -> Array:
        return self.rule(q, k, **dict(self.args))

    @functools.cached_property
    def reads(self) -> tuple[frozenset[str], frozenset[str]]:
        # a rule says what it reads by reading it: a declared list could be wrong
        sides = _Reading(is_query=True), _Reading(is_query=False)
        jax.eval_shape(lambda: self.rule(*sides, **dict(self.args)))
        return frozenset(sides[0].names), frozenset(sides[1].names)

    def __repr__(self) -> str:
        return f"{self.rule.__name__}({', '.join(f'{name}={value!r}' for name, value in self.args)})"


class _Reading(Side):
    """A side of one token that remembers which fields were asked for."""

    def __init__(self, is_query: bool):
        super().__init__({}, is_query, tokens=1)
        object.__setattr__(self, "names", set())

    names: set[str]

    def _read(self, name: str, vector: bool) -> Array:
        self.names.add(name)
        return jnp.zeros((1,) * (5 if vector else 4), jnp.int32)


def predicate(rule: Callable[Concatenate[Side, Side, P], Array]) -> Callable[P, Visibility]:
    """Makes of a rule `name(q, k, *static arguments) -> bool array` a constructor `name(*static arguments) -> Visibility`."""
    q, k, *static = inspect.signature(rule).parameters.values()

    @functools.wraps(rule)
    def make(*args: P.args, **kwargs: P.kwargs) -> Visibility:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        made = Rule(rule, tuple(bound.arguments.items()))
        try:
            hash(made)
        except TypeError as error:
            raise ConfigError(f"{rule.__name__}: {error}; its arguments are static (numbers, names, tuples), arrays are fields") from error
        made.reads  # noqa: B018  (a rule that refuses its arguments does so here)
        return made

    signature = inspect.Signature(static, return_annotation="Visibility")
    make.__signature__ = signature  # pyright: ignore[reportAttributeAccessIssue]
    return make


@dataclasses.dataclass(frozen=True)
class Pair(Visibility):
    """Two visibilities and the sign between them."""

    a: Visibility
    b: Visibility

    sign: ClassVar[str]

    @property
    def parts(self) -> tuple[Visibility, ...]:
        return self.a, self.b

    def __repr__(self) -> str:
        return f"({self.a!r} {self.sign} {self.b!r})"


@dataclasses.dataclass(frozen=True, repr=False)
class And(Pair):
    """Seen by both, eq. (2)."""

    sign = "&"

    def evaluate(self, q: Side, k: Side, layer: Layer) -> Array:
        a, b = self.a.evaluate(q, k, layer), self.b.evaluate(q, k, layer)
        return a & b if self.hard else as_weight(a) * as_weight(b)

    def bounds(self, q: Side, k: Side, layer: Layer) -> tuple[Array, Array]:
        (may_a, must_a), (may_b, must_b) = self.a.bounds(q, k, layer), self.b.bounds(q, k, layer)
        return may_a & may_b, must_a & must_b


@dataclasses.dataclass(frozen=True, repr=False)
class Or(Pair):
    """Seen by either, eq. (2)."""

    sign = "|"

    def evaluate(self, q: Side, k: Side, layer: Layer) -> Array:
        a, b = self.a.evaluate(q, k, layer), self.b.evaluate(q, k, layer)
        return a | b if self.hard else as_weight(a) + as_weight(b) * (1 - as_weight(a))

    def bounds(self, q: Side, k: Side, layer: Layer) -> tuple[Array, Array]:
        (may_a, must_a), (may_b, must_b) = self.a.bounds(q, k, layer), self.b.bounds(q, k, layer)
        return may_a | may_b, must_a | must_b


@dataclasses.dataclass(frozen=True)
class Not(Visibility):
    """Seen where the other hides, eq. (2)."""

    a: Visibility

    @property
    def parts(self) -> tuple[Visibility, ...]:
        return (self.a,)

    def evaluate(self, q: Side, k: Side, layer: Layer) -> Array:
        a = self.a.evaluate(q, k, layer)
        return ~a if self.hard else 1 - a

    def bounds(self, q: Side, k: Side, layer: Layer) -> tuple[Array, Array]:
        may, must = self.a.bounds(q, k, layer)
        return ~must, ~may

    def __repr__(self) -> str:
        return f"~{self.a!r}"
