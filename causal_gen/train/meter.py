"""How fast a step could be: its floating-point operations, and those that the devices can do in a second."""

from __future__ import annotations

import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

# Dense bfloat16 peak of a chip in FLOP/s, from the makers' data sheets; matched as the longest beginning of the device kind.
PEAKS = {
    "TPU v2": 45e12, "TPU v3": 123e12, "TPU v4": 275e12, "TPU v5 lite": 197e12, "TPU v5e": 197e12, "TPU v5p": 459e12, "TPU v5": 459e12,
    "TPU v6 lite": 918e12, "TPU v6e": 918e12, "NVIDIA A100": 312e12, "NVIDIA H100 PCIe": 756e12, "NVIDIA H100": 989e12, "NVIDIA H200": 989e12,
    "NVIDIA L4": 121e12, "NVIDIA T4": 65e12, "Tesla T4": 65e12, "NVIDIA B200": 2250e12, "Tesla V100": 125e12,
}  # fmt: skip


def step_flops(lowered: Any) -> float | None:
    """FLOPs of a whole step over all devices, as XLA counts them before partitioning; None where the backend does not say.

    The body of a loop is counted once, so that with train.accumulate this is one microbatch's share.
    """
    try:
        cost = lowered.cost_analysis()
    except Exception:  # a number for the progress bar is not worth a run
        return None
    cost = cost[0] if isinstance(cost, (list, tuple)) and cost else cost
    flops = float(cost.get("flops", 0.0)) if cost else 0.0
    return flops if flops > 0 else None


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
