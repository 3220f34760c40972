"""Machines that are not here: TPU topologies to compile for, their published peaks, and simulated CPU devices.

A topology is "v5e:16x16" (chips of a slice along each axis of its torus) or "cpu:8". Devices of a TPU topology can be compiled for
(`lower().compile()`), not run on. Peaks of a chip, besides the FLOP/s in train/meter.py:

          HBM      HBM rate     ICI, one way      DCN        sources
    v4    32 GiB   1200 GB/s    6 x  50 GB/s      25/4 GB/s  docs.cloud.google.com/tpu/docs/v4; Jouppi et al. 2023, table 4
    v5e   16 GiB    819 GB/s    4 x  50 GB/s      25/8 GB/s  .../v5e: 400 GB/s both ways, 6.4 Tbit/s of network a pod of 256
    v5p   95 GiB   2765 GB/s    6 x 100 GB/s      50/8 GB/s  .../v5p: 1200 GB/s both ways, 50 Gbit/s of network a chip
    v6e   32 GiB   1638 GB/s    4 x 100 GB/s     100/8 GB/s  .../v6e: 800 GB/s both ways, 25.6 Tbit/s of network a pod of 256

ICI is the sum over a chip's links in one direction, which only a ring over every axis of the torus uses. DCN of v4 is that of a host of
four chips with 25 GB/s (jax-ml.github.io/scaling-book, "How to think about TPUs"). v4's links and v6e's network were written from memory.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import os
import re
from typing import Any

import jax

from causal_gen.types import ConfigError, UserError

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """Peaks of one chip: bytes of HBM, and bytes/s of HBM, of its links (ICI) and of its share of the network between slices (DCN).

    `kind` is the configuration of the chip under which it is one device.  shapes, largest: of slices, the usual ones and the most chips.
    """

    hbm: int
    hbm_rate: float
    ici: float
    dcn: float
    shapes: tuple[str, ...]
    largest: int
    kind: str = "default"


_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16")
CHIPS = {
    "v4": Chip(32 * GIB, 1200e9, 300e9, 6.25e9, _CUBES, 4096, "megacore"),
    "v5e": Chip(16 * GIB, 819e9, 200e9, 3.125e9, _FLAT, 256),
    "v5p": Chip(95 * GIB, 2765e9, 600e9, 6.25e9, (*_CUBES, "16x16x16", "16x16x24"), 6144),
    "v6e": Chip(32 * GIB, 1638e9, 400e9, 12.5e9, _FLAT, 256),
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Devices to compile for; `chip` is None for a CPU, whose peaks nobody publishes."""

    name: str
    slices: int
    devices: tuple[Any, ...]
    chip: Chip | None


def find(name: str, slices: int = 1) -> Topology:
    """The topology of that name, `slices` times over. Call it before jax has started its devices.

    Raises ConfigError for a name that does not exist, with those that do, and UserError where a TPU's compiler is not installed.
    """
    generation, _, shape = name.partition(":")
    if generation == "cpu":
        return Topology(name, slices, tuple(_simulated(name, shape, slices)), None)
    chip = CHIPS.get(generation)
    if chip is None or not _exists(chip, shape):
        raise ConfigError(f"topology {name!r} does not exist; known are {known()}")
    return Topology(name, slices, tuple(_tpus(name, chip, slices)), chip)


def known() -> str:
    """The topologies that `find` knows, in words."""
    names = [f"{generation}:{{{','.join(chip.shapes)}}}" for generation, chip in CHIPS.items()]
    return f"{', '.join(names)} (v4 and v5p also with other sides that are multiples of 4), and cpu:N"


def _exists(chip: Chip, shape: str) -> bool:
    if shape in chip.shapes:
        return True
    sides = [int(side) for side in shape.split("x")] if re.fullmatch(r"\d+x\d+x\d+", shape) else []
    large = bool(sides) and "4x4x4" in chip.shapes and sides == sorted(sides) and all(side and side % 4 == 0 for side in sides)
    return large and math.prod(sides) <= chip.largest


def _simulated(name: str, count: str, slices: int) -> list[Any]:
    if not re.fullmatch(r"[1-9]\d{0,3}", count):
        raise ConfigError(f"topology {name!r} does not exist; known are {known()}")
    total = int(count) * slices
    jax.config.update("jax_platforms", "cpu")
    try:
        jax.config.update("jax_num_cpu_devices", total)
    except RuntimeError:
        pass  # they run already, in whatever number
    devices = jax.devices("cpu")
    if len(devices) < total:
        raise UserError(f"topology {name}: {total} CPU devices were asked for, this process runs {len(devices)}; start another process")
    return devices[:total]


def _tpus(name: str, chip: Chip, slices: int) -> list[Any]:
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            f"topology {name}: libtpu, the compiler for TPUs, is not installed; pip install 'jax[tpu]' (it needs no TPU), or use cpu:8"
        )
    # ordinary work stays on the CPU; libtpu would otherwise look for a TPU, and let only one process in at a time
    jax.config.update("jax_platforms", "cpu")
    quiet = {"TPU_ACCELERATOR_TYPE": "v5litepod-8", "TPU_WORKER_HOSTNAMES": "localhost", "TPU_SKIP_MDS_QUERY": "1"}
    for variable, value in {**quiet, "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}.items():
        os.environ.setdefault(variable, value)
    from jax.experimental import topologies

    how: dict[str, Any] = {} if chip.kind == "default" else {"chip_config_name": chip.kind}
    if name.endswith(":1x1"):
        how["chips_per_host_bounds"] = (1, 1, 1)
    if slices > 1:
        how["num_slices"] = slices
    try:
        return list(topologies.get_topology_desc(name, "tpu", **how).devices)
    except (RuntimeError, ValueError) as error:  # of this libtpu's own, which may know fewer than we do
        raise ConfigError(f"topology {name}, {slices} slices: libtpu refuses it ({error}); known are {known()}") from error
