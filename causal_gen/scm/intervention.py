"""Interventions: what the user writes, and the canonical form that networks see.

    do(angle=20.0)                    the mechanism of `angle` is replaced by the constant 20
    shift(angle=5.0)                  its natural value plus 5
    soft("clip", angle=(-10, 10))     a named function of the natural value with array parameters
    do(angle=20.0) & shift(light=3)   a joint intervention, each node once
    do(tokens={5: 17, 6: 3})          in a sequence: positions and their tokens

Values are in the entry's physical units: scalars, or arrays over the batch. The canonical form is made outside jit: for every
node that can be acted upon a static kind and arrays (mask [b], arguments), so that another value, or no
intervention at all, is not another trace.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from causal_gen.types import Array, InterventionError

# kind -> (number of arguments, function of the natural value and the arguments)
KINDS: dict[str, tuple[int, Any]] = {
    "do": (1, lambda natural, value: jnp.broadcast_to(value, natural.shape)),
    "shift": (1, lambda natural, by: natural + by),
    "scale": (1, lambda natural, by: natural * by),
    "clip": (2, lambda natural, low, high: jnp.clip(natural, low, high)),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Action:
    """One node's intervention as written: a kind of `KINDS` and its arguments, scalars or [b] arrays."""

    kind: str
    args: tuple[Any, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Intervention:
    """A joint intervention: one `Action` a node. Combine with `&`."""

    actions: Mapping[str, Action]

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes acted upon."""
        return tuple(self.actions)

    def __and__(self, other: Intervention) -> Intervention:
        twice = sorted(set(self.actions) & set(other.actions))
        if twice:
            raise InterventionError(f"intervention: {twice[0]!r} is acted upon twice; give each node one intervention")
        return Intervention({**self.actions, **other.actions})


def do(**values: Any) -> Intervention:
    """Replace the mechanisms of the named nodes by constants, in physical units."""
    return soft("do", **values)


def shift(**values: Any) -> Intervention:
    """Add to the natural values of the named nodes, in physical units."""
    return soft("shift", **values)


def soft(kind: str, /, **values: Any) -> Intervention:
    """A named function of the natural value (`KINDS`). Raises `InterventionError` for an unknown kind or a wrong arity."""
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=1) or sorted(KINDS)
        raise InterventionError(f"intervention: unknown kind {kind!r}; did you mean {near[0]!r}?")
    arity = KINDS[kind][0]
    actions = {}
    for node, value in values.items():
        args = tuple(value) if arity > 1 and isinstance(value, Sequence) else (value,)
        if len(args) != arity:
            raise InterventionError(f"intervention: {kind}({node}=...) takes {arity} argument(s), got {len(args)}")
        actions[node] = Action(kind, args)
    return Intervention(actions)


@dataclasses.dataclass(frozen=True)
class Span:
    """A node that is a sequence of `length` tokens, each 0 .. vocabulary - 1: it is acted upon by position."""

    length: int
    vocabulary: int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Act:
    """Canonical intervention on one node: where `mask` holds, `kind` is applied with `args`; all are [b], or [b, t] for a sequence."""

    mask: Array
    args: tuple[Array, ...]
    kind: str = dataclasses.field(metadata={"static": True})

    def apply(self, natural: Array) -> Array:
        """The value of the node given its natural value, of the mask's shape and any further axes."""
        rest = (1,) * (natural.ndim - self.mask.ndim)
        args = (arg.reshape(arg.shape + rest) for arg in self.args)
        return jnp.where(self.mask.reshape(self.mask.shape + rest), KINDS[self.kind][1](natural, *args), natural)


Acts = dict[str, Act]


def canonical(intervention: Intervention | Acts | None, nodes: Sequence[str], num: int, spans: Mapping[str, Span] | None = None) -> Acts:
    """Arrays over `num` examples for each of `nodes`; None, and nodes not named, become a `do` whose mask is all false.

    `spans` says which nodes are sequences. A canonical form passes through unchanged. Raises `InterventionError` for a node that is not in
    `nodes`, a value that is neither a scalar nor an array over the batch, and a position or token that is out of range.
    """
    if isinstance(intervention, dict):
        return intervention
    actions = intervention.actions if intervention is not None else {}
    for node in actions:
        if node not in nodes:
            near = difflib.get_close_matches(node, nodes, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the factors are {', '.join(nodes)}"
            raise InterventionError(f"intervention: unknown factor {node!r}; {hint}")
    acts = {}
    for node in nodes:
        if spans and node in spans:
            acts[node] = _by_position(node, actions.get(node, Action("do", ({},))), num, spans[node])
            continue
        action = actions.get(node, Action("do", (0.0,)))
        args = tuple(_over_batch(f"{action.kind}({node}=...)", arg, num, jnp.float32) for arg in action.args)
        acts[node] = Act(jnp.full((num,), node in actions), args, action.kind)
    return acts


def _over_batch(what: str, arg: Any, num: int, dtype: Any) -> Array:
    if isinstance(arg, Mapping):
        raise InterventionError(f"intervention: {what} names positions, but it is no sequence; give a scalar")
    value = jnp.asarray(arg, dtype)
    if value.shape not in ((), (num,)):
        raise InterventionError(f"intervention: {what} has shape {value.shape}; give a scalar or one value for each of {num} examples")
    return jnp.broadcast_to(value, (num,))


def _by_position(node: str, action: Action, num: int, span: Span) -> Act:
    """The canonical form of do(node={position: token}): mask and tokens [b, t]."""
    if action.kind != "do":
        raise InterventionError(f"intervention: {action.kind}({node}=...): tokens are names, not amounts; only do sets them")
    if not isinstance(action.args[0], Mapping):
        raise InterventionError(f"intervention: do({node}=...) sets tokens of a sequence; name their positions, as in do({node}={{5: 17}})")
    mask, tokens = np.zeros((num, span.length), bool), jnp.zeros((num, span.length), jnp.int32)
    for position, token in action.args[0].items():
        what = f"do({node}={{{position}: ...}})"
        if not 0 <= position < span.length:
            raise InterventionError(f"intervention: {what}: there is no such position; they are 0..{span.length - 1}")
        value = _over_batch(what, token, num, jnp.int32)
        if not isinstance(value, Tracer) and not np.all((np.asarray(token) == value) & (value >= 0) & (value < span.vocabulary)):
            raise InterventionError(f"intervention: {what}: token {token} is out of range; the tokens are 0..{span.vocabulary - 1}")
        mask[:, position] = True
        tokens = tokens.at[:, position].set(value)
    return Act(jnp.asarray(mask), (tokens,), "do")
