"""Which axis of which leaf is split over which mesh axis, in one file.

By default the largest axis that fsdp divides is split over fsdp. Rules, first match first, place the other axes: `(regex on the path, one
mesh axis or None per axis of the leaf)`, where a first "..." stands for any number of whole axes; fsdp then takes the largest axis that
is left. Rules of the config (mesh.rules) come before TENSOR, which splits pairs of matrices as Megatron does (Shoeybi et al. 2019): the
first by columns, the second by rows, so that what lies between them is never gathered. Leaves of fewer than SMALL entries that no rule
places are whole on every device: gathering them costs more than it saves. A rule of the wrong rank or that matches nothing, an
unknown axis, a size that does not divide, and a large leaf without an axis to split are errors: no large leaf is whole in silence.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from causal_gen.types import ConfigError, PyTree

SMALL = 4096
Rule = tuple[str, tuple[str | None, ...]]
TENSOR: tuple[Rule, ...] = (  # one that does not divide gives way to the next that matches
    (r"(^|/)(qkv|q|kv|query)/kernel$", ("...", "tensor")),
    (r"(attention|cross)/up$", ("...", "tensor", None)),
    (r"(attention|cross|mlp)/out/kernel$", ("...", "tensor", None)),
    (r"mlp/in/(kernel|bias)$", ("...", "tensor")),
    (r"experts/in$", ("...", "tensor")),
    (r"experts/out$", ("...", "tensor", None)),
    (r"(^|/)embed$", ("tensor", None)),
    (r"(^|/)embed$", (None, "tensor")),
    (r"(^|/)readout$", (None, "tensor")),
    (r"(^|/)readout$", ("tensor", None)),
    (r"unet/(down|middle|up)_[\d_]+/conv_in/kernel$", ("...", "tensor")),
    (r"unet/(down|middle|up)_[\d_]+/conv_out/kernel$", ("...", "tensor", None)),
)


def leaf_path(path: tuple) -> str:
    """`params/unet/conv/kernel` of a jax key path."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def spec_for(path: str, shape: tuple[int, ...], mesh: Mesh, rules: Sequence[Rule] = ()) -> PartitionSpec:
    """The partition of one leaf. Raises ConfigError naming the leaf where a rule does not fit."""
    axes = _placed(path, shape, mesh, rules)
    name = "fsdp" if mesh.shape["fsdp"] > 1 or mesh.shape["tensor"] == 1 else "tensor"
    ways = mesh.shape[name]
    if ways > 1 and math.prod(shape) >= SMALL and name not in axes:
        free = [i for i, size in enumerate(shape) if axes[i] is None and size % ways == 0]
        if not free:
            raise ConfigError(f"no free axis of {path} {shape} divides over mesh.{name}={ways}: change mesh.{name} or give a rule for it")
        axes[max(free, key=lambda i: shape[i])] = name
    while axes and axes[-1] is None:
        axes.pop()
    return PartitionSpec(*axes)


def _placed(path: str, shape: tuple[int, ...], mesh: Mesh, rules: Sequence[Rule]) -> list[str | None]:
    """A mesh axis or None per axis of the leaf, by the first rule of the config, else by the first of TENSOR that divides."""
    for pattern, wanted in rules:
        if re.search(pattern, path):
            return _checked(path, shape, mesh, pattern, wanted)
    refused = None
    for pattern, wanted in TENSOR if mesh.shape["tensor"] > 1 else ():
        if re.search(pattern, path):
            try:
                return _checked(path, shape, mesh, pattern, wanted)
            except ConfigError as error:
                refused = refused or error
    if refused is not None and math.prod(shape) >= SMALL:
        raise refused
    return [None] * len(shape)


def _checked(path: str, shape: tuple[int, ...], mesh: Mesh, pattern: str, wanted: Sequence[str | None]) -> list[str | None]:
    if wanted and wanted[0] == "...":
        wanted = (*(None for _ in range(len(shape) - len(wanted) + 1)), *wanted[1:])
    if len(wanted) != len(shape):
        raise ConfigError(f"rule {pattern!r} places {len(wanted)} axes, {path} {shape} has {len(shape)}: mend the rule")
    for size, name in zip(shape, wanted, strict=True):
        if name is not None and name not in mesh.shape:
            raise ConfigError(f"rule {pattern!r} names the mesh axis {name!r}, the mesh has {tuple(mesh.shape)}: mend the rule")
        if name is not None and size % mesh.shape[name]:
            raise ConfigError(
                f"{path} {shape}: {size} does not divide over mesh.{name}={mesh.shape[name]} (rule {pattern!r}): change mesh.{name}, or "
                "place it by a rule of mesh.rules"
            )
    named = [name for name in wanted if name is not None]
    if len(set(named)) < len(named):
        raise ConfigError(f"rule {pattern!r} names a mesh axis twice, {tuple(wanted)}: mend the rule")
    return list(wanted)


def shardings(tree: PyTree, mesh: Mesh, rules: Sequence[Rule] = ()) -> PyTree:
    """A NamedSharding for every leaf of a tree of arrays or ShapeDtypeStructs: parameters, or a state that has them as `params`.

    In a state the rules are about the parameters. Averages and moments, whose paths end in that of a parameter, lie as it does. Raises
    ConfigError for a rule that matches no parameter.
    """
    params = [(leaf_path(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(getattr(tree, "params", tree))]
    for pattern, _ in rules:
        if not any(re.search(pattern, path) for path, _ in params):
            near = ", ".join([path for path, _ in params if path.endswith("kernel")][:2] or [path for path, _ in params][:2])
            raise ConfigError(f"rule {pattern!r} of mesh.rules matches no parameter: mend or remove it; paths look like {near}")
    placed = {(path, tuple(leaf.shape)): spec_for(path, tuple(leaf.shape), mesh, rules) for path, leaf in params}

    def place(path: tuple, leaf: Any) -> NamedSharding:
        whole, shape = leaf_path(path), tuple(leaf.shape)
        parts = whole.split("/")
        tails = ("/".join(parts[start:]) for start in range(len(parts)))
        spec = next((placed[tail, shape] for tail in tails if (tail, shape) in placed), None)
        return NamedSharding(mesh, spec_for(whole, shape, mesh) if spec is None else spec)

    return jax.tree_util.tree_map_with_path(place, tree)


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
