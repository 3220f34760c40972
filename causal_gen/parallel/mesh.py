"""The device mesh: four named axes, made with explicit axis types, and how a batch lies on it.

Axes: data (replicas that see other examples), fsdp (other examples, parameters in shards), tensor (parameters in shards inside a layer),
sequence (positions in shards). A batch is split over data and fsdp together.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from causal_gen.types import ConfigError, Int

AXES = ("data", "fsdp", "tensor", "sequence")
BATCH_AXES = ("data", "fsdp")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; one of them may be -1, "what is left". `mode` names the compile path (parallel/compile.py)."""

    data: int = dataclasses.field(default=-1, metadata={"min": -1})
    fsdp: int = dataclasses.field(default=1, metadata={"min": -1})
    tensor: int = dataclasses.field(default=1, metadata={"min": -1})
    sequence: int = dataclasses.field(default=1, metadata={"min": -1})
    mode: str = dataclasses.field(default="jit", metadata={"choices": ("jit", "pmap")})

    def __post_init__(self):
        sizes = self.sizes
        if any(size == 0 or size < -1 for size in sizes.values()):
            raise ValueError(f"mesh sizes are positive, or -1 for what is left, got {sizes}")
        if list(sizes.values()).count(-1) > 1:
            raise ValueError(f"only one mesh size may be -1, got {sizes}")
        if self.mode == "pmap" and any(sizes[name] != 1 for name in AXES[1:]):
            raise ValueError(f"mode pmap replicates the parameters: fsdp, tensor and sequence must be 1, got {sizes}")

    @property
    def sizes(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in AXES}


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh over `devices` (default: all). Raises ConfigError when the sizes do not multiply to the number of devices."""
    devices = list(jax.devices() if devices is None else devices)
    fixed = math.prod(size for size in config.sizes.values() if size != -1)
    shape = tuple(len(devices) // fixed if size == -1 else size for size in config.sizes.values())
    if math.prod(shape) != len(devices):
        named = ", ".join(f"mesh.{name}={size}" for name, size in config.sizes.items())
        raise ConfigError(
            f"{named} do not multiply to the {len(devices)} devices present: change a size, or set one to -1 for what is left"
        )
    # jax.make_mesh would make Explicit axes by default, where a sharded contraction is an error
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Axis 0 over data and fsdp together; the other axes whole."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def batch_shards(mesh: Mesh) -> int:
    return math.prod(mesh.shape[name] for name in BATCH_AXES)


def check_batch_size(mesh: Mesh, batch_size: int, accumulate: int = 1) -> None:
    """Raises ConfigError unless every microbatch splits evenly over the shards."""
    pieces = batch_shards(mesh) * accumulate
    if batch_size % pieces:
        raise ConfigError(
            f"train.batch_size={batch_size} does not split into {batch_shards(mesh)} devices (mesh.data x mesh.fsdp) times "
            f"train.accumulate={accumulate}: use a multiple of {pieces}"
        )


@functools.lru_cache(maxsize=64)
def local_rows(mesh: Mesh, size: int) -> Int[np.ndarray, "slice"]:
    """Numbers of the rows of a global batch of `size` that lie on this process's devices, ascending: all of them with one process.

    Several processes may hold the same row (tensor and sequence repeat it), and a process's rows need not be consecutive.
    """
    held = batch_sharding(mesh).addressable_devices_indices_map((size,)).values()
    rows = np.unique(np.concatenate([np.arange(size)[place] for place in held]))
    rows.flags.writeable = False
    return rows


def put_batch(mesh: Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """The rows of this process (axis 0, those of `local_rows`) to global arrays on the mesh; returns before the copy has ended."""
    sharding, shards = batch_sharding(mesh), batch_shards(mesh)
    share = len(local_rows(mesh, shards))

    def put(value: np.ndarray) -> jax.Array:
        return jax.make_array_from_process_local_data(sharding, value, (len(value) // share * shards, *value.shape[1:]))

    return {name: put(value) for name, value in batch.items()}


def spread(mesh: Mesh | None, rows: np.ndarray) -> jax.Array:
    """Rows (axis 0) that every process holds, split over the mesh; whole on the device where they do not divide, or there is no mesh."""
    if mesh is None or len(rows) % batch_shards(mesh):
        return jnp.asarray(rows)
    return jax.make_array_from_callback(rows.shape, batch_sharding(mesh), lambda place: rows[place])


def mesh_of(tree: Any) -> Mesh | None:
    """The mesh on which a tree of parameters lies; None for one that lies on one device."""
    leaf = next(iter(jax.tree.leaves(tree)), None)
    mesh = getattr(leaf.sharding, "mesh", None) if isinstance(leaf, jax.Array) else None
    return mesh if isinstance(mesh, Mesh) and mesh.size > 1 else None


def replicate(tree: Any) -> Any:
    """A tree of arrays whole on every device of its mesh, so that whatever is computed from it can be read on every host."""
    mesh = mesh_of(tree)
    return tree if mesh is None else jax.jit(lambda leaves: leaves, out_shardings=replicated(mesh))(tree)
