"""Whether what lies on disk is what a config asks for, by shapes and dtypes alone, before an array is read."""

from __future__ import annotations

import jax
import numpy as np

from causal_gen.parallel.rules import leaf_path
from causal_gen.types import PyTree


def described(tree: PyTree) -> dict[str, str]:
    """{path: "float32 (3, 3)"}, the same text for arrays, ShapeDtypeStructs and Orbax metadata; containers without leaves drop out."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if hasattr(leaf, "shape") and hasattr(leaf, "dtype"):
            found[leaf_path(path)] = f"{np.dtype(leaf.dtype)} {tuple(leaf.shape)}"
    return found


def mismatch(item: str, wanted: PyTree, stored: PyTree) -> str | None:
    """The first leaf that differs, as the end of a sentence that begins with the checkpoint's name; None where all agree."""
    expected, there = described(wanted), described(stored)
    if expected and not there:
        return f"holds no {item}: set what it was trained with, or use a new workdir"
    for path in sorted(expected.keys() | there.keys()):
        mine, theirs = expected.get(path, "nothing"), there.get(path, "nothing")
        if mine == theirs:
            continue
        of = "optimiser" if item == "rest" else "model"
        if path in expected and path in there and mine.partition(" ")[2] == theirs.partition(" ")[2]:
            of = "dtype"
        return (
            f"is of another {of}: {item}/{path} is {theirs} there, {mine} in this config; "
            "restore the config it was trained with, or use a new workdir"
        )
    return None
