"""Interventions: what the user writes, and the canonical form that networks see.

    do(angle=20.0)                                  the mechanism of `angle` is replaced by the constant 20
    shift(angle=5.0)                                its natural value plus 5
    soft("clip", angle=(-10, 10))                   a named function of the natural value with array parameters (`KINDS`)
    soft(jnp.abs, angle=())                         any function of the natural value and the arguments; another function is another trace
    stochastic("normal", key, angle=(0, 5))         a draw of its own for every example, from a key of its own
    do(angle=20.0, edge=("angle", "light"))         on one edge: `light` reads an angle of 20, all else the natural one
    do(angle=20.0) & shift(light=3)                 a joint intervention, each node and each edge once
    do(angle=20.0).where(mask)                      on the examples alone for which the mask [b] holds
    do(tokens={5: 17, 6: 3})                        in a sequence: positions and their tokens

Values are in the entry's physical units: scalars, or arrays over the batch. The canonical form is made outside jit: for every
node, and every edge, that can be acted upon a static kind and arrays (mask [b], arguments), so that another value, or no
intervention at all, is not another trace. The draws of a stochastic intervention are made here and travel as an argument: an
answer is a function of noise and acts, and two questions with the same key share their draws.

A model whose mechanisms may read one parent apart has a field or property `edges`, the (parent, child) pairs that may be acted upon (most:
`graph.edges`). Its `predict` calls the mechanism of a child on `read_by(child, values, acts)` in place of `values`, applies `acts[child]`
to what comes out, and its `descendants` is `moved(graph, acts)`. Nested counterfactuals follow from that: Y(x', M(x)) is the answer to
do(x=x', edge=("x", "y")), the natural direct effect (Pearl, Direct and indirect effects, UAI 2001; edges: Avin et al., IJCAI 2005).
"""

from __future__ import annotations

import dataclasses
import difflib
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from causal_gen.structure.graph import Dag
from causal_gen.types import Array, Bool, InterventionError, Key

# kind -> (number of arguments, function of the natural value and the arguments)
KINDS: dict[str, tuple[int, Any]] = {
    "do": (1, lambda natural, value: jnp.broadcast_to(value, natural.shape)),
    "shift": (1, lambda natural, by: natural + by),
    "scale": (1, lambda natural, by: natural * by),
    "affine": (2, lambda natural, by, plus: natural * by + plus),
    "clip": (2, lambda natural, low, high: jnp.clip(natural, low, high)),
}
# kind -> (number of arguments, standard draw, function of the natural value, the arguments and the draw)
STOCHASTIC: dict[str, tuple[int, Any, Any]] = {
    "normal": (2, jax.random.normal, lambda natural, mean, sd, e: mean + sd * e),
    "uniform": (2, jax.random.uniform, lambda natural, low, high, u: low + (high - low) * u),
    "bernoulli": (1, jax.random.uniform, lambda natural, p, u: (u < p).astype(jnp.float32)),
    "jitter": (1, jax.random.normal, lambda natural, sd, e: natural + sd * e),
}
Kind = str | Callable[..., Array]
Edge = tuple[str, str]


@dataclasses.dataclass(frozen=True, eq=False)
class Action:
    """One intervention as written: kind and arguments, scalars or [b] arrays; `key` where it draws, `mask` [b] where not all are meant."""

    kind: Kind
    args: tuple[Any, ...]
    key: Key | None = None
    mask: Any = None


@dataclasses.dataclass(frozen=True, eq=False)
class Intervention:
    """A joint intervention: one `Action` a node, or an edge, which is called "parent->child". Combine with `&`."""

    actions: Mapping[str, Action]

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes acted upon, edges as "parent->child"."""
        return tuple(self.actions)

    def __and__(self, other: Intervention) -> Intervention:
        twice = sorted(set(self.actions) & set(other.actions))
        if twice:
            raise InterventionError(f"intervention: {twice[0]!r} is acted upon twice; give each node one intervention")
        return Intervention({**self.actions, **other.actions})

    def where(self, mask: Any) -> Intervention:
        """The same on the examples alone for which `mask`, bool [b], holds; the others keep their natural values."""
        return Intervention(
            {
                name: dataclasses.replace(action, mask=mask if action.mask is None else jnp.logical_and(action.mask, mask))
                for name, action in self.actions.items()
            }
        )


def do(*, edge: Any = None, **values: Any) -> Intervention:
    """Replace the mechanisms of the named nodes by constants, in physical units; with `edge` what one child reads of one parent."""
    return soft("do", edge=edge, **values)


def shift(*, edge: Any = None, **values: Any) -> Intervention:
    """Add to the natural values of the named nodes, in physical units; with `edge` to what one child reads of one parent."""
    return soft("shift", edge=edge, **values)


def soft(kind: Kind, /, *, edge: Any = None, **values: Any) -> Intervention:
    """A function of the natural value: one of `KINDS` by name, or any jax function of the natural value and the arguments given.

    A function is static: make it once, outside of loops, or every call compiles anew. Raises `InterventionError` for an unknown kind, a
    wrong number of arguments, or an edge that is not of the node named.
    """
    if isinstance(kind, str) and kind in STOCHASTIC:
        raise InterventionError(f"intervention: {kind!r} draws; write stochastic({kind!r}, jax.random.key(0), ...)")
    if not callable(kind) and kind not in KINDS:
        near = difflib.get_close_matches(kind, [*KINDS, *STOCHASTIC], n=1) or sorted(KINDS)
        raise InterventionError(f"intervention: unknown kind {kind!r}; did you mean {near[0]!r}?")
    return _written(kind, None if callable(kind) else KINDS[kind][0], None, edge, values)


def stochastic(kind: str, key: Key, /, *, edge: Any = None, **values: Any) -> Intervention:
    """A draw for every example, by `STOCHASTIC`: normal (mean, sd), uniform (low, high), bernoulli (p), jitter (sd; adds to the value).

    Nodes draw independently of one another under one key, examples do so whatever the size of the batch. Raises as `soft` does.
    """
    if kind not in STOCHASTIC:
        near = difflib.get_close_matches(kind, STOCHASTIC, n=1) or sorted(STOCHASTIC)
        raise InterventionError(f"intervention: unknown stochastic kind {kind!r}; did you mean {near[0]!r}?")
    return _written(kind, STOCHASTIC[kind][0], key, edge, values)


def _written(kind: Kind, arity: int | None, key: Key | None, edge: Any, values: dict[str, Any]) -> Intervention:
    shown = kind if isinstance(kind, str) else "soft"
    pair = isinstance(edge, tuple | list) and len(edge) == 2 and all(isinstance(end, str) for end in edge)
    if edge is not None and not pair:
        values, edge = {**values, "edge": edge}, None  # a node of that name
    if edge is not None and list(values) != [edge[0]]:
        given = ", ".join(values) or "nothing"
        raise InterventionError(
            f"intervention: edge={edge[0]} -> {edge[1]} takes one value, of {edge[0]!r}, got {given}; write {edge[0]}=..."
        )
    actions = {}
    for node, value in values.items():
        several = arity is None or arity > 1
        args = tuple(value) if several and isinstance(value, Sequence) else (value,)
        if arity is not None and len(args) != arity:
            raise InterventionError(f"intervention: {shown}({node}=...) takes {arity} argument(s), got {len(args)}")
        actions[edge_name(*edge) if edge is not None else node] = Action(kind, args, key)
    return Intervention(actions)


def edge_name(parent: str, child: str) -> str:
    """What an edge is called among the acts."""
    return f"{parent}->{child}"


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
    kind: Kind = dataclasses.field(metadata={"static": True})

    def apply(self, natural: Array) -> Array:
        """The value of the node given its natural value, of the mask's shape and any further axes."""
        rest = (1,) * (natural.ndim - self.mask.ndim)
        args = (arg.reshape(arg.shape + rest) for arg in self.args)
        function = self.kind if not isinstance(self.kind, str) else (KINDS.get(self.kind) or STOCHASTIC[self.kind])[-1]
        return jnp.where(self.mask.reshape(self.mask.shape + rest), function(natural, *args), natural)


Acts = dict[str, Act]


def canonical(
    intervention: Intervention | Acts | None,
    nodes: Sequence[str],
    num: int,
    spans: Mapping[str, Span] | None = None,
    edges: Sequence[Edge] = (),
) -> Acts:
    """Arrays over `num` examples for each of `nodes` and `edges`; None, and what is not named, become a `do` whose mask is all false.

    `spans` says which nodes are sequences. A canonical form passes through unchanged. Raises `InterventionError` for a node or edge that is
    not among those, a value that is neither a scalar nor an array over the batch, and a position or token that is out of range.
    """
    if isinstance(intervention, dict):
        return intervention
    actions = intervention.actions if intervention is not None else {}
    known = (*nodes, *(edge_name(*edge) for edge in edges))
    for node in actions:
        if node not in known:
            raise InterventionError(_unknown(node, nodes, known))
    acts: Acts = {}
    null = Act(jnp.zeros((num,), bool), (jnp.zeros((num,)),), "do")
    for node in known:
        if spans and node in spans:
            acts[node] = _by_position(node, actions.get(node, Action("do", ({},))), num, spans[node])
        else:
            acts[node] = _over_examples(node, actions[node], num) if node in actions else null
    return acts


def acts_on(model: Any, intervention: Intervention | Acts | None, num: int) -> Acts:
    """`canonical` for all that can be acted upon in `model`: its nodes, sequences and edges."""
    return canonical(intervention, model.actable, num, getattr(model, "spans", None), getattr(model, "edges", ()))


def read_by(child: str, values: Mapping[str, Any], acts: Acts) -> dict[str, Any]:
    """What the mechanism of `child` reads of the nodes' `values` [b, ...]: those of its parents changed whose edge to it is acted upon."""
    changed = {parent: acts[edge_name(parent, child)] for parent in values if edge_name(parent, child) in acts}
    return {**values, **{parent: act.apply(jnp.asarray(values[parent])).astype(values[parent].dtype) for parent, act in changed.items()}}


def moved(graph: Dag, acts: Acts) -> dict[str, Bool[Array, "b"]]:
    """What `acts` may move: nodes acted upon, children that read a parent through an edge acted upon, and the descendants of both."""
    found: dict[str, Any] = {}
    for name in graph.order:
        parents = graph.parents(name)
        above = [acts[key].mask for key in (name, *(edge_name(parent, name) for parent in parents)) if key in acts]
        above += [found[parent] for parent in parents]
        found[name] = jnp.stack(above).any(0) if above else jnp.zeros_like(next(iter(acts.values())).mask)
    return {name: found[name] for name in graph.nodes}


def _unknown(node: str, nodes: Sequence[str], known: Sequence[str]) -> str:
    near = difflib.get_close_matches(node, known, n=1)
    edges = known[len(nodes) :]
    if "->" in node:
        way = f"the edges are {', '.join(edges)}" if edges else "this model's mechanisms read no parent apart; act upon the node"
        return f"intervention: no edge {node!r} that could be acted upon; {f'did you mean {near[0]!r}?' if near and edges else way}"
    way = f"did you mean {near[0]!r}?" if near else f"the factors are {', '.join(nodes)}"
    return f"intervention: unknown factor {node!r}; {way}"


def _over_examples(node: str, action: Action, num: int) -> Act:
    shown = action.kind if isinstance(action.kind, str) else "soft"
    args = tuple(_over_batch(f"{shown}({node}=...)", arg, num, jnp.float32) for arg in action.args)
    if action.key is not None:
        own = jax.random.fold_in(action.key, zlib.crc32(node.encode()))  # nodes draw independently, whatever their order
        draw = STOCHASTIC[str(action.kind)][1]
        args += (jax.vmap(lambda i: draw(jax.random.fold_in(own, i)))(jnp.arange(num)),)
    mask = jnp.ones((num,), bool) if action.mask is None else _over_batch(f"{shown}({node}=...).where", action.mask, num, bool)
    return Act(mask, args, action.kind)


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
        shown = action.kind if isinstance(action.kind, str) else "soft"
        raise InterventionError(f"intervention: {shown}({node}=...): tokens are names, not amounts; only do sets them")
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
    meant = jnp.asarray(mask)
    if action.mask is not None:
        meant &= _over_batch(f"do({node}=...).where", action.mask, num, bool)[:, None]
    return Act(meant, (tokens,), "do")
