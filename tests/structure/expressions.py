"""Random expressions of visibilities, each beside a slow twin: a function of two dicts of plain numbers, a query's and a key's.

The twins are written from the definitions, a pair at a time; tests of attention use the expressions too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from causal_gen.structure.graph import Dag
from causal_gen.structure.masks import (
    block_causal,
    causal,
    dag,
    dilated,
    full,
    label_blocks,
    order,
    prefix,
    same,
    same_document,
    same_segment,
    segment_block,
    skip_causal,
    stride_aware,
    tree,
    valid,
    window,
)  # fmt: skip
from causal_gen.structure.visibility import Visibility

Twin = Callable[[dict[str, Any], dict[str, Any]], bool]

NAMES = ("segment", "document", "frame", "block", "order", "noisy", "group", "prefix", "valid", "node", "enter", "leave")
GRAPH = Dag.from_edges([("a", "b"), ("b", "c"), ("a", "d")])
PARENTS, ANCESTORS = {0: [], 1: [0], 2: [1], 3: [0]}, {0: [], 1: [0], 2: [0, 1], 3: [0]}


def _skip_causal(q: dict, k: dict) -> bool:
    if k["noisy"]:
        return bool(q["noisy"]) and k["block"] == q["block"]
    return k["block"] < q["block"] if q["noisy"] else k["block"] <= q["block"]


LEAVES: list[tuple[Visibility, Twin]] = [
    (full(), lambda q, k: True),
    (causal(), lambda q, k: k["index"] <= q["index"]),
    (causal(strict=True), lambda q, k: k["index"] < q["index"]),
    (prefix(3), lambda q, k: k["index"] in (0, 1, 2)),
    (prefix(), lambda q, k: bool(k["prefix"])),
    (same("group"), lambda q, k: q["group"] == k["group"]),
    (same_document(), lambda q, k: q["document"] == k["document"]),
    (same_segment(), lambda q, k: q["segment"] == k["segment"]),
    (segment_block(), lambda q, k: k["index"] <= q["index"] or q["segment"] == k["segment"] != -1),
    (block_causal(), lambda q, k: k["frame"] <= q["frame"]),
    (window(2), lambda q, k: k["index"] in range(q["index"] - 1, q["index"] + 2)),
    (window(4), lambda q, k: k["index"] in range(q["index"] - 3, q["index"] + 4)),
    (dilated(3), lambda q, k: k["index"] % 3 == q["index"] % 3),
    (order(), lambda q, k: not k["order"] > q["order"]),
    (order(strict=True), lambda q, k: q["order"] > k["order"]),
    (skip_causal(), _skip_causal),
    (tree(), lambda q, k: q["enter"] in range(k["enter"], k["leave"])),
    (stride_aware(3), lambda q, k: k["index"] == q["index"] or (k["index"] < q["index"] and k["index"] in range(2, 99, 3))),
    (label_blocks(), lambda q, k: k["group"] == 0 or (q["group"] == k["group"] and k["index"] <= q["index"])),
    (valid(), lambda q, k: k["valid"] != 0),
    (dag(GRAPH), lambda q, k: k["node"] in [q["node"], *PARENTS[q["node"]]]),
    (dag(GRAPH, ancestors=True), lambda q, k: k["node"] in [q["node"], *ANCESTORS[q["node"]]]),
]


def recipes(leaves: int = 6) -> st.SearchStrategy[Any]:
    """Random expressions of the leaves under `&`, `|` and `~`, as nested tuples for `cook`.

    They are cooked outside the strategy: checking types at run time draws random numbers, which hypothesis forbids inside.
    """
    grow = lambda inner: st.one_of(st.tuples(st.sampled_from("&|"), inner, inner), st.tuples(st.just("~"), inner))  # noqa: E731
    return st.recursive(st.integers(0, len(LEAVES) - 1), grow, max_leaves=leaves)


def cook(recipe: Any) -> tuple[Visibility, Twin]:
    """The visibility and its twin."""
    if isinstance(recipe, int):
        return LEAVES[recipe]
    kind, (a, twin_a), *rest = recipe[0], *map(cook, recipe[1:])
    if kind == "~":
        return ~a, lambda q, k: not twin_a(q, k)
    b, twin_b = rest[0]
    if kind == "&":
        return a & b, lambda q, k: twin_a(q, k) and twin_b(q, k)
    return a | b, lambda q, k: twin_a(q, k) or twin_b(q, k)


def random_fields(seed: int, batch: int, t: int) -> dict[str, np.ndarray]:
    """Every field that the leaves read, [batch, t]; "segment" and "document" hold a -1 now and then."""
    rng = np.random.default_rng(seed)
    fields = {name: rng.integers(0, 4, (batch, t)) for name in NAMES}
    fields |= {name: rng.integers(0, 2, (batch, t)) for name in ("noisy", "prefix", "valid")}
    fields |= {name: np.sort(rng.integers(-1, 3, (batch, t)), axis=1) for name in ("segment", "document")}
    fields["order"] = rng.permuted(np.tile(np.arange(t), (batch, 1)), axis=1)
    fields["leave"] = fields["enter"] + rng.integers(1, 4, (batch, t))
    return {name: field.astype(np.int32) for name, field in fields.items()}


def pair_by_pair(twin: Twin, q: dict[str, Any], k: dict[str, Any], batch: int) -> np.ndarray:
    """bool [batch, tq, tk] by asking the twin about one pair after the other."""

    def token(fields: dict[str, Any], row: int, i: int) -> dict[str, int]:
        return {name: int(field[i] if np.ndim(field) == 1 else field[row, i]) for name, field in fields.items()}

    tq, tk = np.shape(q["index"])[0], np.shape(k["index"])[0]
    return np.array([[[twin(token(q, b, i), token(k, b, j)) for j in range(tk)] for i in range(tq)] for b in range(batch)])
