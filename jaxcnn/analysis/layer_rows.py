"""Lists the layers of a traced network, whose equations carry the paths of their modules."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

from jax.extend.core import Literal

from jaxcnn.analysis.receptive_field import ReceptiveField, field
from jaxcnn.analysis.spans import Spans, equation_spans, image_spans, inner_call
from jaxcnn.models.costs import equation_macs


@dataclasses.dataclass(frozen=True)
class Row:
    """A layer and its costs for one image.

    Attributes:
      name: path of the module, or of the module that pools or normalizes.
      kind: "conv 3x3/2", "dense", "max pool 2x2/2", "batch norm", ...
      shape: of the output, without the batch: (height, width, channels) or (features,).
      activations: number of values that the layer adds to memory. Normalization adds none, since
        it can work in place, like the activation functions, which have no rows.
      activation_bytes: the same in bytes.
      params: number of trainable parameters.
      weights: number of parameters in kernels, without biases and normalization.
      macs: multiply-adds.
      field: receptive field of the output; None if it depends on no pixel or is not defined, as
        behind a transposed convolution or an `nn.scan`.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    activations: int
    activation_bytes: int
    params: int
    weights: int
    macs: int
    field: ReceptiveField | None


def layer_rows(jaxpr: Any, params: Any, batch_stats: Any = None) -> list[Row]:
    """Lists the layers of a traced `model.apply(variables, images)`.

    The first axis of every output is taken to be the batch.

    Args:
      jaxpr: of the trace.
      params: tree of the network's parameters, arrays or shapes.
      batch_stats: tree of its BatchNorm statistics, if it has any.

    Returns:
      The layers in order of computation. A layer of an `nn.scan` is one row for all repetitions.
    """
    layers = _Layers(params, batch_stats or {})
    layers.read(jaxpr, None, [None] * (len(jaxpr.invars) - 1) + [image_spans()])
    return list(layers.rows())


class _Layers:
    """Collects equations by layer while it walks a jaxpr."""

    def __init__(self, params: Any, batch_stats: Any):
        self.owners = dict(modules_with_params(params))
        self.batch_norms = {path for path, _ in modules_with_params(batch_stats)}
        self.found: dict[tuple[str, ...], dict[str, Any]] = {}
        self.unnamed: dict[tuple[str, ...], int] = {}  # numbers of pools and of LRNs by module

    def read(
        self, jaxpr: Any, outer: tuple[str, ...] | None, given: Sequence[Spans], times: int = 1
    ) -> list[Spans]:
        """Collects the layers of a jaxpr; returns what its outputs depend on.

        Args:
          jaxpr: of the network, or of an inner function.
          outer: path of the equation that calls the inner function; None for the network.
          given: what the inputs depend on.
          times: number of repetitions.
        """
        known: dict[Any, Spans] = dict(zip(jaxpr.invars, given, strict=True))
        constants: set[Any] = set(jaxpr.constvars)
        for eqn in jaxpr.eqns:
            inputs = [v for v in eqn.invars if not isinstance(v, Literal)]
            if all(v in constants for v in inputs):  # such as the divisors of an average pooling
                constants.update(eqn.outvars)
                continue
            path = module_path(str(eqn.source_info.name_stack), outer)
            seen = [None if isinstance(v, Literal) else known.get(v) for v in eqn.invars]
            if eqn.primitive.name == "scan":  # its outputs have no receptive field
                body = eqn.params["jaxpr"].jaxpr
                self.read(body, path, [None] * len(body.invars), times * eqn.params["length"])
                continue
            call = inner_call(eqn, seen)
            spans = self.read(call[0], path, call[1], times) if call else _spans(eqn, seen)
            known.update(zip(eqn.outvars, spans))
            if not call or path in self.owners:
                self._add(eqn, path, 0 if call else times * equation_macs(eqn), spans[0])
        return [None if isinstance(v, Literal) else known.get(v) for v in jaxpr.outvars]

    def _add(self, eqn: Any, path: tuple[str, ...], macs: int, spans: Spans) -> None:
        out = eqn.outvars[0].aval
        if path in self.owners:
            layer = self.found.setdefault(path, {"kind": None, "macs": 0})
            layer.update(out=out, spans=spans, macs=layer["macs"] + macs)
            layer["kind"] = layer["kind"] or _product_kind(eqn) or pool_kind(eqn)
        elif kind := pool_kind(eqn):
            path = (*path, "norm" if kind == "LRN" else "pool")
            self.unnamed[path] = number = self.unnamed.get(path, 0) + 1
            layer = {"kind": kind, "macs": 0, "out": out, "spans": spans}
            self.found[(*path, str(number))] = layer
        elif macs:
            layer = self.found.setdefault(path, {"kind": "product", "macs": 0})
            layer.update(out=out, macs=layer["macs"] + macs, spans=spans)

    def rows(self) -> Iterator[Row]:
        """Yields the layers in order of computation."""
        for path, layer in self.found.items():
            name = "/".join(path)
            if path[:-1] in self.unnamed:  # "pool2", or "pool" where there is only one
                name = "/".join(path[:-1]) + (path[-1] if self.unnamed[path[:-1]] > 1 else "")
            leaves = self.owners.get(path, [])
            kind = layer["kind"] or self._norm_kind(path, leaves)
            adds = kind not in ("batch norm", "norm", "scale and shift", "LRN")
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
                field=field(layer["spans"]),
            )

    def _norm_kind(self, path: tuple[str, ...], leaves: list[tuple[str, Any]]) -> str:
        if path in self.batch_norms:
            return "batch norm"
        return "norm" if "scale" in dict(leaves) else "scale and shift"


def _spans(eqn: Any, given: Sequence[Spans]) -> list[Spans]:
    """As `equation_spans`, but None where an output has no receptive field."""
    try:
        return equation_spans(eqn, given)
    except ValueError:
        return [None] * len(eqn.outvars)


def modules_with_params(
    params: Any, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], list[tuple[str, Any]]]]:
    """Yields the path of every module with parameters, and its parameters.

    Args:
      params: tree of parameters, arrays or shapes.
      path: of the tree's root.

    Yields:
      (path, [(name, leaf)]).
    """
    leaves = [(name, leaf) for name, leaf in params.items() if hasattr(leaf, "shape")]
    if leaves:
        yield path, leaves
    for name, child in params.items():
        if not hasattr(child, "shape"):
            yield from modules_with_params(child, (*path, name))


def module_path(name_stack: str, outer: tuple[str, ...] | None) -> tuple[str, ...]:
    """'VGG/VGG.head/fc6' -> ('fc6',): drops the network itself and the names of its methods."""
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


def pool_kind(eqn: Any) -> str | None:
    """Names a pooling, such as "max pool 3x3/2", or "LRN"; None for any other equation."""
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
    """Formats a window as '3x3', or as '3x3/2' with a stride."""
    if tuple(strides) == (1, 1):
        return _times(size)
    return f"{_times(size)}/{strides[0] if strides[0] == strides[1] else _times(strides)}"


def _times(numbers: Any) -> str:
    return "x".join(map(str, numbers))
