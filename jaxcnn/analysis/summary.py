"""What each layer of a network costs: output shape, activation memory, parameters, multiply-adds.

Read off the traced computation: every equation of the jaxpr carries the path of the module that
made it. Nothing is computed and no array is made.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from jaxcnn.analysis.count import count_params, equation_macs, jaxpr_macs, sub_jaxprs
from jaxcnn.analysis.tables import markdown_table, text_table
from jaxcnn.models.registry import create_model, model_info, resolve


@dataclasses.dataclass(frozen=True)
class Row:
    """One layer, for one image.

    Attributes:
      name: path of the module, or of the module that pools or normalises.
      kind: "conv 3x3/2", "dense", "max pool 2x2/2", "batch norm", ...
      shape: of the output, without the batch: (height, width, channels) or (features,).
      activations: values that the layer adds to memory. Normalisation adds none: it can work in
        place, as can the activation functions, which have no rows.
      activation_bytes: the same in bytes.
      params: trainable parameters.
      weights: those of them that are multiplied, without biases and normalisation.
      macs: multiply-adds.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    activations: int
    activation_bytes: int
    params: int
    weights: int
    macs: int


@dataclasses.dataclass(frozen=True)
class Summary:
    """The rows of a network and their totals. `print()` gives the table.

    Attributes:
      model: id, or name of the class.
      input_size: (height, width, channels).
      rows: the input and every layer, in order of computation.
      aux_params: parameters of auxiliary heads, which only training computes; in no row.
    """

    model: str
    input_size: tuple[int, int, int]
    rows: tuple[Row, ...]
    aux_params: int

    def total(self, field: str) -> int:
        """Sum of a field over the rows: `total("macs")`."""
        return sum(getattr(row, field) for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: model, input_size, rows, totals, aux_params."""
        fields = ("activations", "activation_bytes", "params", "weights", "macs")
        return {
            "model": self.model,
            "input_size": list(self.input_size),
            "rows": [{**dataclasses.asdict(row), "shape": list(row.shape)} for row in self.rows],
            "totals": {field: self.total(field) for field in fields},
            "aux_params": self.aux_params,
        }

    def to_json(self) -> str:
        """`to_dict()` as JSON text."""
        return json.dumps(self.to_dict(), indent=1)

    def to_markdown(self) -> str:
        """The table in Markdown, with a line of totals."""
        return f"{self._title()}\n\n{markdown_table(*self._table(), left=2)}\n\n{self._footer()}"

    def __str__(self) -> str:
        return f"{self._title()}\n\n{text_table(*self._table(), left=2)}\n\n{self._footer()}"

    def _title(self) -> str:
        return f"{self.model}, input {_times(self.input_size)}"

    def _table(self) -> tuple[list[str], list[list[str]]]:
        header = [
            "layer",
            "kind",
            "output",
            "activations",
            "parameters",
            "weights",
            "multiply-adds",
        ]
        table = [
            [row.name, row.kind, _times(row.shape)]
            + [f"{n:,}" for n in (row.activations, row.params, row.weights, row.macs)]
            for row in self.rows
        ]
        totals = (self.total(field) for field in ("activations", "params", "weights", "macs"))
        return header, [*table, ["total", "", "", *(f"{n:,}" for n in totals)]]

    def _footer(self) -> str:
        size = self.total("activation_bytes")
        text = (
            f"activations {size / 1e6:.2f} MB per image: the input and the output of each "
            "convolution, pool and dense layer, once"
        )
        if self.aux_params:
            text += f"\nauxiliary heads, in training only: {self.aux_params:,} parameters more"
        return text


def summarize(
    model: str | nn.Module, input_size: int | tuple[int, ...] | None = None, **options: Any
) -> Summary:
    """Lists what each layer of a network costs, for one image and in evaluation.

    Args:
      model: id or alias, or a network of this package.
      input_size: height and width in one number, (height, width) or (height, width, channels).
        Left out: the size that the published counts are for; a network given as a module needs it.
      **options: of `create_model`, where the model is a name.

    Returns:
      Summary: `print(summary)`, `summary.rows`, `summary.to_dict()`.

    Raises:
      ValueError: the name or an option is unknown, the input too small, or the size missing.
    """
    channels = 3
    network: Any
    if isinstance(model, str):
        name, info = resolve(model), model_info(model)
        channels = info.input_size[2]
        input_size = info.input_size if input_size is None else input_size
        network = create_model(name, **options)
    else:
        name, network = type(model).__name__, model.clone(**options)
    size = _full_size(input_size, channels)
    images = jax.ShapeDtypeStruct((1, *size), jnp.float32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), images)
    variables = {k: v for k, v in shapes.items() if k != "endpoints"}
    closed = jax.make_jaxpr(lambda v, x: network.apply(v, x, train=False))(variables, images)
    values = math.prod(size)
    width = jnp.dtype(network.dtype).itemsize
    rows = (
        Row("input", "input", size, values, values * width, 0, 0, 0),
        *layer_rows(closed.jaxpr, variables["params"]),
    )
    used = sum(row.params for row in rows)
    return Summary(name, size, rows, count_params(variables["params"]) - used)


def layer_rows(jaxpr: Any, params: Any) -> list[Row]:
    """The layers of a traced `model.apply(variables, images)`, given its tree of parameters.

    Values are those of one image: the first axis of every output is taken as the batch's.
    """
    layers = _Layers(params)
    layers.read(jaxpr, None)
    return list(layers.rows())


def _full_size(size: int | tuple[int, ...] | None, channels: int) -> tuple[int, int, int]:
    if size is None:
        raise ValueError(
            "input_size is missing: a network given as a module has no size of its own"
        )
    full = (size, size) if isinstance(size, int) else tuple(size)
    full = (*full, channels) if len(full) == 2 else full
    if len(full) != 3 or min(full) < 1:
        raise ValueError(f"input_size {size!r} is neither a number, (height, width) nor (h, w, c)")
    return full


class _Layers:
    """Collects equations by layer while it walks a jaxpr."""

    def __init__(self, params: Any):
        self.owners = dict(_owners(params))
        self.found: dict[tuple[str, ...], dict[str, Any]] = {}
        self.unnamed: dict[tuple[str, ...], int] = {}  # pools of a module, LRNs of a module

    def read(self, jaxpr: Any, outer: tuple[str, ...] | None) -> None:
        """`outer` is the path of the equation that holds the jaxpr, None for the network's own."""
        constants: set[Any] = set(jaxpr.constvars)
        for eqn in jaxpr.eqns:
            inputs = [v for v in eqn.invars if not isinstance(v, Literal)]
            if all(v in constants for v in inputs):  # such as the counts that an average divides by
                constants.update(eqn.outvars)
                continue
            path = _module_path(str(eqn.source_info.name_stack), outer)
            inner = list(sub_jaxprs(eqn))
            if eqn.primitive.name == "cond":  # formulations by platform: the last is the default
                inner = [max(reversed(inner), key=jaxpr_macs)]
            for sub in inner:
                self.read(sub, path)
            if not inner or path in self.owners:
                self._add(eqn, path, bool(inner))

    def _add(self, eqn: Any, path: tuple[str, ...], is_call: bool) -> None:
        out = eqn.outvars[0].aval
        if path in self.owners:
            layer = self.found.setdefault(path, {"kind": None, "macs": 0})
            layer["out"] = out
            if not is_call:
                layer["macs"] += equation_macs(eqn)
                layer["kind"] = layer["kind"] or _product_kind(eqn) or _pool_kind(eqn)
        elif kind := _pool_kind(eqn):
            path = (*path, "norm" if kind == "LRN" else "pool")
            self.unnamed[path] = number = self.unnamed.get(path, 0) + 1
            self.found[(*path, str(number))] = {"kind": kind, "macs": 0, "out": out}
        elif macs := equation_macs(eqn):
            layer = self.found.setdefault(path, {"kind": "product", "macs": 0})
            layer.update(out=out, macs=layer["macs"] + macs)

    def rows(self) -> Iterator[Row]:
        for path, layer in self.found.items():
            name = "/".join(path)
            if path[:-1] in self.unnamed:  # "pool2", or "pool" where there is only one
                name = "/".join(path[:-1]) + (path[-1] if self.unnamed[path[:-1]] > 1 else "")
            leaves = self.owners.get(path, [])
            kind = layer["kind"] or ("batch norm" if "scale" in dict(leaves) else "scale and shift")
            adds = kind not in ("batch norm", "scale and shift", "LRN")
            values = math.prod(layer["out"].shape[1:]) if adds else 0
            yield Row(
                name=name,
                kind=kind,
                shape=tuple(layer["out"].shape[1:]),
                activations=values,
                activation_bytes=values * layer["out"].dtype.itemsize,
                params=sum(math.prod(leaf.shape) for _, leaf in leaves),
                weights=sum(math.prod(leaf.shape) for _, leaf in leaves if len(leaf.shape) > 1),
                macs=layer["macs"],
            )


def _owners(params: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], list]]:
    """(path, [(name, leaf)]) of every module that has parameters of its own."""
    own = [(name, leaf) for name, leaf in params.items() if hasattr(leaf, "shape")]
    if own:
        yield path, own
    for name, child in params.items():
        if not hasattr(child, "shape"):
            yield from _owners(child, (*path, name))


def _module_path(name_stack: str, outer: tuple[str, ...] | None) -> tuple[str, ...]:
    """'VGG/VGG.head/fc6' -> ('fc6',): without the network itself and the names of its methods."""
    parts = tuple(part for part in name_stack.split("/") if part and "." not in part)
    return parts[1:] if outer is None else outer + parts


def _product_kind(eqn: Any) -> str | None:
    if eqn.primitive.name == "dot_general":
        return "dense"
    if eqn.primitive.name != "conv_general_dilated":
        return None
    kernel = [eqn.invars[1].aval.shape[i] for i in eqn.params["dimension_numbers"].rhs_spec[2:]]
    groups = eqn.params["feature_group_count"]
    kind = f"conv {_window(kernel, eqn.params['window_strides'])}"
    return kind if groups == 1 else f"{kind}, {groups} groups"


def _pool_kind(eqn: Any) -> str | None:
    name = eqn.primitive.name
    if name.startswith("reduce_window"):
        window, strides = eqn.params["window_dimensions"], eqn.params["window_strides"]
        if window[-1] > 1:
            return "LRN"
        operation = "max" if name == "reduce_window_max" else "average"
        return f"{operation} pool {_window(window[1:3], strides[1:3])}"
    if name == "reduce_sum" and eqn.invars[0].aval.ndim == 4 and eqn.params["axes"] == (1, 2):
        return "global average pool"
    return None


def _window(size: Any, strides: Any) -> str:
    """'3x3', or '3x3/2' with a stride."""
    if tuple(strides) == (1, 1):
        return _times(size)
    return f"{_times(size)}/{strides[0] if strides[0] == strides[1] else _times(strides)}"


def _times(numbers: Any) -> str:
    return "x".join(map(str, numbers))
