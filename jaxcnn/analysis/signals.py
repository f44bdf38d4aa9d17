"""Measures how signals pass through a network: activations, gradients, and residual branches.

The three curves are those of He et al. 2015 (arXiv 1502.01852, section 2.2), Glorot & Bengio 2010
and He et al. 2015 (arXiv 1512.03385, figure 7). They reveal networks that cannot be trained.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn import layers
from jaxcnn.reporting.figures import make_figure, plain_text, save
from jaxcnn.reporting.tables import text_table
from jaxcnn.training.optim.losses import cross_entropy

_LAYERS = (nn.Conv, nn.Dense)
_MOST_STAGES = 24  # names below an axis
_PANELS = (
    ("variance of activations", "variance"),
    ("norm of the kernel's gradient", "gradient_norm"),
    ("distance from identity", "distance"),  # of networks with residual blocks
)


@dataclasses.dataclass(frozen=True)
class Signal:
    """Statistics of a layer or of a block.

    Attributes:
      name: path of the module, such as "stage1_block1/conv1".
      variance: of a layer's output, before normalization and activation; None for a block.
      gradient_norm: L2 norm of the loss's gradient with respect to the layer's kernel; None for a
        block.
      distance: ||y - x|| / ||x|| of a block whose output y has the shape of its input x, averaged
        over the images; None for a layer. For a pre-activation block it is ||F(x)|| / ||x||.
    """

    name: str
    variance: float | None
    gradient_norm: float | None
    distance: float | None


def measure_signals(
    model: nn.Module,
    variables: Mapping[str, Any],
    images: Any,
    labels: Any,
    *,
    seed: int = 0,
) -> list[Signal]:
    """Measures the signals of a batch in training mode, with batch statistics and dropout.

    Args:
      model: the network.
      variables: its variables.
      images: f32[N,H,W,C].
      labels: i32[N].
      seed: of dropout.

    Returns:
      Layers and blocks in order of computation; a block follows its layers.
    """
    return make_program(model)(variables, images, labels, seed)


def make_program(model: nn.Module) -> Callable[..., list[Signal]]:
    """Compiles `measure_signals` for a network.

    Args:
      model: the network.

    Returns:
      A function of (variables, images, labels, seed=0).
    """
    if getattr(model, "remat", False):
        model = model.clone(remat=False)  # rematerialized activations cannot be recorded

    def loss(params: Any, others: Any, images: Any, labels: Any, key: Any) -> tuple[Any, Any]:
        recorded: collections.OrderedDict[str, dict[str, Any]] = collections.OrderedDict()
        with nn.intercept_methods(_recorder(recorded)):
            logits, _ = model.apply(
                {"params": params, **others}, images, train=True,
                mutable=["batch_stats"], rngs={"dropout": key},
            )  # fmt: skip
        return cross_entropy(logits, labels).mean(), recorded

    @jax.jit
    def measure(params: Any, others: Any, images: Any, labels: Any, key: Any) -> Any:
        gradients, recorded = jax.grad(loss, has_aux=True)(params, others, images, labels, key)
        for name, values in recorded.items():
            if "variance" in values:
                kernel = _at(gradients, name)["kernel"].astype(jnp.float32)
                values["gradient_norm"] = jnp.linalg.norm(kernel.ravel())
        return recorded

    def program(
        variables: Mapping[str, Any], images: Any, labels: Any, seed: int = 0
    ) -> list[Signal]:
        others = {name: held for name, held in variables.items() if name != "params"}
        key = jax.random.key(seed)
        recorded = jax.device_get(measure(variables["params"], others, images, labels, key))
        fields = ("variance", "gradient_norm", "distance")
        return [
            Signal(name, *(float(values[f]) if f in values else None for f in fields))
            for name, values in recorded.items()
        ]

    return program


def _recorder(recorded: dict[str, dict[str, Any]]) -> Callable[..., Any]:
    """An interceptor that records the statistics of every layer and every block."""

    def record(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        out = call(*args, **kwargs)
        module, name = context.module, "/".join(context.module.path)
        if context.method_name != "__call__" or not isinstance(out, jax.Array):
            return out
        if isinstance(module, _LAYERS):
            recorded[name] = {"variance": jnp.var(out.astype(jnp.float32))}
        elif _is_block(module, name, recorded) and args[0].shape == out.shape:
            x, y = (v.astype(jnp.float32).reshape(len(v), -1) for v in (args[0], out))
            distances = jnp.linalg.norm(y - x, axis=1) / jnp.linalg.norm(x, axis=1)
            recorded[name] = {"distance": distances.mean()}
        return out

    return record


def _is_block(module: nn.Module, name: str, recorded: Mapping[str, Any]) -> bool:
    """Whether a module is a block: it has at least two layers and is not the network or a gate."""
    if not name or isinstance(module, layers.SqueezeExcite):
        return False
    return sum(other.startswith(f"{name}/") for other in recorded) >= 2


def _at(tree: Any, name: str) -> Any:
    for part in name.split("/"):
        tree = tree[part]
    return tree


def to_text(title: str, signals: Iterable[Signal]) -> str:
    """Formats signals as an aligned table.

    Args:
      title: above the table.
      signals: the signals.
    """
    header = ["layer or block", "variance", "gradient norm", "distance from identity"]
    rows = [
        [s.name, *(f"{v:.4g}" if v is not None else "" for v in _figures(s))] for s in signals
    ]  # fmt: skip
    return f"{title}\n\n{text_table(header, rows)}"


def to_csv(states: Mapping[str, Sequence[Signal]]) -> str:
    """Formats signals as CSV, one row for each layer or block of each state.

    Args:
      states: {title: signals}.
    """
    lines = ["state,name,variance,gradient_norm,distance"]
    for title, signals in states.items():
        for s in signals:
            figures = ("" if v is None else repr(v) for v in _figures(s))
            lines.append(",".join([title.replace(",", ";"), s.name, *figures]))
    return "\n".join(lines) + "\n"


def draw(states: Mapping[str, Sequence[Signal]], path: str | Path) -> None:
    """Draws the statistics against depth, with one line for each state.

    If all states are of the same network, the axis has the names of its stages.

    Args:
      states: {title: signals}.
      path: of the figure, .png, .svg or .pdf.
    """
    shown_panels = [
        (word, field)
        for word, field in _PANELS
        if any(getattr(s, field) is not None for signals in states.values() for s in signals)
    ]
    figure = make_figure(5 * len(shown_panels), 4.6)
    panels = figure.subplots(1, len(shown_panels), squeeze=False)[0]
    for axes, (word, field) in zip(panels, shown_panels):
        for title, signals in states.items():
            values = [v for s in signals if (v := getattr(s, field)) is not None]
            shown = [v if np.isfinite(v) and v > 0 else np.nan for v in values]
            axes.plot(range(1, len(shown) + 1), shown, marker=".", linewidth=1)
            axes.lines[-1].set_label(plain_text(title))
        axes.set(title=word, xlabel="block" if field == "distance" else "layer", yscale="log")
        if marks := _readable(_stages(states.values(), field), len(values)):
            axes.set_xticks(*zip(*marks), rotation=45, ha="right", fontsize=8)
        else:
            axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3, which="both")
        if not any(np.isfinite(line.get_ydata()).any() for line in axes.lines):
            axes.set_yscale("linear")
            axes.text(0.5, 0.5, "none", ha="center", transform=axes.transAxes)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    save(figure, path)


def _stages(states: Iterable[Sequence[Signal]], field: str) -> list[tuple[int, str]]:
    """(number of the first layer, name) of each stage; [] if the states are of different networks.

    A stage is what the names of its layers have in common: "stage1" of "stage1_block1/conv1".
    """
    listed = {tuple(s.name for s in x if getattr(s, field) is not None) for x in states}
    if len(listed) != 1:
        return []
    found: list[tuple[int, str]] = []
    for number, name in enumerate(listed.pop(), 1):
        stage = name.partition("/")[0].partition("_")[0]
        if not found or found[-1][1] != stage:
            found.append((number, stage))
    return found if len(found) <= _MOST_STAGES else []


def _readable(marks: Sequence[tuple[int, str]], length: int) -> list[tuple[int, str]]:
    """Drops the names that the next one would cover on an axis of this length."""
    nexts = [number for number, _ in marks[1:]] + [math.inf]
    return [mark for mark, after in zip(marks, nexts) if after - mark[0] > length / 30]


def _figures(signal: Signal) -> tuple[float | None, ...]:
    return signal.variance, signal.gradient_norm, signal.distance
