"""The graph of a traced network: layers, activations and normalizations, branches and sums.

The graph is read from the jaxpr. Arithmetic within a layer (a bias, the steps of a normalization)
belongs to the layer, and operations that only move or cast values are left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jax.extend.core import Literal

from jaxcnn.analysis.layer_rows import module_path, modules_with_params, pool_kind
from jaxcnn.analysis.trace import Traced
from jaxcnn.models.costs import sub_jaxprs

# Functions of `jax.nn` that are drawn under their name, and primitives with the name to draw.
_ACTIVATIONS = {
    *("relu", "relu6", "gelu", "silu", "swish", "elu", "leaky_relu", "selu", "celu", "softplus"),
    *("hard_tanh", "hard_sigmoid", "hard_silu", "hard_swish", "mish", "softmax", "log_softmax"),
    *("soft_sign", "squareplus", "glu"),
}
_ACTIVATION_PRIMITIVES = {"tanh": "tanh", "logistic": "sigmoid", "erf": "erf", "exp": "exp"}
_JOINS = {"add": "+", "add_any": "+", "mul": "×", "concatenate": "concat", "dot_general": "matmul"}
_JOIN_KINDS = {"+": "add", "×": "multiply", "concat": "concat"}
_MOVES = {
    *("reshape", "transpose", "broadcast_in_dim", "squeeze", "expand_dims", "rev", "gather"),
    *("convert_element_type", "copy", "name", "optimization_barrier", "stop_gradient", "pad"),
    *("integer_pow", "square", "pow", "neg", "sqrt", "rsqrt", "abs", "clamp", "max", "min"),
    *("add", "sub", "mul", "div", "slice", "dynamic_slice", "select_n", "reduce_precision"),
}


@dataclasses.dataclass(frozen=True)
class Node:
    """A node of the graph.

    Attributes:
      kind: "input", "conv", "dense", "pool", "lrn", "norm", "act", "add", "multiply", "concat",
        "scale", "slice" or "other".
      label: what the node computes, such as "3×3 conv".
      shape: of the output, without the batch: (height, width, channels) or (features,).
      path: of the module.
      inputs: keys of the nodes that it reads.
      channels: number of output channels, where the drawing shows it behind the label.
      details: further words, such as "/2" for a stride.
      groups: of a convolution.
    """

    kind: str
    label: str
    shape: tuple[int, ...]
    path: tuple[str, ...] = ()
    inputs: tuple[int, ...] = ()
    channels: int | None = None
    details: tuple[str, ...] = ()
    groups: int = 1

    @property
    def text(self) -> str:
        """The node in one line, such as "3×3 conv, 64, /2"."""
        width = () if self.channels is None else (f"{self.channels}",)
        return ", ".join((self.label, *width, *self.details))


class Graph(NamedTuple):
    """The nodes of a network, each after those that it reads.

    Attributes:
      nodes: {key: node}, in order of computation.
      output: key of the node that computes the logits.
      heads: {name: key} of the outputs of auxiliary and box heads.
    """

    nodes: dict[int, Node]
    output: int
    heads: dict[str, int]

    def consumers(self) -> dict[int, list[int]]:
        """Returns the keys of the nodes that read each node."""
        found: dict[int, list[int]] = {key: [] for key in self.nodes}
        for key, node in self.nodes.items():
            for source in node.inputs:
                found[source].append(key)
        return found


def read_graph(traced: Traced) -> Graph:
    """Reads the graph of a traced network.

    Args:
      traced: with its endpoints, see `jaxcnn.analysis.trace`.

    Returns:
      The graph, with heads that the logits do not depend on.

    Raises:
      ValueError: the network does not return one array that depends on the images.
    """
    reader = _Reader(traced.variables)
    image = reader.add(Node("input", "image", traced.size))
    jaxpr = traced.jaxpr
    found = reader.read(jaxpr, None, [None] * (len(jaxpr.invars) - 1) + [image])
    outputs = dict(zip(traced.outputs, found))
    if len(found) != len(traced.outputs) or outputs["logits"] is None:
        raise ValueError(f"{traced.name} cannot be drawn: it must return one array, the logits")
    return _pruned(Graph(reader.nodes, outputs["logits"], {}), outputs)


def _pruned(graph: Graph, outputs: Mapping[str, int | None]) -> Graph:
    """The ancestors of the logits and of the heads: endpoints with layers of their own."""
    nodes, needed, heads = graph.nodes, ancestors(graph.nodes, graph.output), {}
    for name, key in outputs.items():
        own = set() if key is None else ancestors(nodes, key) - needed
        if key is not None and any(nodes[i].kind in ("conv", "dense") for i in own):
            heads[name] = key
    kept = needed.union(*(ancestors(nodes, key) for key in heads.values()))
    # A factor is drawn where a branch is scaled before a sum.
    added = {i for key in kept if nodes[key].kind == "add" for i in nodes[key].inputs}
    pruned = Graph({k: n for k, n in nodes.items() if k in kept}, graph.output, heads)
    return without(pruned, {k for k in kept if nodes[k].kind == "scale" and k not in added})


def ancestors(nodes: Mapping[int, Node], key: int) -> set[int]:
    """Returns the keys of a node and of everything that it depends on.

    Args:
      nodes: of the graph.
      key: of the node.
    """
    found, todo = set(), [key]
    while todo:
        if (one := todo.pop()) not in found:
            found.add(one)
            todo += nodes[one].inputs
    return found


def without(graph: Graph, gone: set[int]) -> Graph:
    """Removes nodes with one input; their consumers read the input instead.

    Args:
      graph: to be changed.
      gone: keys of the nodes to remove.
    """
    become: dict[int, int] = {}
    nodes: dict[int, Node] = {}
    for key, node in graph.nodes.items():
        inputs = tuple(dict.fromkeys(become.get(i, i) for i in node.inputs))
        if key in gone and len(inputs) == 1:
            become[key] = inputs[0]
        else:
            nodes[key] = dataclasses.replace(node, inputs=inputs)
    heads = {name: become.get(key, key) for name, key in graph.heads.items()}
    return Graph(nodes, become.get(graph.output, graph.output), heads)


class _Reader:
    """Collects nodes while it walks a jaxpr."""

    def __init__(self, variables: Any):
        self.nodes: dict[int, Node] = {}
        self.squares: set[Any] = set()  # variables that are squares
        self.norms: dict[tuple[tuple[str, ...], int], int] = {}  # by path and input
        self.layers = {
            path: {name: len(leaf.shape) for name, leaf in leaves}
            for path, leaves in modules_with_params(variables["params"] if variables else {})
        }
        statistics = variables.get("batch_stats", {})
        self.batch_norms = {path for path, _ in modules_with_params(statistics)}
        for path in self.batch_norms:
            self.layers.setdefault(path, {"scale": 1})

    def add(self, node: Node) -> int:
        key = len(self.nodes)
        self.nodes[key] = node
        return key

    def read(
        self, jaxpr: Any, outer: tuple[str, ...] | None, given: Sequence[int | None]
    ) -> list[int | None]:
        """Reads a jaxpr; returns the nodes of its outputs, None for those without image data."""
        known: dict[Any, int | None] = dict(zip(jaxpr.invars, given, strict=True))
        for eqn in jaxpr.eqns:
            sources = [None if isinstance(v, Literal) else known.get(v) for v in eqn.invars]
            data = list(dict.fromkeys(s for s in sources if s is not None))
            if not data:
                continue
            path = module_path(str(eqn.source_info.name_stack), outer)
            known.update(zip(eqn.outvars, self._results(eqn, path, sources, data)))
        return [None if isinstance(v, Literal) else known.get(v) for v in jaxpr.outvars]

    def _results(
        self, eqn: Any, path: tuple[str, ...], sources: list[int | None], data: list[int]
    ) -> list[int | None]:
        inner, name = list(sub_jaxprs(eqn)), eqn.primitive.name
        if name == "square" or eqn.params.get("y") == 2:
            self.squares |= set(eqn.outvars)
        if eqn.params.get("name") in _ACTIVATIONS and len(data) == 1:
            return [self._node(eqn, "act", eqn.params["name"], path, data)]
        if name in ("scan", "while"):
            return [self._node(eqn, "other", "loop", path, data)] * len(eqn.outvars)
        if inner and not name.startswith("reduce"):
            called = inner[-1] if name == "cond" else inner[0]  # the default is the last branch
            given = sources[1:] if name == "cond" else sources
            return self.read(called, path, [None] * (len(called.invars) - len(given)) + given)
        if name == "split":
            return [
                self._slice(eqn, var, path, data) if var.aval.size else None for var in eqn.outvars
            ]
        if eqn.outvars[0].aval.size == 0:
            return [None]
        operation = self._join if len(data) > 1 else self._step
        return [operation(eqn, path, sources, data)] * len(eqn.outvars)

    def _node(
        self, eqn: Any, kind: str, label: str, path: tuple[str, ...], data: list[int], **more: Any
    ) -> int:
        shape = tuple(eqn.outvars[0].aval.shape[1:])
        return self.add(Node(kind, label, shape, path, tuple(data), **more))

    def _slice(self, eqn: Any, var: Any, path: tuple[str, ...], data: list[int]) -> int:
        shape = tuple(var.aval.shape[1:])
        return self.add(Node("slice", "split", shape, path, tuple(data), shape[-1]))

    # Equations with several inputs that depend on the image

    def _join(
        self, eqn: Any, path: tuple[str, ...], sources: list[int | None], data: list[int]
    ) -> int:
        for key in data:  # such as x and its normalization, or x and sigmoid(x)
            node, rest = self.nodes[key], {other for other in data if other != key}
            within = node.kind == "lrn" or (node.path == path and self._is_norm(path))
            if rest <= set(node.inputs) and (within or _is_product(eqn, node)):
                return key
        label = _JOINS.get(eqn.primitive.name, eqn.primitive.name.replace("_", " "))
        return self._node(eqn, _JOIN_KINDS.get(label, "other"), label, path, data)

    # Equations with one input that depends on the image

    def _step(
        self, eqn: Any, path: tuple[str, ...], sources: list[int | None], data: list[int]
    ) -> int:
        name, [key], out = eqn.primitive.name, data, eqn.outvars[0].aval
        if name == "conv_general_dilated":
            return self._conv(eqn, path, data)
        if name == "dot_general":
            return self._node(eqn, "dense", "dense", path, data, channels=out.shape[-1])
        if self._is_norm(path) and name in ("reduce_sum", "reduce_max"):
            same = self.nodes[key].path == path
            return key if same else self._norm(eqn, path, data)
        if self._is_part(eqn, path, key):
            return self._part(eqn, key)
        if kind := pool_kind(eqn):
            return self._pool(eqn, kind, path, data)
        if name == "concatenate":
            return self._one_concatenated(eqn, sources, path, data)
        if name in ("slice", "dynamic_slice"):
            return self._sliced(eqn, path, data)
        if name == "pad" and out.shape[-1] > eqn.invars[0].aval.shape[-1]:
            return self._zeros(eqn, path, data)
        if name in _ACTIVATION_PRIMITIVES:
            return self._node(eqn, "act", _ACTIVATION_PRIMITIVES[name], path, data)
        if name == "max" and any(_number(v) == 0 for v in eqn.invars) and not self._is_norm(path):
            return self._node(eqn, "act", "relu", path, data)
        if name in ("add", "sub", "mul", "div"):
            return self._arithmetic(eqn, path, data)
        if name in ("reduce_sum", "reduce_max") and eqn.params["axes"] in ((1,), (2,)):
            return key if out.ndim > 2 else self._reduced(eqn, path, data)
        if name.startswith("reduce_") and name != "reduce_precision":
            return self._reduced(eqn, path, data)
        same = out.shape == eqn.invars[0].aval.shape
        return key if name in _MOVES or same else self._node(eqn, "other", name, path, data)

    def _is_norm(self, path: tuple[str, ...]) -> bool:
        """Whether a module has only vectors as parameters, as a normalization does."""
        leaves = self.layers.get(path, {})
        return bool({"scale", "bias"} & set(leaves)) and max(leaves.values()) <= 1

    def _is_part(self, eqn: Any, path: tuple[str, ...], key: int) -> bool:
        """Whether an equation selects or adds the maps of a convolution, within its module."""
        node, steps = self.nodes[key], ("slice", "gather", "concatenate", "reduce_sum", "reshape")
        is_last = node.kind == "conv" and node.path == path and path in self.layers
        return is_last and eqn.primitive.name in steps

    def _part(self, eqn: Any, key: int) -> int:
        node, out = self.nodes[key], eqn.outvars[0].aval
        if out.ndim == 4:
            label = node.label.replace("depthwise ", "")
            self.nodes[key] = dataclasses.replace(
                node, label=label, shape=tuple(out.shape[1:]), channels=out.shape[-1], groups=1,
                details=("sparse",),
            )  # fmt: skip
        return key

    def _norm(self, eqn: Any, path: tuple[str, ...], data: list[int]) -> int:
        if (known := self.norms.get((path, data[0]))) is not None:  # mean and mean of squares
            return known
        is_batch_norm = path in self.batch_norms
        self.norms[path, data[0]] = key = self._node(
            eqn, "norm", "batch norm" if is_batch_norm else "norm", path, data
        )
        shape = self.nodes[data[0]].shape
        self.nodes[key] = dataclasses.replace(self.nodes[key], shape=shape)
        return key

    def _conv(self, eqn: Any, path: tuple[str, ...], data: list[int]) -> int:
        spec, params = eqn.params["dimension_numbers"], eqn.params
        kernel = [eqn.invars[1].aval.shape[i] for i in spec.rhs_spec[2:]]
        groups, channels = (
            params["feature_group_count"],
            eqn.outvars[0].aval.shape[spec.out_spec[1]],
        )
        details = _stride(params["window_strides"])
        if any(d != 1 for d in params["rhs_dilation"]):
            details = (*details, f"dilation {params['rhs_dilation'][0]}")
        depthwise = groups > 1 and groups == eqn.invars[0].aval.shape[spec.lhs_spec[1]]
        if groups > 1 and not depthwise:
            details = (*details, f"{groups} groups")
        label = f"{_times(kernel)} {'depthwise ' if depthwise else ''}conv"
        more = {"channels": channels, "details": details, "groups": 1 if depthwise else groups}
        return self._node(eqn, "conv", label, path, data, **more)

    def _pool(self, eqn: Any, kind: str, path: tuple[str, ...], data: list[int]) -> int:
        if kind == "LRN":
            return self._node(eqn, "lrn", "LRN", path, data)
        if kind.startswith("global"):
            return self._node(eqn, "pool", "global average pool", path, data)
        params = eqn.params
        label = f"{_times(params['window_dimensions'][1:3])} {kind.split()[0]} pool"
        return self._node(
            eqn, "pool", label, path, data, details=_stride(params["window_strides"][1:3])
        )

    def _one_concatenated(
        self, eqn: Any, sources: list[int | None], path: tuple[str, ...], data: list[int]
    ) -> int:
        """Parts of one node: adaptive pooling along height or width, or zeros for new channels."""
        out, [key] = eqn.outvars[0].aval, data
        several = sum(source is not None for source in sources) > 1
        if out.ndim >= 4 and several and eqn.params["dimension"] in (1, 2):
            node, shape = self.nodes[key], tuple(out.shape[1:])
            if node.label == "adaptive average pool":  # along the other axis
                self.nodes[key] = dataclasses.replace(node, shape=shape)
                return key
            return self._node(eqn, "pool", "adaptive average pool", path, data)
        if eqn.params["dimension"] == out.ndim - 1 and out.shape[-1] > self.nodes[key].shape[-1]:
            return self._zeros(eqn, path, data)
        return key

    def _sliced(self, eqn: Any, path: tuple[str, ...], data: list[int]) -> int:
        out, before = eqn.outvars[0].aval, eqn.invars[0].aval
        if self.nodes[data[0]].path == path and path in self.layers:
            return data[0]
        if out.ndim > 1 and out.shape[-1] < before.shape[-1]:
            return self._slice(eqn, eqn.outvars[0], path, data)
        strides = eqn.params.get("strides") or ()
        if out.ndim == 4 and max(strides, default=1) > 1:
            return self._node(eqn, "slice", "subsample", path, data, details=_stride(strides[1:3]))
        return data[0]

    def _zeros(self, eqn: Any, path: tuple[str, ...], data: list[int]) -> int:
        """Zeros for new channels, which a subsampling before it takes along."""
        [key], shape = data, tuple(eqn.outvars[0].aval.shape[1:])
        node = self.nodes[key]
        if node.label == "subsample" and node.path == path:
            details = (*node.details, "zeros")
            self.nodes[key] = dataclasses.replace(node, shape=shape, details=details)
            return key
        return self._node(eqn, "slice", "zero channels", path, data)

    def _arithmetic(self, eqn: Any, path: tuple[str, ...], data: list[int]) -> int:
        [key], node = data, self.nodes[data[0]]
        if node.path == path and path in self.layers and node.kind in ("conv", "dense", "pool"):
            return key  # a bias, or a scale and a bias per map
        if node.path == path and node.kind == "norm":
            return key
        if self._is_norm(path):
            return self._norm(eqn, path, data)
        factor = next((n for v in eqn.invars if (n := _number(v)) is not None), None)
        if eqn.primitive.name != "mul" or factor is None or node.kind in ("pool", "lrn", "input"):
            return key
        return self._node(eqn, "scale", f"× {factor:.3g}", path, data)

    def _reduced(self, eqn: Any, path: tuple[str, ...], data: list[int]) -> int:
        label = eqn.primitive.name.removeprefix("reduce_")
        if label == "sum" and eqn.invars[0] in self.squares:
            label = "sum of squares"
        channels = eqn.outvars[0].aval.shape[-1] if eqn.outvars[0].aval.ndim == 2 else None
        return self._node(eqn, "other", label, path, data, channels=channels)


def _is_product(eqn: Any, node: Node) -> bool:
    """Whether an equation multiplies an activation with its input, as swish does."""
    return eqn.primitive.name == "mul" and node.kind == "act" and node.label != "relu"


def _number(var: Any) -> float | None:
    """The value of a scalar literal."""
    value = var.val if isinstance(var, Literal) else None
    return float(value) if value is not None and getattr(value, "ndim", 0) == 0 else None


def _stride(strides: Sequence[int]) -> tuple[str, ...]:
    if all(stride == 1 for stride in strides):
        return ()
    return (f"/{strides[0] if strides[0] == strides[1] else _times(strides)}",)


def _times(numbers: Sequence[int]) -> str:
    return "×".join(map(str, numbers))
