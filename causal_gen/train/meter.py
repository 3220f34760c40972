"""How fast a step could be: its floating-point operations, and those that the devices can do in a second."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

# Dense 16-bit peak of a device in FLOP/s, from the makers' data sheets; the longest name that begins the device kind counts.
PEAKS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "Tesla V100": 125e12,
    "Tesla T4": 65e12,
    "NVIDIA A100": 312e12,
    "NVIDIA L4": 121e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H200": 989e12,
    "NVIDIA B200": 2250e12,
}


def count_flops(jaxpr: Any) -> float:
    """FLOPs of the matrix products and convolutions of a traced program, 2 per multiply-add, over all devices.

    Counted here since XLA's own cost analysis takes the body of a loop once, whatever its length. A while loop of unknown length counts
    once, a conditional as its dearest branch; the zeros that a strided convolution's gradient inserts do not count.
    """
    total = 0.0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            contracted = eqn.params["dimension_numbers"][0][0]
            inner = math.prod(eqn.invars[0].aval.shape[axis] for axis in contracted)
            total += 2.0 * math.prod(eqn.outvars[0].aval.shape) * inner
        elif eqn.primitive.name == "conv_general_dilated":
            numbers, kernel = eqn.params["dimension_numbers"], eqn.invars[1].aval.shape
            taps = math.prod(kernel[axis] for axis in numbers.rhs_spec[1:])  # input features of a group, and the window
            total += 2.0 * math.prod(eqn.outvars[0].aval.shape) * taps / math.prod(eqn.params["lhs_dilation"])
        elif eqn.primitive.name == "cond":
            total += max(count_flops(branch.jaxpr) for branch in eqn.params["branches"])
        else:
            total += sum(count_flops(inner) for inner in _programs(eqn.params)) * _repeats(eqn)
    return total


def _programs(params: dict[str, Any]) -> Iterator[Any]:
    """The jaxprs among an equation's parameters, closed ones opened."""
    for value in params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            item = getattr(item, "jaxpr", item)
            if hasattr(item, "eqns"):
                yield item


def _repeats(eqn: Any) -> int:
    if eqn.primitive.name == "scan":
        return int(eqn.params["length"])
    if eqn.primitive.name == "shard_map":  # its body is one device's share
        return int(eqn.params["mesh"].size)
    return 1


def peak_flops(mesh: Mesh) -> float | None:
    """FLOP/s of all devices of the mesh: published for known chips, measured once for a CPU, None for others."""
    device = mesh.devices.flat[0]
    if device.platform == "cpu":
        return _measured(device)  # simulated devices share the same cores
    known = [name for name in PEAKS if device.device_kind.startswith(name)]
    return PEAKS[max(known, key=len)] * mesh.size if known else None


def _measured(device: Any, size: int = 1024, repeats: int = 4) -> float:
    """A float32 matrix product, the best of a few: what this CPU does at full speed, other processes permitting."""
    x = jax.device_put(jnp.ones((size, size), jnp.float32), device)
    product = jax.jit(jnp.dot)
    product(x, x).block_until_ready()
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        product(x, x).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best


def describe(mesh: Mesh, argv: list[str]) -> dict[str, Any]:
    """What metadata.json says of code, libraries and machine."""
    root = Path(__file__).resolve().parent
    try:
        sha = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        dirty = subprocess.run(["git", "-C", str(root), "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        sha, dirty = None, ""
    return {
        "git_sha": sha,
        "git_dirty": bool(dirty),
        "versions": {
            "python": sys.version.split()[0],
            **{name: _version(name) for name in ("causal-gen", "jax", "jaxlib", "flax", "optax")},
        },
        "argv": list(argv),
        "mesh": {name: int(size) for name, size in mesh.shape.items()},
        "devices": mesh.size,
        "device_kind": mesh.devices.flat[0].device_kind,
        "platform": mesh.devices.flat[0].platform,
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
