"""What a compiled program needs, counted by XLA: memory, arithmetic, traffic, collectives.

The counts are those of one device. FLOPs are two per multiply-add, including elementwise
operations. Bytes are what the operations of the compiled program read and write, in any memory. A
program for a TPU specifies which of its arrays are in on-chip memory; the traffic is the bytes of
all other operands and results. An operation that reads a part of an array counts as reading all of
it. XLA counts the body of a loop once; here, its bytes are multiplied by the number of iterations
if the program states it, as those of a CPU do, or the caller does. Its FLOPs are not.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_BYTES = {"pred": 1, "s4": 0.5, "u4": 0.5, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2,
          "u16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}  # fmt: skip
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\](\{[^{}]*\})?")
_ON_CHIP = re.compile(r"S\([1-9]\)")  # a memory space other than the main memory, in a layout
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([a-z][\w\-]*)\((.*)")
_CALLED = re.compile(r"(body|condition|calls|to_apply|called_computations)=\{?%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'known_trip_count":\{"n":"(\d+)"')
_NAME = re.compile(r'op_name="([^"]*)"')
# Operations that move nothing themselves.
_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional",
         "call", "after-all", "async-start", "async-update", "opt-barrier")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Collective:
    """The collective operations of one kind: how many there are, and the bytes of their results."""

    count: float
    bytes: float


@dataclasses.dataclass(frozen=True)
class Counts:
    """What one device needs for a program.

    Attributes:
      flops: arithmetic operations.
      bytes: bytes that operations read and write, by XLA's count.
      traffic: those of arrays that are not kept in on-chip memory; at most `bytes`.
      memory: bytes by kind: "arguments", "results" (other than those that reuse the memory of
        arguments), "temporaries" and "program".
      collectives: {kind: `Collective`}.
      loops: {name: number of iterations} of the loops whose bytes and collectives are multiplied,
        and that have a name, by `jax.named_scope`.
    """

    flops: float
    bytes: float
    traffic: float
    memory: Mapping[str, int]
    collectives: Mapping[str, Collective]
    loops: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def memory_bytes(self) -> int:
        """Memory of all kinds together."""
        return sum(self.memory.values())

    def divided(self, steps: int) -> Counts:
        """The counts of one of several steps in a program; the memory is that of the program."""
        collectives = {
            kind: Collective(found.count / steps, found.bytes / steps)
            for kind, found in self.collectives.items()
        }
        amounts = {name: getattr(self, name) / steps for name in ("flops", "bytes", "traffic")}
        return dataclasses.replace(self, collectives=collectives, **amounts)


class Instruction(NamedTuple):
    """One instruction of a compiled program.

    Attributes:
      name: its name in the program.
      opcode: such as "fusion" or "all-reduce".
      result: the type of its result, as in the text.
      rest: operands and attributes, as in the text.
      runs: how often it runs.
    """

    name: str
    opcode: str
    result: str
    rest: str
    runs: int

    @property
    def operands(self) -> list[str]:
        """Names of the instructions whose results it reads."""
        return re.findall(r"%([\w.\-]+)", self.rest.partition("), ")[0])


def count(compiled: Any, trips: Mapping[str, int] | None = None) -> Counts:
    """Counts the needs of a program.

    Args:
      compiled: result of `jax.jit(...).lower(...).compile()`.
      trips: {name: number of iterations} of loops, for programs that do not state it.
    """
    trips = trips or {}
    costs = compiled.cost_analysis() or {}
    costs = costs[0] if isinstance(costs, list) else costs
    memory = compiled.memory_analysis()
    text = compiled.as_text()
    program = list(instructions(text, trips))
    moved = list(moved_bytes(program))
    once = sum(size for _, size, _ in moved)
    often = sum(one.runs * size for one, size, _ in moved)
    total = costs.get("bytes accessed", 0.0) * (often / once if once else 1)
    return Counts(
        flops=costs.get("flops", 0.0),
        bytes=total,
        traffic=min(total, sum(one.runs * outside for one, _, outside in moved)),
        memory={
            "arguments": memory.argument_size_in_bytes,
            "results": memory.output_size_in_bytes - memory.alias_size_in_bytes,
            "temporaries": memory.temp_size_in_bytes,
            "program": memory.generated_code_size_in_bytes,
        },
        collectives=collectives(list(instructions(text, trips, inside_fusions=True))),
        loops=_named_loops(program, trips),
    )


def instructions(
    text: str, trips: Mapping[str, int] | None = None, *, inside_fusions: bool = False
) -> Iterator[Instruction]:
    """Yields the instructions of a compiled program, each once, with the number of its runs.

    Args:
      text: the program, of `compiled.as_text()`.
      trips: see `count`.
      inside_fusions: also yield those that run inside of fusions.
    """
    entered = ("while", "call", "conditional", "async-start", *["fusion"] * inside_fusions)
    computations: dict[str, list[tuple[str, str, str, str]]] = {}
    entry, lines = "", []
    for line in text.splitlines():
        if found := _COMPUTATION.match(line):
            lines = computations.setdefault(found[2], [])
            entry = found[2] if found[1] else entry
        elif found := _INSTRUCTION.match(line):
            name, result, opcode, rest = found.groups()
            lines.append((name, result, opcode, rest))

    def walk(computation: str, runs: int) -> Iterator[Instruction]:
        for name, result, opcode, rest in computations.get(computation, ()):
            yield Instruction(name, opcode, result, rest, runs)
            if opcode in entered:
                times = (_iterations(rest, trips or {}) or 1) if opcode == "while" else 1
                for called in _called(rest):
                    yield from walk(called, runs * times)

    return walk(entry, 1)


def _called(rest: str) -> list[str]:
    called = [name for how, name in _CALLED.findall(rest) if how != "condition"]
    for names in _BRANCHES.findall(rest):
        called += [name.strip(" %") for name in names.split(",")]
    return called


def _iterations(rest: str, trips: Mapping[str, int]) -> int | None:
    """The number of iterations of a loop, if it is known."""
    if found := _TRIPS.search(rest):
        return int(found[1])
    return trips.get(_loop_name(rest))


def _loop_name(rest: str) -> str:
    """The scope that a loop of `jax.lax` is in; "" if it has none."""
    found = _NAME.search(rest)
    path = found[1].split("/") if found else []
    return path[-2] if path[-1:] == ["while"] and len(path) > 1 else ""


def _named_loops(program: list[Instruction], trips: Mapping[str, int]) -> dict[str, int]:
    """{name: number of iterations} of the loops for which both are known."""
    loops = {
        _loop_name(one.rest): _iterations(one.rest, trips)
        for one in program
        if one.opcode == "while"
    }
    return {name: times for name, times in loops.items() if name and times}


def collectives(program: list[Instruction]) -> dict[str, Collective]:
    """Returns the number of collective operations by kind, and the bytes of their results."""
    counts: dict[str, list[float]] = collections.defaultdict(lambda: [0, 0])
    types = {one.name: one.result for one in program}
    for one in program:
        kind = one.opcode.removesuffix("-start")
        if kind in KINDS:
            size = array_bytes(one.result)
            if kind in ("all-gather", "collective-permute") and one.opcode.endswith("-start"):
                # The type of the start lists the operands and the results.
                size -= sum(array_bytes(types.get(operand, "")) for operand in one.operands)
            counts[kind][0] += one.runs
            counts[kind][1] += one.runs * size
    return {kind: Collective(*counts[kind]) for kind in KINDS if kind in counts}


def array_bytes(text: str, *, outside: bool = False) -> float:
    """Returns the bytes of all array types in a text of a compiled program.

    Args:
      text: with types such as "f32[64,3]{1,0}".
      outside: leave out those that are kept in on-chip memory.
    """
    total = 0.0
    for dtype, shape, layout in _ARRAY.findall(text):
        if outside and _ON_CHIP.search(layout):
            continue
        size = _BYTES.get(dtype, 0)
        for side in filter(None, shape.split(",")):
            size *= int(side)
        total += size
    return total


def moved_bytes(program: list[Instruction]) -> Iterator[tuple[Instruction, float, float]]:
    """Yields (instruction, bytes of its operands and results, those outside on-chip memory)."""
    types = {one.name: one.result for one in program}
    for one in program:
        if one.opcode in _FREE or one.opcode.endswith("-done") or "ConcatBitcast" in one.rest:
            continue
        if one.opcode in ("copy-start", "slice-start"):
            yield one, *_copied(one.result)
            continue
        arrays = [one.result, *(types.get(operand, "") for operand in one.operands)]
        yield (
            one,
            sum(map(array_bytes, arrays)),
            sum(array_bytes(text, outside=True) for text in arrays),
        )


def _copied(result: str) -> tuple[float, float]:
    """Bytes of an asynchronous copy or slice, whose type lists the target and the source.

    As much is read as is written, which is the smaller of the two.
    """
    found = [match.group() for match in _ARRAY.finditer(result)][:2]
    size = min(map(array_bytes, found), default=0.0)
    outside = sum(1 for text in found if not _ON_CHIP.search(text))
    return 2 * size, outside * size
