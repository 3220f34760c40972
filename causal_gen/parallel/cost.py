"""What a compiled step costs on a machine that is not here: memory, operations, exchanges, and a bracket around its time.

    compute = FLOPs / (devices x peak),  memory = traffic / HBM rate,  ICI and DCN = bytes sent / rate                                (1)
    all of them at once:  max(compute, memory, ICI, DCN)        one after another:  max(compute, memory) + ICI + DCN                   (2)
    MFU = 3 x FLOPs of the loss / (devices x peak x time)                                                                            (3)

(1) takes every peak as published, so that (2) is a bracket of what could be, not a forecast. (3) counts the backward pass as twice the
forward one and what is computed anew not at all (Chowdhery et al. 2022, appendix B). Bytes are those of one device, in a step.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from jax.extend import source_info_util

from causal_gen.parallel.cost_hlo import Moved, read
from causal_gen.parallel.topology import GIB, Topology

SHOWN = 12  # of the largest arrays


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of a device, by the compiler: `donated` of the arguments are written over by the results; `code` is the program itself."""

    arguments: int
    donated: int
    results: int
    temporaries: int
    code: int

    @property
    def total(self) -> int:
        """What is held at the worst moment."""
        return self.arguments + self.results - self.donated + self.temporaries + self.code


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one step: `flops` over all devices, `model_flops` without what is computed anew; `peak` of all devices, None where unknown."""

    topology: Topology
    memory: Memory
    moved: Moved
    flops: float
    model_flops: float
    peak: float | None

    @property
    def intensity(self) -> float:
        """FLOPs for each byte to or from memory."""
        return self.flops / len(self.topology.devices) / max(self.moved.traffic, 1.0)

    @property
    def seconds(self) -> dict[str, float]:
        """Eq. (1), by resource; empty where the chip's peaks are not known."""
        chip = self.topology.chip
        if chip is None or self.peak is None:
            return {}
        sent = {wide: sum(c.wire for c in self.moved.collectives if c.between_slices == wide) for wide in (False, True)}
        return {
            "compute": self.flops / self.peak,
            "memory": self.moved.traffic / chip.hbm_rate,
            "ICI": sent[False] / chip.ici,
            "DCN": sent[True] / chip.dcn,
        }

    @property
    def bracket(self) -> tuple[float, float]:
        """Eq. (2) in seconds: with everything at once, and one after another."""
        each = self.seconds
        return max(each.values()), max(each["compute"], each["memory"]) + each["ICI"] + each["DCN"]

    def mfu(self, seconds: float) -> float:
        """Eq. (3)."""
        return self.model_flops / (self.peak or math.inf) / seconds


def measure(compiled: Any, topology: Topology, flops: float, model_flops: float, peak: float | None) -> Cost:
    """The cost of a compiled program. `peak` in FLOP/s over all devices."""
    m = compiled.memory_analysis()
    memory = Memory(
        m.argument_size_in_bytes, m.alias_size_in_bytes, m.output_size_in_bytes, m.temp_size_in_bytes, m.generated_code_size_in_bytes
    )
    return Cost(topology, memory, read(compiled.as_text(), topology.slices), flops, model_flops, peak)


# -- as text ------------------------------------------------------------------------------------------------------------------


def report(cost: Cost) -> str:
    """All of it, a topic a paragraph."""
    return "\n".join([*_memory(cost), *_operations(cost), *_exchanges(cost), *_time(cost)])


def size(count: float) -> str:
    """Bytes in the largest unit that leaves at least one, at most GiB."""
    for unit, name in ((GIB, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= unit:
            return f"{count / unit:,.2f} {name}"
    return f"{count:,.0f} B"


def _memory(cost: Cost) -> list[str]:
    m, chip = cost.memory, cost.topology.chip
    room = f"of {size(chip.hbm)} of HBM ({m.total / chip.hbm:.0%})" if chip else ""
    rows = [
        ("arguments", m.arguments, f"of which {size(m.donated)} are donated: results take their place"),
        ("other results", m.results - m.donated, ""),
        ("temporaries", m.temporaries, ""),
        ("program", m.code, ""),
        ("together", m.total, room),
    ]
    return ["memory of a device", *(f"  {name:<15}{size(held):>12}   {text}".rstrip() for name, held, text in rows)]


def _operations(cost: Cost) -> list[str]:
    count, chip = len(cost.topology.devices), cost.topology.chip
    turn = f" (compute and memory take equally long at {cost.peak / count / chip.hbm_rate:,.0f})" if chip and cost.peak else ""
    again = cost.flops / cost.model_flops - 1 if cost.model_flops else 0.0
    lines = [
        "operations",
        f"  FLOPs of a step        {cost.flops:.4g}, {cost.flops / count:.4g} a device; the model's {cost.model_flops:.4g} {again:+.0%}",
        f"  memory traffic         {size(cost.moved.traffic)} a device",
        f"  arithmetic intensity   {cost.intensity:,.1f} FLOPs a byte{turn}",
    ]
    if cost.moved.unknown_loops:
        lines.append(f"  {cost.moved.unknown_loops} loops whose length only the device knows are counted as one turn")
    return lines


def _exchanges(cost: Cost) -> list[str]:
    kinds: dict[tuple[str, int, bool], list[float]] = collections.defaultdict(lambda: [0, 0.0, 0.0])
    for one in cost.moved.collectives:
        row = kinds[one.kind, one.devices, one.between_slices]
        for i, value in enumerate((one.times, one.bytes * one.times, one.wire)):
            row[i] += value
    if not kinds:
        return ["collectives: none"]
    rows = [("collectives of a device", "group", "over", "times", "arrays", "sent")]
    near = "ICI" if cost.topology.chip else "memory"
    for (kind, devices, wide), (times, held, sent) in sorted(kinds.items(), key=lambda item: -item[1][2]):
        rows.append((f"  {kind}", str(devices), "DCN" if wide else near, f"{times:,.0f}", size(held), size(sent)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join([f"{first:<{widths[0]}}", *(f"{c:>{w}}" for c, w in zip(cells, widths[1:], strict=True))]) for first, *cells in rows]


def _time(cost: Cost) -> list[str]:
    each = cost.seconds
    if not each:
        return ["no estimate of time: these devices have no published peaks"]
    told = ", ".join(f"{name} {_ms(seconds)}" for name, seconds in each.items() if seconds)
    ways = zip(cost.bracket, ("with all of it at once", "one after another"), strict=True)
    return [
        f"time of a step at the chip's peaks, ms: {told}",
        "  " + ", ".join(f"{_ms(seconds)} ms {how} (MFU {cost.mfu(seconds):.0%})" for seconds, how in ways),
    ]


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.1f}" if seconds >= 1e-4 else f"{seconds * 1e3:.2g}"


# -- programs that do not fit -------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Array:
    """An array of a traced step: bytes of a device, what makes it and where, and how many are like it (itself among them)."""

    bytes: float
    dtype: str
    shape: tuple[int, ...]
    what: str
    count: int = 1


def verdict(message: str) -> str | None:
    """One line on a program that does not fit, from the compiler's message; None where that is about something else."""
    if "RESOURCE_EXHAUSTED" not in message and "Ran out of memory" not in message:
        return None
    # "... total memory required for HLO temporaries (272.53G) exceeds available HBM (15.75G)", or "Used 20.1G of 15.75G hbm"
    found = re.search(r"\(([\d.]+[KMGT])\) exceeds available HBM \(([\d.]+[KMGT])\)", message)
    found = found or re.search(r"Used ([\d.]+[KMGT]) of ([\d.]+[KMGT]) hbm", message)
    figures = f"the compiler needs {found[1]} where a device has {found[2]} of HBM" if found else " ".join(message.split())
    return f"does not fit: {figures}"


def largest(jaxpr: Any, arguments: Sequence[tuple[str, Any, Any]], batch: int, shards: int) -> list[Array]:
    """The largest arrays of a traced step, largest first; those of one shape and dtype as one, named after the first.

    `arguments` are (name, aval, sharding). Of what is computed, an axis as long as the batch is taken to be split over `shards`
    devices, and everything else to be whole, which is what XLA may do, not what it has done.
    """
    found: dict[Any, Array] = {}

    def add(held: float, aval: Any, what: str) -> None:
        key = (tuple(aval.shape), str(aval.dtype), what.startswith("argument"))
        known = found.get(key)
        found[key] = Array(held, key[1], key[0], what) if known is None else dataclasses.replace(known, count=known.count + 1)

    for name, aval, sharding in arguments:
        add(math.prod(sharding.shard_shape(aval.shape)) * aval.dtype.itemsize, aval, f"argument {name}")
    for eqn in _equations(jaxpr):
        for out in eqn.outvars:
            aval = out.aval
            if hasattr(aval, "shape") and hasattr(aval.dtype, "itemsize"):
                held = math.prod(aval.shape) * aval.dtype.itemsize / (shards if batch in aval.shape else 1)
                add(held, aval, f"{eqn.primitive.name} at {_place(eqn)}")
    return sorted(found.values(), key=lambda array: -array.bytes)


def _place(eqn: Any) -> str:
    """The line of code that an equation comes from, with the last folders of its path."""
    return "/".join(source_info_util.summarize(eqn.source_info).split("/")[-3:])


def table(arrays: Sequence[Array]) -> str:
    """The first `SHOWN` of them as text."""
    lines = ["largest arrays of the step, a device's part (before XLA fuses them; an axis as long as the batch is taken to be split)"]
    for array in arrays[:SHOWN]:
        shape = f"{array.dtype}[{','.join(map(str, array.shape))}]"
        lines.append(f"  {size(array.bytes):>11}  {shape:<32} {array.what}{f', and {array.count - 1} more' if array.count > 1 else ''}")
    return "\n".join(lines)


def _equations(jaxpr: Any) -> Iterator[Any]:
    """Equations that compute something, those of inner programs too."""
    for eqn in jaxpr.eqns:
        values = [item for value in eqn.params.values() for item in (value if isinstance(value, (tuple, list)) else (value,))]
        programs = [program for item in values if hasattr(program := getattr(item, "jaxpr", item), "eqns")]
        if not programs or eqn.primitive.name == "scan":  # what a scan stacks up is made by nobody inside of it
            yield eqn
        for program in programs:
            yield from _equations(program)


def by_name(tree: Any) -> list[tuple[str, Any, Any]]:
    """(path, aval, sharding) of every leaf of an abstract state or batch."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf, leaf.sharding) for path, leaf in leaves]
