"""What a compiled program moves, read from its text (HLO): collectives with their bytes, and bytes to and from memory.

XLA's own cost analysis takes the body of a loop once; here every computation counts as often as the loops around it turn. How often a
loop turns is written beside it on CPUs; on TPUs it is the constant that its condition compares with. A loop whose length only the device
knows counts once, and is reported. Letters: n devices of a group.

    on the wire, sent by each device around a ring: all-reduce 2 (n-1)/n bytes, all-gather, reduce-scatter and all-to-all (n-1)/n bytes,
    permutation: all of them                                                                                                     (1)

where bytes are those of the whole array that a device ends with (all-gather) or begins with (the others). Traffic is what operations
outside of fusions read and write, a fusion being one operation; of what is cut out of or put into an array in place only the part
counts, and nothing of what lives in a TPU's own memory (space S(1)).
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

import numpy as np

_SIZES = {"pred": 1, "token": 0, "opaque": 0, "bf16": 2, "s4": 0.5, "u4": 0.5, "s2": 0.25, "u2": 0.25}
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,<=]*)\](\{[^{}]*\})?")
_LINE = re.compile(r"\s*(ROOT )?%?([\w.\-]+) = (.*)")
_HEAD = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(r"\b(?:calls|to_apply|body|condition|branch_computations|true_computation|false_computation)=(\{[^}]*\}|%?[\w.\-]+)")
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute", "collective-broadcast")
# these move nothing: names for what is there already, or the second half of what was counted with its first
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "after-all", "partition-id",
    "replica-id", "opt-barrier", "add-dependency", "domain", "async-update",
}  # fmt: skip


CUTS = ("slice", "dynamic-slice", "gather")  # these read a part of their first operand


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line: `type` is the text of its shape, `inside` what stands between its parentheses, `rest` are its attributes."""

    name: str
    type: str
    opcode: str
    inside: str
    rest: str

    @functools.cached_property
    def operands(self) -> tuple[str, ...]:
        """Names of the lines of the same computation that it reads."""
        return tuple(_NAME.findall(self.inside))

    @property
    def renames(self) -> bool:
        """Whether this is its operand under another name, layout or type, which inside a fusion costs no memory."""
        return self.opcode in ("bitcast", "copy", "convert", "reshape", "transpose") or (
            self.opcode == "fusion" and "output_to_operand_aliasing={{}: (0, {})}" in self.rest
        )

    @property
    def called(self) -> tuple[str, ...]:
        """Names of the computations that it runs."""
        names = [name.strip().lstrip("%") for found in _CALLED.findall(self.rest) for name in found.strip("{}").split(",")]
        return tuple(name for name in names if name)


@dataclasses.dataclass(frozen=True)
class Computation:
    """A body of instructions, by name; `root` is what it returns."""

    name: str
    lines: dict[str, Instruction]
    root: str

    def users(self, name: str) -> list[Instruction]:
        """Who reads a line, through other names and layouts of it."""
        found: list[Instruction] = []
        for line in self.lines.values():
            if name in line.operands:
                found += self.users(line.name) if line.renames else [line]
        return found


@dataclasses.dataclass(frozen=True)
class Collective:
    """One exchange of `bytes` (see eq. 1) between groups of `devices`, `times` a step; `between_slices`: over the data centre's network."""

    kind: str
    bytes: float
    devices: int
    times: int
    between_slices: bool = False

    @property
    def wire(self) -> float:
        """Bytes that each device sends in a step, eq. (1)."""
        share = 1.0 if "permute" in self.kind or "broadcast" in self.kind else (self.devices - 1) / max(self.devices, 1)
        return (2 if self.kind == "all-reduce" else 1) * share * self.bytes * self.times


@dataclasses.dataclass(frozen=True)
class Moved:
    """What one device moves in a step: collectives, bytes to and from memory, and loops of unknown length, which count once."""

    collectives: tuple[Collective, ...]
    traffic: float
    unknown_loops: int


def read(text: str, slices: int = 1) -> Moved:
    """The collectives and the traffic of a program, of `compiled.as_text()`."""
    program, entry = _parse(text)
    found, traffic, unknown = [], 0.0, 0
    for computation, times, lost in _runs(program, entry):
        unknown += lost
        found += [exchange for exchange, _ in _collectives(program, computation, times, slices)]
        # what a fusion exchanges is no operand of an operation outside of it, and goes to memory all the same
        traffic += sum(exchange.bytes * times for exchange, fused in _collectives(program, computation, times, slices) if fused)
        traffic += times * sum(_touched(program, computation, line) for line in computation.lines.values())
    return Moved(tuple(found), traffic, unknown)


# -- text ---------------------------------------------------------------------------------------------------------------------


def _parse(text: str) -> tuple[dict[str, Computation], str]:
    program: dict[str, Computation] = {}
    entry, name, lines, root = "", "", {}, ""
    for raw in text.splitlines():
        head = _HEAD.match(raw)
        if head and not raw.startswith(" "):
            name, lines, root = head[2], {}, ""
            entry = name if head[1] else entry
        elif raw.startswith("}") and name:
            program[name] = Computation(name, lines, root)
            name = ""
        elif name and (line := _LINE.match(raw)):
            found = _instruction(line[2], line[3])
            lines[found.name] = found
            root = found.name if line[1] else root
    return program, entry


def _instruction(name: str, text: str) -> Instruction:
    end = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
    opcode, _, rest = text[end + 1 :].partition("(") if text.startswith("(") else text[end:].strip().partition("(")
    stop = _closing("(" + rest, 0)
    return Instruction(name, text[:end], opcode.strip(), rest[: stop - 1], rest[stop:])


def _closing(text: str, start: int) -> int:
    """The place of the parenthesis that closes the one at `start`."""
    depth = 0
    for place in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if not depth:
            return place
    return len(text)


def bytes_of(kind: str, memory_only: bool = False) -> list[float]:
    """Bytes of every array in the text of a type; with `memory_only` 0 for those in a TPU's own memory."""
    sizes = []
    for dtype, dims, layout in _ARRAY.findall(kind):
        count = math.prod(int(side.strip("<=")) for side in dims.split(",") if side)
        bits = re.search(r"\d+", dtype)
        width = _SIZES.get(dtype, int(bits[0]) / 8 if bits else 0)
        if dtype.startswith("f8"):
            width = 1
        elsewhere = memory_only and re.search(r"S\([1-9]\)", layout)
        sizes.append(0.0 if elsewhere else count * width)
    return sizes


# -- loops --------------------------------------------------------------------------------------------------------------------


def _runs(program: dict[str, Computation], name: str, times: int = 1) -> Iterator[tuple[Computation, int, int]]:
    """Every computation that runs by itself (not inside a fusion), how often, and how many of its loops have an unknown length."""
    computation = program[name]
    inner, unknown = [], 0
    for line in computation.lines.values():
        if line.opcode == "while":
            turns = _turns(program, computation, line)
            unknown += turns is None
            inner += [(called, times * (turns or 1)) for called in line.called]
        elif line.opcode in ("call", "conditional", "async-start"):
            inner += [(called, times) for called in line.called]
    yield computation, times, unknown
    for called, often in inner:
        yield from _runs(program, called, often)


def _turns(program: dict[str, Computation], around: Computation, loop: Instruction) -> int | None:
    """How often a while loop turns: as written beside it, or `i < n` of its condition, counted from 0; None where neither is known."""
    if written := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest):
        return int(written[1])
    named = re.search(r"condition=%?([\w.\-]+)", loop.rest)
    condition = program[named[1]] if named else None
    test = condition.lines.get(condition.root) if condition else None
    if condition is None or test is None or test.opcode != "compare" or "direction=LT" not in test.rest:
        return None
    bound = condition.lines[test.operands[1]]
    if bound.opcode == "get-tuple-element":  # carried through the loop: what it began with
        started = around.lines[loop.operands[0]]
        index = re.search(r"index=(\d+)", bound.rest)
        bound = around.lines[started.operands[int(index[1])]] if index and started.opcode == "tuple" else bound
    return int(bound.inside) if bound.opcode == "constant" and bound.inside.isdigit() else None


# -- collectives --------------------------------------------------------------------------------------------------------------


def _collectives(program: dict[str, Computation], computation: Computation, times: int, slices: int) -> Iterator[tuple[Collective, bool]]:
    """Those of a computation and, with True, of its fusions.

    A TPU begins an exchange in one fusion, has others carry it on beside their own work, also in loops inside of the one where it began,
    and ends it in a third: the same line in all of them, which counts where it begins.
    """
    for line in computation.lines.values():
        for owner, one in [(computation, line), *_inside(program, line)]:
            exchange = _exchange(owner, one, times, slices)
            if exchange and not _carried(owner):
                yield exchange, owner is not computation


def _carried(owner: Computation) -> bool:
    """Whether a fusion carries on or ends what another one began."""
    return "async_collective_fusion" in owner.name or any("AsyncCollectiveDone" in line.rest for line in owner.lines.values())


def _inside(program: dict[str, Computation], line: Instruction) -> list[tuple[Computation, Instruction]]:
    if line.opcode != "fusion":
        return []
    fused = [program[name] for name in line.called]
    return [pair for body in fused for one in body.lines.values() for pair in [(body, one), *_inside(program, one)]]


def _exchange(owner: Computation, line: Instruction, times: int, slices: int) -> Collective | None:
    held = sum(sum(bytes_of(owner.lines[name].type)) for name in line.operands if name in owner.lines)
    if line.opcode == "send" and (crossing := re.search(r'_xla_megascale_transfer_type="(\w+)"', line.rest)):
        kind = crossing[1].lower().replace("_", "-")
        return Collective(kind, held * (slices if kind == "all-gather" else 1), slices, times, True)
    kind = line.opcode.removesuffix("-start")
    if kind not in KINDS:
        return None
    devices = group_size(line.rest)
    # an all-reduce of which every device keeps its own part is a reduce-scatter, fused with the cut
    kind = "reduce-scatter" if kind == "all-reduce" and "all-reduce-scatter" in owner.name else kind
    return Collective(kind, held * (devices if kind == "all-gather" else 1), devices, times)


def group_size(rest: str) -> int:
    """Devices of a group of a collective, in any of XLA's three ways of writing groups: lists, strides, or axes of a mesh."""
    if strided := re.search(r"replica_groups=\[(\d+(?:,\d+)*)\]<=", rest):
        return int(strided[1].split(",")[-1])
    if meshed := re.search(r"replica_groups=mesh\[([^\]]*)\].*?\{([^}]*)\}", rest):
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", meshed[1])}
        return int(np.prod([sizes.get(name, 1) for name in re.findall(r"'(\w+)'", meshed[2])], dtype=int))
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", rest)
    return len(listed[1].split(",")) if listed else 1


# -- memory -------------------------------------------------------------------------------------------------------------------


def _touched(program: dict[str, Computation], computation: Computation, line: Instruction) -> float:
    """Bytes that an operation reads from and writes to memory."""
    if line.opcode in _FREE or line.opcode.endswith("-done"):
        return 0.0
    fused = program.get(line.called[0]) if line.opcode == "fusion" and line.called else None
    if fused:
        total = _put(fused, fused.lines[fused.root], sum(bytes_of(line.type, True)))
        return total + sum(_taken(program, fused, i, _held(computation, name)) for i, name in enumerate(line.operands))
    written = bytes_of(line.type, True)
    if line.opcode.endswith("-start"):  # (what is copied, the copy, flags), but for copy-start, where the copy stands first
        skipped = 0 if line.opcode == "copy-start" else len(line.operands)
        written = written[skipped : skipped + len(line.operands)]
    elif line.opcode in ("send", "recv"):
        written = written[:1]
    cut = line.opcode.removesuffix("-start") in CUTS
    read = [0.0 if line.opcode == "dynamic-update-slice" and i == 0 else _held(computation, name) for i, name in enumerate(line.operands)]
    if cut and read:
        read[0] = min(read[0], _cut(line))
    return _put(computation, line, sum(written)) + sum(read)


def _held(computation: Computation, name: str) -> float:
    return sum(bytes_of(computation.lines[name].type, True)) if name in computation.lines else 0.0


def _cut(line: Instruction) -> float:
    """Bytes that are cut out of an array, wherever they go."""
    sizes = bytes_of(line.type)
    return sizes[len(line.operands)] if line.opcode.endswith("-start") else sum(sizes)


def _passes(line: Instruction) -> bool:
    """Whether an exchange that goes on beside a fusion's own work is all that this line is about; it is counted as an exchange."""
    return line.opcode.removesuffix("-start") in KINDS or (line.opcode == "custom-call" and "AsyncCollective" in line.rest)


def _put(owner: Computation, root: Instruction, written: float) -> float:
    """Bytes written: of an array changed in place only the part that is put into it, and nothing of what only passes through."""
    if root.opcode == "bitcast":
        return _put(owner, owner.lines[root.operands[0]], written)
    if root.opcode == "tuple":
        parts = [owner.lines[name] for name in root.operands]
        return sum(_put(owner, part, sum(bytes_of(part.type, True))) for part in parts)
    if root.opcode == "dynamic-update-slice":
        return min(written, sum(bytes_of(owner.lines[root.operands[1]].type)))
    if root.opcode in ("parameter", "get-tuple-element") or _passes(root):
        return 0.0
    return written


def _taken(program: dict[str, Computation], fused: Computation, index: int, whole: float) -> float:
    """Bytes that a fusion reads of its operand: only what it cuts out, where it does nothing else with it."""
    names = [line.name for line in fused.lines.values() if line.opcode == "parameter" and line.inside == str(index)]
    parts = 0.0
    for user in fused.users(names[0]) if names and whole else []:
        if user.opcode == "dynamic-update-slice" and _leads(fused, names[0], user.operands[0]):
            continue  # changed in place
        if _passes(user) or (user.opcode == "tuple" and user.name == fused.root):
            continue
        if user.opcode == "fusion":
            at = [i for i, name in enumerate(user.operands) if _leads(fused, names[0], name)]
            parts += sum(_taken(program, program[user.called[0]], i, whole) for i in at)
            continue
        if user.opcode not in CUTS or not _leads(fused, names[0], user.operands[0]):
            return whole
        parts += _cut(user)
    return min(whole, parts)


def _leads(fused: Computation, source: str, name: str) -> bool:
    """Whether `name` is `source` under another name."""
    while name != source and fused.lines[name].renames:
        name = fused.lines[name].operands[0]
    return name == source
