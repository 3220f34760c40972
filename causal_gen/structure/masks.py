"""Named visibilities: one function and one picture each. A row of a picture is a query, '#' what it sees.

Sources: window, dilated: Beltagy et al., Longformer (2020); prefix: Raffel et al., T5 (2020); same_document: Zhao et al., Sequence
Composition (ACL 2024); segment_block: Katz et al., Segment-Based Attention Masking (2024); order: Yang et al., XLNet (2019);
skip_causal: Hu et al., ACDiT (2024), and Bao et al., UniLMv2 (2020); tree: Miao et al., SpecInfer (2024); stride_aware: Deng & Woodland,
MTLA (2025); label_blocks: Yue et al., NXTP (2024).
"""

from __future__ import annotations

import jax.numpy as jnp

from causal_gen.structure.graph import Dag
from causal_gen.structure.visibility import Side, Visibility, predicate
from causal_gen.types import Array, ConfigError, Int


@predicate
def full(q: Side, k: Side) -> Array:
    """Everybody sees everybody; `~full()` sees nothing.

    Picture: `full().show(3)`

        ###
        ###
        ###
    """
    return jnp.ones((1, 1, 1, 1), bool)


@predicate
def same(q: Side, k: Side, field: str) -> Array:
    """Equal in a field.

    Picture: `same("group").show(4, group=[0, 1, 0, 1])`

        #.#.
        .#.#
        #.#.
        .#.#
    """
    return q[field] == k[field]


@predicate
def causal(q: Side, k: Side, field: str = "index", strict: bool = False) -> Array:
    """What comes earlier in a field, and itself unless `strict`. Any field that orders tokens will do (a frame, a fraction, a time).

    Picture: `causal().show(4)`

        #...
        ##..
        ###.
        ####

    Rectangular, with 2 queries over 5 keys aligned at the end: `causal().show((2, 5))`

        ####.
        #####
    """
    return k[field] < q[field] if strict else k[field] <= q[field]


@predicate
def prefix(q: Side, k: Side, length: int | None = None) -> Array:
    """The first `length` tokens, or those whose field "prefix" is not 0; a prefix language model is `causal() | prefix()`.
    Raises `ConfigError` for a negative length.

    Picture: `(causal() | prefix(2)).show(4)`

        ##..
        ##..
        ###.
        ####
    """
    if length is not None and length < 0:
        raise ConfigError(f"prefix: length is {length}; give 0 or more, or none for the field 'prefix'")
    return k["prefix"] != 0 if length is None else k["index"] < length


def same_document() -> Visibility:
    """Tokens of one document (field "document") where several are packed into a row.

    Picture: `(causal() & same_document()).show(5, document=[0, 0, 0, 1, 1])`

        #....
        ##...
        ###..
        ...#.
        ...##
    """
    return same("document")


def same_segment() -> Visibility:
    """Tokens of one segment (field "segment").

    Picture: `same_segment().show(4, segment=[0, 0, 1, 1])`

        ##..
        ##..
        ..##
        ..##
    """
    return same("segment")


@predicate
def segment_block(q: Side, k: Side) -> Array:
    """MAS: a known segment (field "segment" >= 0) is seen whole by its own tokens; all else, and what is generated (< 0), is causal.

    Picture: `segment_block().show(6, segment=[0, 0, 1, 1, -1, -1])`

        ##....
        ##....
        ####..
        ####..
        #####.
        ######
    """
    return (k["index"] <= q["index"]) | ((k["segment"] == q["segment"]) & (q["segment"] >= 0))


def block_causal() -> Visibility:
    """Frames (field "frame"): whole inside, causal over them.

    Picture: `block_causal().show(6, frame=[0, 0, 1, 1, 1, 2])`

        ##....
        ##....
        #####.
        #####.
        #####.
        ######
    """
    return causal("frame")


@predicate
def window(q: Side, k: Side, size: int, field: str = "index") -> Array:
    """Less than `size` away, on both sides.

    Picture: `(causal() & window(2)).show(4)`

        #...
        ##..
        .##.
        ..##
    """
    _at_least_one("window: size", size)
    return jnp.abs(q[field] - k[field]) < size


@predicate
def dilated(q: Side, k: Side, step: int, field: str = "index") -> Array:
    """A whole number of steps away.

    Picture: `(causal() & dilated(2)).show(5)`

        #....
        .#...
        #.#..
        .#.#.
        #.#.#
    """
    _at_least_one("dilated: step", step)
    return (q[field] - k[field]) % step == 0


def order(strict: bool = False) -> Visibility:
    """Earlier in a permutation (field "order": the rank at which a token is generated); `strict` hides a token from itself.

    Picture: `order().show(4, order=[2, 0, 3, 1])`

        ##.#
        .#..
        ####
        .#.#
    """
    return causal("order", strict)


@predicate
def skip_causal(q: Side, k: Side) -> Array:
    """Clean and noisy copies (field "noisy" 0 or 1) of blocks (field "block"): clean sees clean blocks up to its own; noisy sees clean
    blocks before its own, and its own noisy block. With masks for the noisy copies it is the pseudo-masked language model.

    Picture: `skip_causal().show(8, noisy=[0, 0, 0, 0, 1, 1, 1, 1], block=[0, 0, 1, 1, 0, 0, 1, 1])`

        ##......
        ##......
        ####....
        ####....
        ....##..
        ....##..
        ##....##
        ##....##
    """
    own = k["block"] == q["block"]
    clean = (k["block"] < q["block"]) | (own & (q["noisy"] == 0))
    return jnp.where(k["noisy"] == 0, clean, own & (q["noisy"] != 0))


@predicate
def tree(q: Side, k: Side) -> Array:
    """A token's ancestors and itself in a tree of candidates, by the fields "enter" and "leave" of `tree_fields` (two numbers a token
    say all of an ancestor relation).

    Picture: `tree().show(5, **tree_fields([-1, 0, 0, 1, 2]))`

        #....
        ##...
        #.#..
        ##.#.
        #.#.#
    """
    return (k["enter"] <= q["enter"]) & (q["enter"] < k["leave"])


def tree_fields(parents: Int[Array, "n"] | list[int]) -> dict[str, Int[Array, "n"]]:
    """Fields "enter" and "leave" (i32 [n]) of nodes whose parents, earlier nodes or -1 for a root, are given; they may be traced.

    `enter` is the place in a depth-first walk and `leave` the first place after the node's descendants. A token that every node sees
    (the context before the tree) has enter = 0 and leave = n or more.
    """
    parent = jnp.asarray(parents, jnp.int32)
    place = jnp.arange(parent.size)
    own = place[:, None] == place[None, :]
    line = own  # line[i, a]: a is i or an ancestor of i; doubling the steps each turn
    hop = parent[:, None] == place[None, :]
    for _ in range(max(parent.size - 1, 0).bit_length()):
        line = line | (hop.astype(jnp.int32) @ line.astype(jnp.int32) > 0)
        hop = hop.astype(jnp.int32) @ hop.astype(jnp.int32) > 0
    size = line.sum(0)
    elder = (parent[:, None] == parent[None, :]) & (place[None, :] < place[:, None])
    before = (elder * size[None, :]).sum(1)  # nodes under elder siblings
    enter = (line * (before[None, :] + 1)).sum(1) - 1
    return {"enter": enter.astype(jnp.int32), "leave": (enter + size).astype(jnp.int32)}


@predicate
def stride_aware(q: Side, k: Side, stride: int) -> Array:
    """MTLA: keys are merged over chunks of `stride` tokens; a query sees the last (complete) key of each chunk before, and its own.

    Picture: `stride_aware(3).show(7)`

        #......
        .#.....
        ..#....
        ..##...
        ..#.#..
        ..#..#.
        ..#..##
    """
    _at_least_one("stride_aware: stride", stride)
    own = k["index"] == q["index"]
    return own | ((k["index"] < q["index"]) & ((k["index"] + 1) % stride == 0))


@predicate
def label_blocks(q: Side, k: Side) -> Array:
    """NXTP: everybody sees the shared prefix (field "group" 0); the labels after it (1, 2, ...) are causal and blind to one another.

    Picture: `label_blocks().show(7, group=[0, 0, 1, 1, 2, 2, 2])`

        ##.....
        ##.....
        ###....
        ####...
        ##..#..
        ##..##.
        ##..###
    """
    return (k["group"] == 0) | ((k["group"] == q["group"]) & (k["index"] <= q["index"]))


@predicate
def valid(q: Side, k: Side) -> Array:
    """Keys whose field "valid" is not 0: the slots of a cache that are filled, the tokens that are not padding.

    Picture: `valid().show(3, valid=[1, 0, 1])`

        #.#
        #.#
        #.#
    """
    return k["valid"] != 0


def dag(graph: Dag, ancestors: bool = False) -> Visibility:
    """Tokens of variables (field "node": the place of their variable among `graph.nodes`): a variable sees itself and its parents.

    Several layers pass on what parents have seen; with `ancestors` one layer sees it all. Other values of "node" see and show nothing.

    Raises `ConfigError` for a graph without nodes.

    Picture: `dag(Dag.from_edges([("a", "b"), ("b", "c")])).show(4, node=[0, 1, 1, 2])`

        #...
        ###.
        ###.
        .###
    """
    if not graph.nodes:
        raise ConfigError("dag: the graph has no nodes; name at least one")
    return _dag(graph, ancestors)


@predicate
def _dag(q: Side, k: Side, graph: Dag, ancestors: bool) -> Array:
    sees = [[a == b or a in (graph.ancestors(b) if ancestors else graph.parents(b)) for a in graph.nodes] for b in graph.nodes]
    known_q, known_k = ((node >= 0) & (node < len(graph.nodes)) for node in (q["node"], k["node"]))
    return jnp.asarray(sees)[q["node"], k["node"]] & known_q & known_k


def _at_least_one(what: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"{what} is {value}; it needs to be 1 or more")
