"""Measures the training or inference step of a network against the peak rates of the machine.

The time of a step is compared with two measured limits: the rate of a large matrix product in the
step's type, and the memory bandwidth. FLOPs are XLA's count for the traced program: two per
multiply-add, including elementwise operations but not the zeros that a platform-specific
implementation multiplies by. Bytes are XLA's count of what the operations of the compiled program
read and write, including accesses that are served by caches.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcnn import ops
from jaxcnn._checks import one_of
from jaxcnn.models.registry import create_model, model_info
from jaxcnn.reporting.tables import text_table
from jaxcnn.runtime import compilation
from jaxcnn.training.state import TrainState, abstract_variables, create_state
from jaxcnn.training.step import make_train_step

DTYPES = ("float32", "bfloat16")
_BLOCKS = 7
_MOST_IMAGES = 1_000_000  # of a batch
# Side of the matrices and length of the vector in the measurement of the machine.
_SIZES = {"cpu": (2048, 2**26)}
_LARGE = (8192, 2**28)


@dataclasses.dataclass(frozen=True)
class Machine:
    """Measured peak rates of a device.

    Attributes:
      device: kind of the device.
      flops_per_s: {type: rate of a large matrix product, in FLOP/s}.
      bytes_per_s: memory bandwidth, reads and writes together.
    """

    device: str
    flops_per_s: dict[str, float]
    bytes_per_s: float


@dataclasses.dataclass(frozen=True)
class Bench:
    """Measurements of a network's step on one device.

    The step is timed in several blocks of calls.

    Attributes:
      model: id of the network.
      mode: "train" or "infer".
      batch: number of images.
      dtype: type of the computation.
      image_size: height and width in pixels.
      compile_seconds: time to lower and compile the step.
      step_seconds: median of the blocks' mean step times.
      step_least, step_most: mean step times of the fastest and the slowest block, in seconds.
      images_per_s: throughput.
      flops: FLOPs of a step.
      bytes: bytes that a step reads and writes; None if the backend does not report them.
      memory_bytes: memory of the compiled program (arguments, results and temporaries); None if the
        backend does not report it.
      peak_share: fraction of the machine's rate of matrix products.
      bandwidth_share: fraction of the machine's memory bandwidth; None if `bytes` is unknown.
    """

    model: str
    mode: str
    batch: int
    dtype: str
    image_size: int
    compile_seconds: float
    step_seconds: float
    step_least: float
    step_most: float
    images_per_s: float
    flops: float
    bytes: float | None
    memory_bytes: int | None
    peak_share: float
    bandwidth_share: float | None


def bench(
    models: Iterable[str],
    *,
    train: bool = True,
    batch: int | None = None,
    dtype: str = "float32",
    image_size: int | None = None,
    seconds: float = 3.0,
    machine: Machine | None = None,
) -> Iterator[Bench]:
    """Measures the training step or the inference of networks on the first device.

    The training step is that of `jaxcnn train` with SGD and momentum, on a batch that is already on
    the device. The networks are measured one after another; for ratios, which need alternating
    measurements, use the scripts in `benchmarks/`.

    Args:
      models: ids or aliases.
      train: measure the training step; False to measure the computation of logits.
      batch: number of images per step; by default 128 for images of up to 64 pixels, else 8 on a
        CPU and 64 on other devices.
      dtype: type of the computation, "float32" or "bfloat16".
      image_size: height and width in pixels; by default the network's own.
      seconds: approximate duration of the measurement of each network.
      machine: result of `measure_machine`; None to measure it.

    Returns:
      An iterator over the measurements of each network.

    Raises:
      ValueError: a network or the type is unknown, a number is less than 1, or the images are too
        small for a network. It is raised before anything is measured.
    """
    plans = [_plan(name, batch, dtype, image_size) for name in models]
    if not 0 < seconds < math.inf:
        raise ValueError(f"seconds is {seconds}; it must be above 0 and finite")
    return _bench(plans, train, dtype, seconds, machine)


def _bench(
    plans: Sequence[tuple[str, int, int]],
    train: bool,
    dtype: str,
    seconds: float,
    machine: Machine | None,
) -> Iterator[Bench]:
    machine = machine or measure_machine((dtype,))
    for name, batch, size in plans:
        yield _measure(name, train, batch, dtype, size, seconds, machine)


def _plan(name: str, batch: int | None, dtype: str, size: int | None) -> tuple[str, int, int]:
    info = model_info(name)
    one_of("dtype", dtype, DTYPES)
    if size is None:
        size = info.known_input_size()[0]
    elif size < 1:
        raise ValueError(f"image size is {size}; it must be at least 1")
    else:  # raises if the network does not accept the size
        abstract_variables(create_model(info.name), (1, size, size, info.channels))
    if batch is None:
        batch = 128 if size <= 64 else 8 if jax.default_backend() == "cpu" else 64
    if not 1 <= batch <= _MOST_IMAGES:
        raise ValueError(f"batch is {batch}; it must be at least 1 and at most {_MOST_IMAGES:,}")
    return info.name, batch, size


def _measure(
    name: str,
    train: bool,
    batch: int,
    dtype: str,
    size: int,
    seconds: float,
    machine: Machine,
) -> Bench:
    call, arguments = make_step(name, train=train, batch=batch, dtype=dtype, image_size=size)
    began = time.perf_counter()
    traced = call.trace(*arguments)
    compiled = traced.lower().compile()
    compile_seconds = time.perf_counter() - began
    blocks = step_times(compiled, arguments, seconds, keeps_state=train)
    step = statistics.median(blocks)
    counted = _costs(compiled)
    with ops.use("reference"):  # without the zeros that other implementations multiply by
        plain = call.lower(*arguments)
    flops = (_costs(plain) or counted)["flops"]
    moved = counted.get("bytes accessed")
    return Bench(
        model=name,
        mode="train" if train else "infer",
        batch=batch,
        dtype=dtype,
        image_size=size,
        compile_seconds=compile_seconds,
        step_seconds=step,
        step_least=min(blocks),
        step_most=max(blocks),
        images_per_s=batch / step,
        flops=flops,
        bytes=moved,
        memory_bytes=compilation.memory_bytes(compiled),
        peak_share=flops / step / machine.flops_per_s[dtype],
        bandwidth_share=moved / step / machine.bytes_per_s if moved else None,
    )


def make_step(
    name: str,
    *,
    train: bool,
    batch: int,
    dtype: str,
    image_size: int,
    model: Any = None,
    metrics: bool = True,
    make_state: Callable[..., TrainState] = create_state,
) -> tuple[Any, tuple[Any, ...]]:
    """Creates a jitted training or inference step of a network, and arguments for it.

    Args:
      name: id or alias of the network.
      train: create a training step; False for the computation of logits.
      batch: number of images.
      dtype: type of the computation.
      image_size: height and width in pixels.
      model: the network; by default created from `name`.
      metrics: let the training step return all metrics, or only the loss.
      make_state: function to use in place of `create_state`.

    Returns:
      The step and its arguments: (state, batch, key), or (variables, images) for inference.
    """
    model = create_model(name, dtype=jnp.dtype(dtype)) if model is None else model
    info = model_info(name)
    shape = (batch, image_size, image_size, info.channels)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.standard_normal(shape, np.float32))
    optimizer = optax.sgd(0.01, momentum=0.9)
    state = make_state(model, optimizer, jax.random.key(0), (1, *shape[1:]))
    if train:
        labels = jnp.asarray(rng.integers(0, info.num_classes, batch), jnp.int32)
        step = make_train_step(model, optimizer)
        if not metrics:
            step = _loss_only(step)
        call = compilation.jit(step, donate_argnums=(0,))
        return call, (state, {"image": images, "label": labels}, jax.random.key(1))
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    return compilation.jit(functools.partial(model.apply, train=False)), (variables, images)


def _loss_only(step: Callable[..., Any]) -> Callable[..., Any]:
    """The step without the other metrics, so that the compiler removes their computation."""

    def loss_only(state: Any, batch: Any, key: Any) -> tuple[Any, Any]:
        state, metrics = step(state, batch, key)
        return state, metrics["loss"]

    return loss_only


def step_times(
    call: Callable[..., Any], arguments: tuple[Any, ...], seconds: float, *, keeps_state: bool
) -> list[float]:
    """Times a function in several blocks of calls, after two warm-up calls.

    Args:
      call: the function.
      arguments: its arguments.
      seconds: approximate duration of all blocks together.
      keeps_state: the first argument is donated, and each call receives the first result of the
        previous one in its place.

    Returns:
      Mean seconds per call of each block.
    """
    first, rest = arguments[0], arguments[1:]

    def run(count: int) -> float:
        nonlocal first
        began = time.perf_counter()
        for _ in range(count):
            out = call(first, *rest)
            if keeps_state:
                first, out = out
        jax.block_until_ready((first, out))
        return (time.perf_counter() - began) / count

    run(1)
    count = max(1, round(seconds / _BLOCKS / run(1)))
    return [run(count) for _ in range(_BLOCKS)]


def measure_machine(dtypes: Iterable[str], *, seconds: float = 1.0) -> Machine:
    """Measures the peak rates of the first device.

    The rates are those of a product of square matrices, and of `2 * x` on a large array.

    Args:
      dtypes: types in which to measure the matrix product.
      seconds: approximate duration of each measurement.
    """
    size, length = _SIZES.get(jax.default_backend(), _LARGE)
    rates = {}
    for dtype in dtypes:
        x = jnp.ones((size, size), dtype)
        times = step_times(jax.jit(jnp.matmul), (x, x), seconds, keeps_state=False)
        rates[dtype] = 2 * size**3 / min(times)
    double = jax.jit(lambda x: (2 * x, 0), donate_argnums=(0,))
    times = step_times(double, (jnp.zeros(length, jnp.float32),), seconds, keeps_state=True)
    return Machine(jax.devices()[0].device_kind, rates, 2 * 4 * length / min(times))


def _costs(stage: Any) -> dict[str, float]:
    """XLA's cost analysis, {} if there is none."""
    costs = stage.cost_analysis()
    return (costs[0] if isinstance(costs, list) else costs) or {}


def to_text(machine: Machine, rows: Iterable[Bench]) -> str:
    """Formats the measurements as the table that `jaxcnn bench` prints.

    Args:
      machine: peak rates of the device.
      rows: measurements of networks.
    """
    peaks = ", ".join(f"{r / 1e9:,.0f} GFLOP/s in {d}" for d, r in machine.flops_per_s.items())
    head = f"{machine.device}: matrix product {peaks}; memory {machine.bytes_per_s / 1e9:,.0f} GB/s"
    header = ["network", "step", "batch", "type", "size", "compile s", "step ms", "spread ms",
              "images/s", "GFLOP", "of peak", "GB", "of memory", "MiB"]  # fmt: skip
    table = []
    for row in rows:
        known = row.bytes is not None and row.bandwidth_share is not None
        table.append([
            row.model, row.mode, str(row.batch), row.dtype, str(row.image_size),
            f"{row.compile_seconds:.1f}", f"{1e3 * row.step_seconds:,.2f}",
            f"{1e3 * row.step_least:,.2f}-{1e3 * row.step_most:,.2f}",
            f"{row.images_per_s:,.1f}", f"{row.flops / 1e9:,.2f}", f"{row.peak_share:.0%}",
            f"{(row.bytes or 0) / 1e9:,.3f}" if known else "",
            f"{row.bandwidth_share:.0%}" if known else "",
            "" if row.memory_bytes is None else f"{row.memory_bytes / 2**20:,.1f}",
        ])  # fmt: skip
    return head + "\n\n" + text_table(header, table, left=2)
