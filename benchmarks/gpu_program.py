"""What a step reads and writes on a GPU, counted in the program that XLA makes for one, without it.

    pip install --no-deps jax-cuda13-plugin==VERSION jax-cuda13-pjrt==VERSION   # those of jax
    python benchmarks/gpu_program.py resnet50 --batch 256
    python benchmarks/gpu_program.py resnet50 --batch 256 --mode infer --dtype float32 --top 40

XLA's compiler for GPUs needs a description of a chip, an H200's here, but neither the chip nor a
driver. It chooses fusions and layouts as it would there; which kernel a convolution gets is found
by trying, so it is not known here. Counted are the bytes of each operation's operands and results:
caches are taken for nothing, and so is arithmetic.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import os
import re
import sys
from collections.abc import Iterable, Iterator

# The fields that XLA's GpuTargetConfigProto wants, from the vendor's figures.
H200 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048 core_count: 132
  fpus_per_core: 128 clock_rate_ghz: 1.98 shared_memory_per_block: 49152
  shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
  registers_per_core_limit: 65536 registers_per_block_limit: 65536 block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: 4800000000000
  l2_cache_size: 62914560 device_memory_size: 150000000000 cuda_compute_capability { major: 9 }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 15 patch: 1 }
device_description_str: "NVIDIA H200"
"""
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8,
         "u64": 8, "f64": 8}  # fmt: skip
ARRAY = re.compile(rf"\b({'|'.join(BYTES)})\[([\d,]*)\]")
INSTRUCTION = re.compile(r"\s+(?:ROOT )?%([\w.\-]+) = (\(.*?\)|\S+) ([a-z][\w\-]*)\((.*)")
FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast")


@dataclasses.dataclass(frozen=True)
class Operation:
    """One of the program: a kernel, or a library's call. `read` and `written` are bytes."""

    kind: str
    name: str
    source: str
    read: int
    written: int


def array_bytes(text: str) -> int:
    """Of all array types in an HLO text."""
    total = 0
    for dtype, shape in ARRAY.findall(text):
        size = BYTES[dtype]
        for side in filter(None, shape.split(",")):
            size *= int(side)
        total += size
    return total


def parts(result: str) -> list[str]:
    """The elements of a tuple's type, which may be tuples; none of an array's."""
    found, depth = [""], 0
    for sign in result[1:-1] if result.startswith("(") else "":
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "," and not depth:
            found.append("")
        else:
            found[-1] += sign
    return found


def operations(hlo: str) -> Iterator[Operation]:
    """Those of an optimized program's entry computation, by HLO's text."""
    entry = hlo[hlo.index("\nENTRY") :]
    lines = [found.groups() for found in map(INSTRUCTION.match, entry.splitlines()) if found]
    sizes = {}
    for name, result, _, _ in lines:
        sizes[name] = array_bytes(result)
        for i, part in enumerate(parts(result)):
            sizes[f"{name}#{i}"] = array_bytes(part)
    for name, _, opcode, rest in lines:
        if opcode in FREE:
            continue
        operands = re.findall(r"%([\w.\-#]+)", rest.partition("), ")[0])
        kind = re.search(r'custom_call_target="([^"]+)"|kind=(k\w+)', rest)
        source = re.search(r'op_name="([^"]+)"', rest)
        yield Operation(
            kind=f"{opcode} {(kind[1] or kind[2]) if kind else ''}".strip(),
            name=name,
            source=source[1] if source else "",
            read=sum(sizes.get(operand, 0) for operand in operands),
            written=sizes[name],
        )


def show(found: Iterable[Operation], bandwidth: float, top: int) -> None:
    """Bytes by kind, and the largest operations; milliseconds are bytes over the bandwidth."""
    found = list(found)
    kinds = collections.defaultdict(list)
    for one in found:
        kinds[one.kind].append(one)

    def moved(some: Iterable[Operation]) -> int:
        return sum(one.read + one.written for one in some)

    def line(name: str, some: list[Operation]) -> None:
        read, written = (sum(getattr(one, way) for one in some) for way in ("read", "written"))
        print(f"{name:42} {len(some):5}  read {read / 1e9:7.2f} GB  written {written / 1e9:7.2f} GB"
              f"  {1e3 * moved(some) / bandwidth:7.2f} ms")  # fmt: skip

    for kind, some in sorted(kinds.items(), key=lambda item: -moved(item[1])):
        line(kind, some)
    line("all", found)
    for one in sorted(found, key=lambda one: -one.read - one.written)[:top]:
        print(f"{(one.read + one.written) / 1e6:9.0f} MB  {one.name:36} {one.source[-80:]}")


def compiled_text(name: str, mode: str, batch: int, dtype: str) -> str:
    """The optimized program of `bench.make_step` for an H200."""
    os.environ["JAX_PLATFORMS"] = "cpu"  # of arrays that are not the program's
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_gpu_autotune_level=0"
    import jax
    from jax.experimental import topologies

    from jaxcnn import model_info
    from jaxcnn.analysis import bench
    from jaxcnn.training.state import abstract_state

    try:
        chip = topologies.get_topology_desc("h200", "cuda", target_config=H200, topology="1x1x1")
    except NotImplementedError as error:
        version = jax.__version__
        sys.exit(
            f"XLA's compiler for GPUs is not here: {str(error).splitlines()[0]}\n"
            f"pip install --no-deps jax-cuda13-plugin=={version} jax-cuda13-pjrt=={version}"
        )
    place = jax.sharding.SingleDeviceSharding(chip.devices[0])
    call, arguments = bench.make_step(
        name, train=mode == "train", batch=batch, dtype=dtype, metrics=False,
        image_size=model_info(name).input_size[0],
        make_state=lambda model, optimizer, _, shape: abstract_state(model, optimizer, shape),
    )  # fmt: skip
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), arguments
    )
    return call.lower(*abstract).compile().as_text()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--mode", choices=("train", "infer"), default="train")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--bandwidth", type=float, default=4.3e12, help="bytes/s (4.3e12)")
    parser.add_argument("--top", type=int, default=20, help="number of operations (20)")
    args = parser.parse_args()
    text = compiled_text(args.model, args.mode, args.batch, args.dtype)
    show(operations(text), args.bandwidth, args.top)


if __name__ == "__main__":
    main()
