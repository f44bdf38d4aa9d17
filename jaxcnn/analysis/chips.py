"""Accelerators by name: the peak rates of a chip, and the slices of a pod.

Rates are the manufacturers' published peaks for dense matrix products; no program exceeds them.
Memory is that of the chip; a program can use slightly less. Bandwidth between chips is what a chip
can send over all its links at once.

Sources:
  TPU v2: Jouppi et al. 2020, "A domain-specific supercomputer for training deep neural networks"
    (doi 10.1145/3360307): 46 TFLOP/s, 16 GiB at 700 GB/s, four links of 496 Gbit/s each way.
  TPU v3: cloud.google.com/tpu/docs/v3; between chips, the all-reduce bandwidth of a pod, 340 TB/s,
    over its 1,024 chips.
  TPU v4: cloud.google.com/tpu/docs/v4; likewise, 1.1 PB/s over 4,096 chips.
  TPU v5e: cloud.google.com/tpu/docs/v5e; likewise, 51.2 TB/s over 256 chips.
  TPU v5p: cloud.google.com/tpu/docs/v5p; between chips, half of the 1,200 GB/s both ways.
  TPU v6e: cloud.google.com/tpu/docs/v6e, of whose editions the larger memory bandwidth, 1,640 GB/s;
    between chips, 102.4 TB/s over 256 chips.
  A100 (SXM, 80 GB), H100 (SXM), H200, L4: NVIDIA's data sheets of these products, whose rates with
    sparsity are halved; between chips, half of NVLink's bandwidth both ways, or of PCIe 4.0 x16.
  RTX 4090: NVIDIA's "Ada GPU architecture" (2.1), appendix A, with float32 accumulation.

A TPU computes float32 convolutions and products in bfloat16 at JAX's default precision, and a GPU
in TensorFloat-32.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping

from jaxcnn._checks import near


@dataclasses.dataclass(frozen=True)
class Chip:
    """Published peaks of a chip.

    Attributes:
      name: as in the name of a slice.
      kinds: what JAX calls its devices (`device_kind`).
      flops_per_s: {type of the computation: FLOP/s}.
      memory_bytes: size of its memory.
      bytes_per_s: bandwidth of its memory.
      link_bytes_per_s: bytes per second that it can send to other chips.
      devices: number of JAX devices on a chip; they share all of the above.
      cores: number of cores that the names of cloud accelerators count for a chip.
      most: number of chips of the largest slice.
    """

    name: str
    kinds: tuple[str, ...]
    flops_per_s: Mapping[str, float]
    memory_bytes: float
    bytes_per_s: float
    link_bytes_per_s: float
    devices: int = 1
    cores: int = 1
    most: int = 1


def _tpu(
    name: str,
    kinds: tuple[str, ...],
    tflops: float,
    gib: int,
    gb_per_s: int,
    link: float,
    most: int,
    **options: int,
) -> Chip:
    rates = dict.fromkeys(("bfloat16", "float32"), tflops * 1e12)
    sizes = gib * 2**30, gb_per_s * 1e9, link * 1e9
    return Chip(name, kinds, rates, *sizes, most=most, **options)


def _gpu(
    name: str, kinds: tuple[str, ...], bf16: float, tf32: float, gb: int, gb_per_s: int, link: float
) -> Chip:
    rates = {"bfloat16": bf16 * 1e12, "float32": tf32 * 1e12}
    return Chip(name, kinds, rates, gb * 1e9, gb_per_s * 1e9, link * 1e9)


CHIPS = {
    chip.name: chip
    for chip in (
        _tpu("v2", ("TPU v2",), 46, 16, 700, 248, 256, devices=2, cores=2),
        _tpu("v3", ("TPU v3",), 123, 32, 900, 332, 1024, devices=2, cores=2),
        _tpu("v4", ("TPU v4",), 275, 32, 1200, 268, 4096, cores=2),
        _tpu("v5e", ("TPU v5 lite", "TPU v5e"), 197, 16, 819, 200, 256),
        _tpu("v5p", ("TPU v5", "TPU v5p"), 459, 95, 2765, 600, 6144, cores=2),
        _tpu("v6e", ("TPU v6 lite", "TPU v6e"), 918, 32, 1640, 400, 256),
        _gpu("a100", ("NVIDIA A100-SXM4-80GB",), 312, 156, 80, 2039, 300),
        _gpu("h100", ("NVIDIA H100 80GB HBM3",), 989, 494, 80, 3350, 450),
        _gpu("h200", ("NVIDIA H200",), 989, 494, 141, 4800, 450),
        _gpu("l4", ("NVIDIA L4",), 121, 60, 24, 300, 32),
        _gpu("rtx4090", ("NVIDIA GeForce RTX 4090",), 165.2, 82.6, 24, 1008, 32),
    )
}
TPUS = tuple(name for name in CHIPS if name.startswith("v"))
LOCAL = "local"
# Other spellings of a generation: of Cloud TPU's accelerator types, and of JAX's topologies.
_SPELLINGS = {"v5litepod": "v5e", "v5lite": "v5e", "v5": "v5p"}
_FORMS = "such as v5e:4x4, v5litepod-16, v4-32, v5p-128, v6e-8 or local"


@dataclasses.dataclass(frozen=True)
class Slice:
    """Chips of one kind that are connected with each other.

    Attributes:
      chip: the kind.
      shape: the number of chips along each axis of the network between them.
    """

    chip: Chip
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """The slice as JAX's topologies call it, such as "v5e:4x4"."""
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

    @property
    def host(self) -> tuple[int, ...]:
        """The chips of a host along each axis: eight where v5e or v6e has eight, else four."""
        side = tuple(min(side, 2) for side in self.shape[:2])
        eight = self.chip.name in ("v5e", "v6e") and self.shape == (2, 4)
        return (*(self.shape if eight else side), 1)

    @property
    def chips(self) -> int:
        """The number of chips."""
        return math.prod(self.shape)


def parse_slice(name: str) -> Slice:
    """Reads the name of a TPU slice.

    Args:
      name: generation and shape, as in JAX ("v5e:4x4", "v4:2x2x4"), or the type of a cloud
        accelerator, whose number counts chips for v5e and v6e and cores for the others
        ("v5litepod-16", "v6e-8", "v4-32").

    Raises:
      ValueError: there is no such slice.

    >>> parse_slice("v4-32").name, parse_slice("v5litepod-256").chips
    ('v4:2x2x4', 256)
    """
    found = re.fullmatch(r"(v\w+?)(?::(\d+(?:x\d+){1,2})|-(\d+))", name.strip().lower())
    if not found:
        gpu = name.lower().split(":")[0] in CHIPS
        here = "; a GPU is planned where it is, as local" if gpu else ""
        raise ValueError(f"--on is {name!r}; it must be {_FORMS}{here}")
    generation, shape, number = found.groups()
    generation = _SPELLINGS.get(generation, generation)
    if generation not in TPUS:
        hint = near(generation, (*TPUS, *_SPELLINGS)) or f"; known are {', '.join(TPUS)}"
        raise ValueError(f"--on is {name!r}; TPU {generation!r} is unknown{hint}")
    chip = CHIPS[generation]
    axes = 3 if generation in ("v4", "v5p") else 2
    sides = tuple(map(int, shape.split("x"))) if shape else _shape_of(name, chip, int(number), axes)
    if len(sides) != axes or min(sides) < 1:
        example = "x".join(["2"] * axes)
        raise ValueError(
            f"--on is {name!r}; a slice of {generation} has {axes} axes of one chip or more, as "
            f"in {generation}:{example}"
        )
    if math.prod(sides) > chip.most:
        raise ValueError(
            f"--on is {name!r}; a slice of {generation} has at most {chip.most:,} chips"
        )
    return Slice(chip, sides)


def _shape_of(name: str, chip: Chip, number: int, axes: int) -> tuple[int, ...]:
    """The usual shape of a slice of this many cores."""
    chips, rest = divmod(number, chip.cores)
    shape = None if rest else (_cuboid(chips) if axes == 3 else _rectangle(chips))
    if shape is None:
        sizes = [chip.cores * n for n in ((4, 8, 16, 32, 64) if axes == 3 else (1, 4, 8, 16, 32))]
        raise ValueError(
            f"--on is {name!r}; the size of a {chip.name} slice must be one of "
            f"{', '.join(map(str, sizes))}, ..."
        )
    return shape


def _rectangle(chips: int) -> tuple[int, ...] | None:
    """The most even shape of a power of two of chips; there is none of two."""
    power = chips.bit_length() - 1
    if chips != 2**power or chips == 2:
        return None
    return 2 ** (power // 2), 2 ** (power - power // 2)


def _cuboid(chips: int) -> tuple[int, ...] | None:
    """The most even shape whose sides are 1, 2, 4 or a multiple of 4, in order of length."""
    if chips == 4:
        return 2, 2, 1
    sides = [side for side in range(2, chips + 1) if chips % side == 0 and _is_side(side)]
    shapes = [
        (a, b, chips // (a * b))
        for a in sides
        for b in sides
        if a <= b <= chips // (a * b) and chips % (a * b) == 0 and _is_side(chips // (a * b))
    ]
    return min(shapes, key=lambda shape: shape[2] - shape[0], default=None)


def _is_side(length: int) -> bool:
    return length == 2 or length % 4 == 0


def chip_of(device_kind: str) -> Chip | None:
    """Returns the chip of a JAX device by its `device_kind`; None if it is not in the table."""
    return next((chip for chip in CHIPS.values() if device_kind in chip.kinds), None)
