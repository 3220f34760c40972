"""The device mesh: named axes, made with explicit axis types, how a batch lies on it, and how answers come back from it.

Axes: data (replicas that see other examples), fsdp (other examples, parameters in shards), tensor (parameters in shards inside a layer),
sequence (positions in shards). Where there are several data centres, or slices of TPUs that a slow network joins, an axis "slice" stands
before them: replicas again, so that nothing but the gradient's mean crosses that network. A batch is split over slice, data and fsdp.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from causal_gen.parallel import hosts
from causal_gen.types import ConfigError, Int, PyTree

AXES = ("data", "fsdp", "tensor", "sequence")
SLICE = "slice"


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices of a slice along each axis; one of them may be -1, "what is left". `slices` are the groups of devices that a slow network
    joins (TPU slices; of other devices contiguous groups). `rules` place parameters by hand, before the defaults of parallel/rules.py:
    (regex on the path, one mesh axis or None per axis of the parameter). `mode` names the compile path (parallel/compile.py).
    """

    data: int = dataclasses.field(default=-1, metadata={"min": -1})
    fsdp: int = dataclasses.field(default=1, metadata={"min": -1})
    tensor: int = dataclasses.field(default=1, metadata={"min": -1})
    sequence: int = dataclasses.field(default=1, metadata={"min": -1})
    slices: int = dataclasses.field(default=1, metadata={"min": 1})
    rules: tuple[tuple[str, tuple[str | None, ...]], ...] = ()
    mode: str = dataclasses.field(default="jit", metadata={"choices": ("jit", "pmap")})

    def __post_init__(self):
        sizes = self.sizes
        if any(size == 0 or size < -1 for size in sizes.values()):
            raise ValueError(f"mesh sizes are positive, or -1 for what is left, got {sizes}")
        if list(sizes.values()).count(-1) > 1:
            raise ValueError(f"only one mesh size may be -1, got {sizes}")
        if self.mode == "pmap" and any(sizes[name] != 1 for name in AXES[1:]):
            raise ValueError(f"mode pmap replicates the parameters: fsdp, tensor and sequence must be 1, got {sizes}")
        for pattern, _ in self.rules:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"rules: {pattern!r} is no regular expression ({error}); write, for instance, embed$") from error

    @property
    def sizes(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in AXES}


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh over `devices` (default: all). Raises ConfigError when the sizes do not multiply to the number of devices, or the slices
    are not those that the devices lie in."""
    devices = list(jax.devices() if devices is None else devices)
    fixed = math.prod(size for size in config.sizes.values() if size != -1) * config.slices
    shape = tuple(len(devices) // fixed if size == -1 else size for size in config.sizes.values())
    if math.prod(shape) * config.slices != len(devices):
        named = ", ".join(f"mesh.{name}={size}" for name, size in {"slices": config.slices, **config.sizes}.items())
        raise ConfigError(
            f"{named} do not multiply to the {len(devices)} devices present: change a size, or set one to -1 for what is left"
        )
    slices = [_arranged(shape, group) for group in _by_slice(config.slices, devices)]
    names, grid = (AXES, slices[0]) if config.slices == 1 else ((SLICE, *AXES), np.stack(slices))
    # explicitly Auto: jax.make_mesh would make Explicit axes, where a sharded contraction is an error
    return Mesh(grid, names, axis_types=(AxisType.Auto,) * len(names))


def _by_slice(count: int, devices: list[Any]) -> list[list[Any]]:
    found: dict[int, list[Any]] = {}
    if devices[0].platform == "tpu":  # elsewhere slice_index is the host, and hosts in a row are joined as well as any
        for device in devices:
            found.setdefault(getattr(device, "slice_index", 0), []).append(device)
        if len(found) != count:
            raise ConfigError(f"mesh.slices={count}, but the TPUs present lie in {len(found)} slices: set mesh.slices={len(found)}")
        return [found[index] for index in sorted(found)]
    size = len(devices) // count
    return [devices[i * size : (i + 1) * size] for i in range(count)]


def _arranged(shape: tuple[int, ...], devices: list[Any]) -> np.ndarray:
    """Devices of a slice with those that talk most side by side: the last axes on the shortest links."""
    try:
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    except (NotImplementedError, ValueError):  # a topology that it knows no assignment for; any order is right, if slower
        return np.asarray(sorted(devices, key=lambda device: device.id)).reshape(shape)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def batch_axes(mesh: Mesh) -> tuple[str, ...]:
    """The axes over which examples are split."""
    return tuple(name for name in (SLICE, "data", "fsdp") if name in mesh.shape)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Axis 0 over slice, data and fsdp together; the other axes whole."""
    return NamedSharding(mesh, PartitionSpec(batch_axes(mesh)))


def batch_shards(mesh: Mesh) -> int:
    """Into how many parts the mesh cuts a batch."""
    return math.prod(mesh.shape[name] for name in batch_axes(mesh))


def check_batch_size(mesh: Mesh, batch_size: int, accumulate: int = 1) -> None:
    """Raises ConfigError unless every microbatch splits evenly over the shards."""
    pieces = batch_shards(mesh) * accumulate
    if batch_size % pieces:
        product = " x ".join(f"mesh.{'slices' if name == SLICE else name}" for name in batch_axes(mesh))
        raise ConfigError(
            f"train.batch_size={batch_size} does not split into {batch_shards(mesh)} devices ({product}) times "
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
    sharding = batch_sharding(mesh)
    if hosts.count() == 1:  # all entries in one call, at two thirds of the host's time
        return jax.device_put(dict(batch), sharding)
    shards = batch_shards(mesh)
    share = len(local_rows(mesh, shards))

    def put(value: np.ndarray) -> jax.Array:
        return jax.make_array_from_process_local_data(sharding, value, (len(value) // share * shards, *value.shape[1:]))

    return {name: put(value) for name, value in batch.items()}


def current(params: PyTree) -> contextlib.AbstractContextManager[Any]:
    """A context in which the mesh that parameters lie on is the current one, for `spread` and for layers that ask; none if they lie on
    one device without a mesh."""
    mesh = _mesh_of(params)
    return contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh)


def _mesh_of(params: PyTree) -> Any:
    sharding = getattr(jax.tree.leaves(params)[0], "sharding", None)
    return sharding.mesh if isinstance(sharding, NamedSharding) else None


def spread(tree: PyTree, rows: Int[np.ndarray, "n"] | None = None) -> PyTree:
    """Host arrays (of their axis 0 the `rows`), the same on every process, split over the current mesh (`current`).

    Rows that the mesh does not divide go whole to every device, and all to the first one where no mesh is set.
    """
    mesh = jax.sharding.get_mesh()

    def put(leaf: Any) -> jax.Array:
        leaf = np.asarray(leaf) if rows is None else np.asarray(leaf)[rows]
        if mesh.empty:
            return jnp.asarray(leaf)
        leaf = leaf.astype(jax.dtypes.canonicalize_dtype(leaf.dtype), copy=False)
        whole = not leaf.ndim or leaf.shape[0] % batch_shards(mesh)
        return jax.make_array_from_callback(leaf.shape, replicated(mesh) if whole else batch_sharding(mesh), leaf.__getitem__)

    return jax.tree.map(put, tree)


def fetch(tree: PyTree) -> PyTree:
    """Arrays of any sharding as whole host arrays, on every process."""
    return jax.device_get(hosts.gather(tree))


def replicate(params: PyTree) -> PyTree:
    """Parameters whole on every device of their mesh, so that whatever is computed from them can be read on every host."""
    mesh = _mesh_of(params)
    return params if mesh is None else jax.jit(lambda leaves: leaves, out_shardings=replicated(mesh))(params)
