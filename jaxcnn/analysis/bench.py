"""What a network's step costs on this machine, against what the machine can do.

A step's time is set beside two measured limits: the rate of a large matrix product in the step's
type, and the rate at which the memory is read and written. FLOPs are XLA's count of the program as
it was traced (two for a multiply-add, elementwise operations included, no zeros that a formulation
for one platform multiplies by), bytes its count of what the compiled program's operations read and
write, so that what a cache serves is counted too.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcnn import ops
from jaxcnn._checks import near
from jaxcnn.models.registry import create_model, model_info
from jaxcnn.reporting.tables import text_table
from jaxcnn.runtime import compilation
from jaxcnn.training.state import TrainState, abstract_variables, create_state
from jaxcnn.training.step import make_train_step

DTYPES = ("float32", "bfloat16", "float16")
_BLOCKS = 7
# Side of the matrices and length of the vector that the machine is measured with.
_SIZES = {"cpu": (2048, 2**26)}
_LARGE = (8192, 2**28)


@dataclasses.dataclass(frozen=True)
class Machine:
    """What one device can do, measured: `flops_per_s` by type, `bytes_per_s` read and written."""

    device: str
    flops_per_s: dict[str, float]
    bytes_per_s: float


@dataclasses.dataclass(frozen=True)
class Bench:
    """One network's step on one device.

    Times are in seconds. `step_seconds` is the median of the blocks' means, `step_least` and
    `step_most` the fastest and the slowest block. `memory_bytes` is what the compiled program
    takes: arguments, results and temporaries; None where the backend does not say.
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
    """Measures each network's training step, or its inference, on the first device.

    The training step is that of `jaxcnn train` with SGD and momentum, on a batch that is already on
    the device. One network after another; use `benchmarks/` for ratios, which need turns.

    Args:
      models: ids or aliases.
      train: the training step; False for logits of a batch.
      batch: images of a step; by default 128 for images of up to 64 pixels, else 8 on a CPU and 64
        elsewhere.
      dtype: "float32", "bfloat16" or "float16": of the computation.
      image_size: height and width; by default the network's own.
      seconds: about how long each network is measured.
      machine: as `measure_machine` gives it; measured if None.

    Raises:
      ValueError: at once, for an unknown network, a type that is none of the three, numbers below
        1, or an image that is too small.
    """
    plans = [_plan(name, batch, dtype, image_size) for name in models]
    if not seconds > 0:
        raise ValueError(f"seconds is {seconds}; it must be above 0")
    return _bench(plans, train, dtype, seconds, machine)


def _bench(plans, train, dtype, seconds, machine) -> Iterator[Bench]:
    machine = machine or measure_machine((dtype,))
    for name, batch, size in plans:
        yield _measure(name, train, batch, dtype, size, seconds, machine)


def _plan(name: str, batch: int | None, dtype: str, size: int | None) -> tuple[str, int, int]:
    info = model_info(name)
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; it must be one of {', '.join(DTYPES)}"
                         f"{near(dtype, DTYPES)}")  # fmt: skip
    if size is None:
        size = info.known_input_size()[0]
    elif size < 1:
        raise ValueError(f"image size is {size}; it must be at least 1")
    else:  # the network says what it does not take
        abstract_variables(create_model(info.name), (1, size, size, info.known_input_size()[-1]))
    if batch is None:
        batch = 128 if size <= 64 else 8 if jax.default_backend() == "cpu" else 64
    if batch < 1:
        raise ValueError(f"batch is {batch}; it must be at least 1")
    return info.name, batch, size


def _measure(name, train, batch, dtype, size, seconds, machine) -> Bench:
    call, arguments = make_step(name, train=train, batch=batch, dtype=dtype, image_size=size)
    began = time.perf_counter()
    traced = call.trace(*arguments)
    compiled = traced.lower().compile()
    compile_seconds = time.perf_counter() - began
    blocks = step_times(compiled, arguments, seconds, keeps_state=train)
    step = statistics.median(blocks)
    counted = _costs(compiled)
    with ops.use("reference"):  # without the zeros that an implementation multiplies by
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
    """The step, to be lowered, and its arguments: (state, batch, key), or (variables, images).

    `model` takes the place of the network as `name` alone makes it, `make_state` that of
    `create_state`. Without `metrics` a training step gives the loss only.
    """
    model = create_model(name, dtype=jnp.dtype(dtype)) if model is None else model
    info = model_info(name)
    shape = (batch, image_size, image_size, info.known_input_size()[-1])
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


def _loss_only(step: Callable) -> Callable:
    """The compiler leaves out whatever the other metrics alone need."""

    def loss_only(state, batch, key):
        state, metrics = step(state, batch, key)
        return state, metrics["loss"]

    return loss_only


def step_times(
    call: Callable, arguments: tuple[Any, ...], seconds: float, *, keeps_state: bool
) -> list[float]:
    """Mean seconds of a call in each of some blocks, after two calls that warm up.

    With `keeps_state` the first argument is donated, and the first result takes its place.
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
    """The first device's rates: of a square matrix product, and of `2 * x` on a large array."""
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
    """XLA's counts, {} where it does not give any."""
    found = stage.cost_analysis()
    return (found[0] if isinstance(found, list) else found) or {}


def to_text(machine: Machine, rows: Iterable[Bench]) -> str:
    """The table that `jaxcnn bench` prints."""
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
