"""Checks that this device, driver and compiler compute correctly: one small step of each layer.

A training step is computed on the default device, and again with the formulas of
`jaxcnn.analysis.plain_layers` in float64 on the CPU. The images are trained as well, so that each
layer's gradient with respect to its input is compared.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import zlib
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any

import jax
import jax.experimental
import jax.numpy as jnp
import numpy as np

from jaxcnn import layers
from jaxcnn.analysis import plain_layers as plain
from jaxcnn.analysis.layer_kinds import CLASSES, KINDS, Kind
from jaxcnn.reporting.tables import text_table
from jaxcnn.runtime import compilation
from jaxcnn.training.optim import losses
from jaxcnn.training.optim.optimizers import make_optimizer

_SMOOTHING = 0.1
_RATE, _MOMENTUM, _DECAY = 0.1, 0.9, 0.01


@dataclasses.dataclass(frozen=True)
class Row:
    """Result of the check of a kind of layer.

    An error is the largest difference of a tensor divided by its largest value.

    Attributes:
      kind: name of the kind.
      loss: error of the loss.
      gradients: largest error of the gradients.
      updated: largest error of the updated parameters, images and running statistics.
      tolerance: of the errors.
      failed: first line of XLA's error message if the device could not compute the step.
    """

    kind: str
    loss: float
    gradients: float
    updated: float
    tolerance: float
    failed: str = ""

    @property
    def ok(self) -> bool:
        """Whether the errors are within the tolerance."""
        # NaN is not less than or equal to the tolerance
        errors = (self.loss, self.gradients, self.updated)
        return not self.failed and all(error <= self.tolerance for error in errors)


def check(kinds: Sequence[Kind] | None = None) -> Iterator[Row]:
    """Checks kinds of layers on the default device.

    Args:
      kinds: to be checked; None for all.

    Yields:
      The result of each kind.
    """
    for kind in KINDS if kinds is None else kinds:
        given = _inputs(kind)
        expected = _reference(kind, *given)
        tolerance = kind.tolerance[jax.default_backend() != "cpu"]
        try:
            computed = jax.device_get(compilation.jit(functools.partial(_step, kind))(*given))
        except jax.errors.JaxRuntimeError as error:
            message = str(error).partition("\n")[0]
            yield Row(kind.name, np.nan, np.nan, np.nan, tolerance, message)
            continue
        loss, gradients, updated = (
            _error(computed[part], expected[part]) for part in ("loss", "gradients", "updated")
        )
        yield Row(kind.name, loss, gradients, updated, tolerance)


def reference_device() -> jax.Device:
    """Returns the CPU, or the default device if JAX runs without a CPU backend."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return jax.local_devices()[0]


def to_text(rows: Sequence[Row]) -> str:
    """Formats the results as a table."""
    header = ("kind", "loss", "gradients", "updated", "tolerance", "verdict")
    cells = [
        (
            row.kind,
            *(f"{e:.1e}" for e in (row.loss, row.gradients, row.updated)),
            f"{row.tolerance:.0e}",
            "ok" if row.ok else "WRONG",
        )
        for row in rows
    ]
    failed = [f"{row.kind}: {row.failed}" for row in rows if row.failed]
    return "\n".join([text_table(header, cells), *failed])


def summary(rows: Sequence[Row]) -> str:
    """Summarizes the results: the device, the verdict, and what to do if something is wrong."""
    device, other = jax.local_devices()[0], reference_device()
    against = "float64 on the CPU" if other.platform == "cpu" else f"float64 on {other.device_kind}"
    kind = device.device_kind
    where = kind if kind == device.platform else f"{kind} ({device.platform})"
    where += f", jax {jax.__version__}, jaxlib {metadata.version('jaxlib')}"
    wrong = [row.kind for row in rows if not row.ok]
    if not wrong:
        return f"{where}: all {len(rows)} kinds agree with {against}"
    return (
        f"{where}: {len(wrong)} of {len(rows)} kinds are WRONG compared with {against}. Do not "
        "train on this device. Unset XLA_FLAGS and clear the compilation cache, then try another "
        "version of jaxlib or of the driver; JAX_PLATFORMS=cpu shows whether the device is at fault"
    )


# --- the two steps ------------------------------------------------------------------------------


def _inputs(kind: Kind) -> tuple[Any, Any, np.ndarray, np.ndarray]:
    """Trained values, running statistics, labels i32[N], and a projection to logits f32[K,outputs].

    The projection maps the flattened outputs of the layer to logits.
    """
    rng = np.random.default_rng(zlib.crc32(kind.name.encode()))

    def normal(shape: Sequence[int], scale: float = 1.0) -> np.ndarray:
        return (scale * rng.normal(size=shape)).astype(np.float32)

    images = normal(kind.shape)
    if kind.ties:
        images = np.round(4 * images) / 4
    abstract = jax.ShapeDtypeStruct(kind.shape, jnp.float32)
    out, shapes = jax.eval_shape(
        lambda x: kind.layer.init_with_output(jax.random.key(0), x), abstract
    )
    params = jax.tree.map(lambda leaf: normal(leaf.shape, 0.5), shapes.get("params", {}))
    statistics = jax.tree_util.tree_map_with_path(
        lambda path, leaf: np.full(leaf.shape, path[-1].key == "var", np.float32),
        shapes.get("batch_stats", {}),
    )
    labels = rng.integers(0, CLASSES, kind.shape[0]).astype(np.int32)
    size = int(np.prod(out.shape[1:]))
    to_logits = np.eye(CLASSES, dtype=np.float32)
    if size != CLASSES:
        to_logits = normal((CLASSES, size), 2 / np.sqrt(size))
    return {"images": images, "layer": params}, statistics, labels, to_logits


def _logits(y: jax.Array, to_logits: jax.Array) -> jax.Array:
    """Projects outputs to logits without a matrix product, which matrix units would round."""
    return (y.reshape(len(y), 1, -1) * to_logits[None]).sum(-1)


def _step(
    kind: Kind, trained: Any, statistics: Any, labels: jax.Array, to_logits: jax.Array
) -> dict[str, Any]:
    """Loss, gradients, and updated values, computed as in training."""

    def loss(trained: Any) -> tuple[jax.Array, Any]:
        variables = {"params": trained["layer"], "batch_stats": statistics}
        y, new = kind.layer.apply(variables, trained["images"], mutable=["batch_stats"])
        logits = _logits(layers.as_output(y), to_logits)
        each = losses.cross_entropy(logits, labels, label_smoothing=_SMOOTHING)
        return each.mean(), new.get("batch_stats", {})

    (value, statistics), gradients = jax.value_and_grad(loss, has_aux=True)(trained)
    rule = {"name": "sgd", "momentum": _MOMENTUM, "nesterov": True, "weight_decay": _DECAY}
    optimizer, _ = make_optimizer(rule, {"learning_rate": _RATE}, 1, 1.0, trained)
    change, _ = optimizer.update(gradients, optimizer.init(trained), trained)
    updated = jax.tree.map(jnp.add, trained, change), statistics
    return {"loss": value, "gradients": gradients, "updated": updated}


def _plain_step(
    kind: Kind, trained: Any, labels: jax.Array, to_logits: jax.Array
) -> dict[str, Any]:
    """The same, from formulas. The first step of Nesterov momentum is (1 + momentum) gradients."""

    def loss(trained: Any) -> jax.Array:
        y = kind.plain(trained["layer"], trained["images"])
        return plain.cross_entropy(_logits(y, to_logits), labels, _SMOOTHING)

    value, gradients = jax.value_and_grad(loss)(trained)

    def descend(value: Any, gradient: Any) -> Any:
        return value - _RATE * (1 + _MOMENTUM) * (gradient + _DECAY * value)

    new: Any = {}
    if kind.plain_statistics is not None:
        new = kind.plain_statistics(trained["layer"], trained["images"])
    updated = jax.tree.map(descend, trained, gradients), new
    return {"loss": value, "gradients": gradients, "updated": updated}


def _reference(
    kind: Kind, trained: Any, statistics: Any, labels: np.ndarray, to_logits: np.ndarray
) -> dict[str, Any]:
    with _float64(), jax.default_device(reference_device()):
        trained, to_logits = jax.tree.map(np.float64, (trained, to_logits))
        step = compilation.compile_init(functools.partial(_plain_step, kind))
        return jax.device_get(step(trained, labels, to_logits))


def _float64() -> contextlib.AbstractContextManager[Any]:
    """`jax.enable_x64`, which JAX 0.7 has in `jax.experimental`."""
    here = jax if hasattr(jax, "enable_x64") else jax.experimental
    return here.enable_x64(True)


def _error(computed: Any, expected: Any) -> float:
    """Largest difference divided by the largest value, the maximum over all tensors."""
    pairs = jax.tree.map(
        lambda a, b: float(np.abs(np.float64(a) - b).max() / np.abs(b).max()), computed, expected
    )
    return float(np.max(jax.tree.leaves(pairs)))
