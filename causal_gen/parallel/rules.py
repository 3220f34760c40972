"""Which axis of which leaf is split over which mesh axis, in one file.

By default the largest axis that fsdp divides is split over fsdp. Overrides, first match first, place the other axes:
`(regex on the path, one mesh axis or None per axis of the leaf)`; fsdp then takes the largest axis that is left. Leaves of
fewer than SMALL entries are whole on every device: gathering them costs more than it saves. A rule of the wrong rank, an unknown
axis, a size that does not divide, and a large leaf without an axis to split are errors, so that no leaf is replicated in silence.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from causal_gen.types import ConfigError, PyTree

SMALL = 4096
Rule = tuple[str, tuple[str | None, ...]]


def leaf_path(path: tuple) -> str:
    """`params/unet/conv/kernel` of a jax key path."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def spec_for(path: str, shape: tuple[int, ...], mesh: Mesh, overrides: Sequence[Rule] = ()) -> PartitionSpec:
    """The partition of one leaf. Raises ConfigError naming the leaf where a rule does not fit."""
    axes: list[str | None] = [None] * len(shape)
    for pattern, wanted in overrides:
        if re.search(pattern, path):
            axes = _checked(path, shape, mesh, pattern, wanted)
            break
    ways = mesh.shape["fsdp"]
    if ways > 1 and math.prod(shape) >= SMALL and "fsdp" not in axes:
        free = [i for i, size in enumerate(shape) if axes[i] is None and size % ways == 0]
        if not free:
            raise ConfigError(f"no free axis of {path} {shape} divides over mesh.fsdp={ways}: change mesh.fsdp or give a rule for it")
        axes[max(free, key=lambda i: shape[i])] = "fsdp"
    while axes and axes[-1] is None:
        axes.pop()
    return PartitionSpec(*axes)


def _checked(path: str, shape: tuple[int, ...], mesh: Mesh, pattern: str, wanted: Sequence[str | None]) -> list[str | None]:
    if len(wanted) != len(shape):
        raise ConfigError(f"rule {pattern!r} places {len(wanted)} axes, {path} {shape} has {len(shape)}: mend the rule")
    for size, name in zip(shape, wanted, strict=True):
        if name is not None and name not in mesh.shape:
            raise ConfigError(f"rule {pattern!r} names the mesh axis {name!r}, the mesh has {tuple(mesh.shape)}: mend the rule")
        if name is not None and size % mesh.shape[name]:
            raise ConfigError(f"{path} {shape}: {size} does not divide over mesh.{name}={mesh.shape[name]} (rule {pattern!r})")
    return list(wanted)


def shardings(tree: PyTree, mesh: Mesh, overrides: Sequence[Rule] = ()) -> PyTree:
    """A NamedSharding for every leaf of a tree of arrays or ShapeDtypeStructs.

    The optimiser's moments carry the path of their parameter at the end of their own, so that the same rules place them.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: NamedSharding(mesh, spec_for(leaf_path(path), tuple(leaf.shape), mesh, overrides)), tree
    )


def place(tree: PyTree, mesh: Mesh, overrides: Sequence[Rule] = ()) -> PyTree:
    """A tree of ShapeDtypeStructs with its `shardings`: what a checkpoint is restored to."""
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings(tree, mesh, overrides))


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the parameter table; `bytes` are those held by one device."""

    path: str
    shape: tuple[int, ...]
    spec: str
    bytes: int


def table(tree: PyTree, placed: PyTree) -> list[Row]:
    """The parameter table of a tree (arrays or ShapeDtypeStructs) and its shardings, in tree order."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    rows = []
    for (path, leaf), sharding in zip(leaves, jax.tree.leaves(placed), strict=True):
        held = math.prod(sharding.shard_shape(tuple(leaf.shape))) * leaf.dtype.itemsize
        rows.append(Row(leaf_path(path), tuple(leaf.shape), str(tuple(sharding.spec)), held))
    return rows
