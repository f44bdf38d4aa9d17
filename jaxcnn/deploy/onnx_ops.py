"""Translates a traced network, operation by operation, to an ONNX graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.extend.core import Literal

from jaxcnn.deploy.onnx_graph import FIRST, LAST, Graph, Shape, Tensor, axes_of, broadcast_shape

Value = Tensor | np.ndarray

# Operations that call a function, and the parameter that holds it.
_CALLS = {
    **dict.fromkeys(("pjit", "jit", "checkpoint", "remat2", "remat"), "jaxpr"),
    **dict.fromkeys(("custom_jvp_call", "custom_vjp_call", "closed_call"), "call_jaxpr"),
}
_INT64 = np.int64


def translate(graph: Graph, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Value]) -> Any:
    """Adds a jaxpr to a graph; values that do not depend on the images are computed here.

    Args:
      graph: to be added to.
      jaxpr: traced with `jaxcnn.ops.use("reference")`; its batch size is symbolic.
      consts: its constants.
      inputs: of the jaxpr: tensors of the graph, and constants.

    Returns:
      The outputs, tensors or constants.

    Raises:
      ValueError: there is no translation of an operation.
    """
    read = [v for eqn in jaxpr.eqns for v in eqn.invars] + list(jaxpr.outvars)
    readers = Counter(var for var in read if not isinstance(var, Literal))
    values: dict[Any, Value] = {}

    def bind(variables: Sequence[Any], given: Sequence[Any]) -> None:
        for var, value in zip(variables, given):
            if isinstance(value, Tensor):
                value.is_read_once &= readers[var] <= 1
            values[var] = value if isinstance(value, Tensor) else np.asarray(value)

    def look_up(var: Any) -> Value:
        return np.asarray(var.val) if isinstance(var, Literal) else values[var]

    bind(jaxpr.constvars, consts)
    bind(jaxpr.invars, inputs)
    for eqn in jaxpr.eqns:
        bind(eqn.outvars, _equation(graph, eqn, [look_up(var) for var in eqn.invars]))
    return [look_up(var) for var in jaxpr.outvars]


def _equation(graph: Graph, eqn: Any, inputs: Sequence[Value]) -> Sequence[Value]:
    name = eqn.primitive.name
    if name in _CALLS:
        called = eqn.params[_CALLS[name]]
        parts = (called.jaxpr, called.consts) if hasattr(called, "consts") else (called, ())
        return translate(graph, parts[0], parts[1], inputs)
    if not any(isinstance(value, Tensor) for value in inputs):
        return _constants(eqn, [np.asarray(value) for value in inputs])
    if name not in _TRANSLATIONS:
        raise ValueError(
            f"the network uses the operation {name!r}, which has no translation to ONNX; "
            "StableHLO has every operation"
        )
    found = _TRANSLATIONS[name](graph, eqn, *inputs)
    return found if isinstance(found, list) else [found]


def _constants(eqn: Any, inputs: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    """The outputs of an equation that depends on constants only."""
    shape = eqn.params.get("shape", ())
    if eqn.primitive.name == "broadcast_in_dim" and not _is_concrete(shape):
        return [inputs[0].reshape(_placed(inputs[0].shape, eqn))]
    if len(inputs) > 1 and all(not _is_concrete(var.aval.shape) for var in eqn.invars):
        inputs = np.broadcast_arrays(*inputs)
    bound = eqn.primitive.get_bind_params(eqn.params)
    functions, params = bound if isinstance(bound, tuple) else ((), bound)  # JAX < 0.10
    found = eqn.primitive.bind(*functions, *inputs, **params)
    return [np.asarray(one) for one in (found if eqn.primitive.multiple_results else [found])]


def _is_concrete(shape: Shape) -> bool:
    return all(isinstance(size, int) for size in shape)


def _placed(shape: Shape, eqn: Any) -> Shape:
    """The shape of an array with the axes that `broadcast_in_dim` adds, which have length 1."""
    placed = [1] * len(eqn.params["shape"])
    for axis, size in zip(eqn.params["broadcast_dimensions"], shape):
        placed[axis] = size
    return tuple(placed)


def _check(good: bool, eqn: Any) -> None:
    if not good:
        params = {k: v for k, v in eqn.params.items() if v is not None}
        raise ValueError(f"{eqn.primitive.name!r} with {params!r:.200} has no translation to ONNX")


# Arithmetic


def _elementwise(graph: Graph, kind: str, *values: Value) -> Tensor:
    """A node of which every operand broadcasts to the same shape."""
    tensors = [value for value in values if isinstance(value, Tensor)]
    layout = graph.layout(*tensors)
    name = graph.add(kind, [graph.operand(value, layout) for value in values])
    return Tensor(broadcast_shape(*(value.shape for value in values)), {layout: name})


def _node(kind: str) -> Callable[..., Tensor]:
    return lambda graph, eqn, *values: _elementwise(graph, kind, *values)


def _add(graph: Graph, eqn: Any, a: Any, b: Any) -> Tensor:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return _elementwise(graph, "Add", a, b)
    return a.affine(1, b) if isinstance(a, Tensor) else b.affine(1, a)


def _sub(graph: Graph, eqn: Any, a: Any, b: Any) -> Tensor:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return _elementwise(graph, "Sub", a, b)
    return a.affine(1, -np.asarray(b, np.float64)) if isinstance(a, Tensor) else b.affine(-1, a)


def _mul(graph: Graph, eqn: Any, a: Any, b: Any) -> Tensor:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return _elementwise(graph, "Mul", a, b)
    return a.affine(b, 0) if isinstance(a, Tensor) else b.affine(a, 0)


def _div(graph: Graph, eqn: Any, a: Any, b: Any) -> Tensor:
    if isinstance(b, Tensor):
        return _elementwise(graph, "Div", a, b)
    return a.affine(1 / np.asarray(b, np.float64), 0)


def _neg(graph: Graph, eqn: Any, x: Tensor) -> Tensor:
    return x.affine(-1, 0)


def _max(graph: Graph, eqn: Any, a: Any, b: Any) -> Tensor:
    for tensor, other in ((a, b), (b, a)):
        if isinstance(other, np.ndarray) and not np.any(other):
            return _elementwise(graph, "Relu", tensor)
    return _elementwise(graph, "Max", a, b)


def _square(graph: Graph, eqn: Any, x: Tensor) -> Tensor:
    return _elementwise(graph, "Mul", x, x)


def _integer_pow(graph: Graph, eqn: Any, x: Tensor) -> Tensor:
    power = eqn.params["y"]
    if power == 2:
        return _square(graph, eqn, x)
    return _elementwise(graph, "Pow", x, np.asarray(power, np.float32))


def _rsqrt(graph: Graph, eqn: Any, x: Tensor) -> Tensor:
    return _elementwise(graph, "Reciprocal", _elementwise(graph, "Sqrt", x))


def _select(graph: Graph, eqn: Any, which: Value, *cases: Value) -> Tensor:
    _check(len(cases) == 2 and eqn.invars[0].aval.dtype == bool, eqn)
    return _elementwise(graph, "Where", which, cases[1], cases[0])


def _clamp(graph: Graph, eqn: Any, low: Value, x: Value, high: Value) -> Tensor:
    return _elementwise(graph, "Min", _elementwise(graph, "Max", x, low), high)


def _cast(graph: Graph, eqn: Any, x: Tensor) -> Tensor:
    new, old = np.dtype(eqn.params["new_dtype"]), eqn.invars[0].aval.dtype
    if new == old:
        return x
    _check(new == np.float32, eqn)
    layout = graph.layout(x)
    return Tensor(x.shape, {layout: graph.add("Cast", [graph.name(x, layout)], to=1)})  # float32


def _same(graph: Graph, eqn: Any, x: Tensor) -> Tensor:
    return x


# Convolutions, products and pools

_NHWC, _HWIO = (0, 3, 1, 2), (3, 2, 0, 1)


def _conv(graph: Graph, eqn: Any, x: Tensor, kernel: np.ndarray) -> Tensor:
    given, numbers = eqn.params, eqn.params["dimension_numbers"]
    order = (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec)
    plain = set(given["lhs_dilation"]) == {1} and given["batch_group_count"] == 1
    padding = np.array(given["padding"])
    _check(
        order == (_NHWC, _HWIO, _NHWC) and plain and isinstance(kernel, np.ndarray)
        and padding.min() >= 0, eqn,
    )  # fmt: skip
    attributes: dict[str, Any] = {
        "strides": given["window_strides"],
        "pads": padding.T.ravel().tolist(),
        "dilations": given["rhs_dilation"],
        "group": given["feature_group_count"],
        "kernel_shape": kernel.shape[:2],
    }
    images = graph.name(x, FIRST)

    def linear(scale: Any, shift: Any) -> str:
        weights = (kernel * scale).transpose(_HWIO)
        inputs = [images, graph.constant(weights), *_bias(graph, shift, len(weights))]
        return graph.add("Conv", inputs, **attributes)

    return Tensor(eqn.outvars[0].aval.shape, linear=linear, order=FIRST)


def _bias(graph: Graph, shift: Any, channels: int) -> list[str]:
    """The name of a bias f32[channels], or nothing if it is zero."""
    if not np.any(shift):
        return []
    return [graph.constant(np.broadcast_to(np.reshape(shift, -1), channels))]


def _dot(graph: Graph, eqn: Any, x: Tensor, matrix: np.ndarray) -> Tensor:
    (contracted, batch) = eqn.params["dimension_numbers"]
    last = len(eqn.invars[0].aval.shape) - 1
    is_product = tuple(map(tuple, contracted)) == ((last,), (0,)) and not any(map(len, batch))
    _check(is_product and isinstance(matrix, np.ndarray) and matrix.ndim == 2, eqn)
    rows = graph.name(x, LAST)

    def linear(scale: Any, shift: Any) -> str:
        inputs = [rows, graph.constant(matrix * np.reshape(scale, -1))]
        bias = _bias(graph, shift, matrix.shape[1])
        if last == 1:
            return graph.add("Gemm", [*inputs, *bias])
        product = graph.add("MatMul", inputs)
        return graph.add("Add", [product, *bias]) if bias else product

    return Tensor(eqn.outvars[0].aval.shape, linear=linear)


def _windows(eqn: Any, axes: slice) -> dict[str, Any]:
    """The attributes of a pool over some axes; along the others its window has length 1."""
    given = eqn.params
    size, strides, padding = (
        np.array(given[key]) for key in ("window_dimensions", "window_strides", "padding")
    )
    outside = [i for i in range(len(size)) if i not in range(4)[axes]]
    plain = set(given["base_dilation"]) == set(given["window_dilation"]) == {1}
    _check(plain and len(size) == 4 and (size[outside] == 1).all() and padding.min() >= 0, eqn)
    return {
        "kernel_shape": size[axes].tolist(),
        "strides": strides[axes].tolist(),
        "pads": padding[axes].T.ravel().tolist(),
    }


def _max_pool(graph: Graph, eqn: Any, x: Tensor) -> Tensor:
    name = graph.add("MaxPool", [graph.name(x, FIRST)], **_windows(eqn, slice(1, 3)))
    return Tensor(eqn.outvars[0].aval.shape, {FIRST: name})


def _window_sum(graph: Graph, eqn: Any, x: Tensor) -> Tensor:
    """Sums over windows of pixels or of channels: averages times the size of the window."""
    shape = eqn.outvars[0].aval.shape
    images, size = graph.name(x, FIRST), eqn.params["window_dimensions"]
    if size[3] == 1:
        name = graph.add("AveragePool", [images], count_include_pad=1, **_windows(eqn, slice(1, 3)))
        return Tensor(shape, {FIRST: name}).affine(size[1] * size[2], 0)
    windows = _windows(eqn, slice(3, 4))
    _check(windows["strides"] == [1] and shape == x.shape, eqn)
    before, after = windows["pads"]
    _, height, width, channels = shape
    rows = _reshaped(graph, images, (-1, 1, channels, height * width))
    name = graph.add(
        "AveragePool", [rows], kernel_shape=[size[3], 1], pads=[before, 0, after, 0],
        count_include_pad=1,
    )  # fmt: skip
    back = _reshaped(graph, name, (-1, channels, height, width))
    return Tensor(shape, {FIRST: back}).affine(size[3], 0)


def _reduce(kind: str) -> Callable[..., Tensor]:
    def translated(graph: Graph, eqn: Any, x: Tensor) -> Tensor:
        _check(x.shape == eqn.invars[0].aval.shape, eqn)  # no axis is broadcast
        axes, layout = list(eqn.params["axes"]), graph.layout(x)
        if layout == FIRST and 3 not in axes and axes != [1, 2]:
            layout = LAST  # channels would stand before the remaining axis
        where = graph.constant(axes_of(layout, axes), _INT64)
        name = graph.add(kind, [graph.name(x, layout), where], keepdims=0)
        return Tensor(eqn.outvars[0].aval.shape, {LAST: name})

    return translated


# Shapes


def _reshaped(graph: Graph, name: str, shape: Shape) -> str:
    sizes = [size if isinstance(size, int) else -1 for size in shape]
    return graph.add("Reshape", [name, graph.constant(sizes, _INT64)])


def _reshape(graph: Graph, eqn: Any, x: Tensor) -> Tensor:
    shape = eqn.outvars[0].aval.shape
    _check(x.shape == eqn.invars[0].aval.shape, eqn)
    return Tensor(shape, {LAST: _reshaped(graph, graph.name(x, LAST), shape)})


def _broadcast(graph: Graph, eqn: Any, x: Tensor) -> Tensor:
    """Adds axes of length 1; ONNX broadcasts them where the tensor is used."""
    shape = _placed(x.shape, eqn)
    if shape == x.shape:
        return x
    return Tensor(shape, {LAST: _reshaped(graph, graph.name(x, LAST), shape)})


def _transpose(graph: Graph, eqn: Any, x: Tensor) -> Tensor:
    axes = eqn.params["permutation"]
    name = graph.add("Transpose", [graph.name(x, LAST)], perm=axes)
    return Tensor(tuple(x.shape[axis] for axis in axes), {LAST: name})


def _concatenate(graph: Graph, eqn: Any, *parts: Any) -> Tensor:
    shape, axis = eqn.outvars[0].aval.shape, eqn.params["dimension"]
    shapes = [var.aval.shape for var in eqn.invars]
    kept = [i for i, one in enumerate(shapes) if one[axis] != 0]
    parts = tuple(parts[i] for i in kept)  # without those of no channels
    same = (isinstance(x, Tensor) and x.shape == shapes[i] for x, i in zip(parts, kept))
    _check(all(same), eqn)
    layout = graph.layout(*parts)
    (axis,) = axes_of(layout, [axis])
    name = graph.add("Concat", [graph.name(part, layout) for part in parts], axis=axis)
    return Tensor(shape, {layout: name})


def _split(graph: Graph, eqn: Any, x: Tensor) -> list[Tensor]:
    layout = graph.layout(x)
    (axis,) = axes_of(layout, [eqn.params["axis"]])
    inputs = [graph.name(x, layout), graph.constant(eqn.params["sizes"], _INT64)]
    names = graph.add("Split", inputs, len(eqn.outvars), axis=axis)
    names = [names] if len(eqn.outvars) == 1 else names
    return [Tensor(var.aval.shape, {layout: name}) for var, name in zip(eqn.outvars, names)]


def _slice(graph: Graph, eqn: Any, x: Tensor) -> Tensor:
    shape, steps = eqn.outvars[0].aval.shape, eqn.params["strides"] or (1,) * len(x.shape)
    starts, ends = eqn.params["start_indices"], eqn.params["limit_indices"]
    whole = [(0, size, 1) for size in x.shape]
    cut = [i for i, one in enumerate(zip(starts, ends, steps)) if one != whole[i]]
    _check(x.shape == eqn.invars[0].aval.shape and (0 not in cut or _is_concrete(shape)), eqn)
    layout = graph.layout(x)
    where = [
        [starts[i] for i in cut],
        [ends[i] for i in cut],
        axes_of(layout, cut),
        [steps[i] for i in cut],
    ]
    inputs = [graph.constant(numbers, _INT64) for numbers in where]
    return Tensor(shape, {layout: graph.add("Slice", [graph.name(x, layout), *inputs])})


def _pad(graph: Graph, eqn: Any, x: Tensor, value: np.ndarray) -> Tensor:
    amounts = np.array(eqn.params["padding_config"])
    _check(isinstance(value, np.ndarray) and amounts.min() >= 0 and not amounts[:, 2].any(), eqn)
    layout = graph.layout(x)
    place = np.argsort(axes_of(layout, range(len(x.shape))))
    pads = graph.constant(amounts[place, :2].T.ravel(), _INT64)
    name = graph.add("Pad", [graph.name(x, layout), pads, graph.constant(value)])
    return Tensor(eqn.outvars[0].aval.shape, {layout: name})


def _gather(graph: Graph, eqn: Any, x: Tensor, indices: np.ndarray) -> Tensor:
    """Selects one window, as `x[..., 3:5]` and `x[:, 0]` do, or entries along one axis."""
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    axes, shape = list(numbers.start_index_map), eqn.outvars[0].aval.shape
    _check(isinstance(indices, np.ndarray) and x.shape == eqn.invars[0].aval.shape, eqn)
    name = graph.name(x, LAST)
    if indices.ndim == 1:
        _check(numbers.offset_dims == tuple(range(len(shape))), eqn)
        ends = [start + sizes[axis] for start, axis in zip(indices.tolist(), axes)]
        where = [graph.constant(given, _INT64) for given in (indices, ends, axes)]
        return Tensor(shape, {LAST: _reshaped(graph, graph.add("Slice", [name, *where]), shape)})
    others = tuple(i for i in range(len(sizes)) if i not in axes)
    simple = len(axes) == 1 and numbers.collapsed_slice_dims == tuple(axes)
    _check(simple and numbers.offset_dims == others and sizes[axes[0]] == 1, eqn)
    _check(indices.ndim == 2 and all(sizes[i] == x.shape[i] for i in others), eqn)
    name = graph.add("Gather", [name, graph.constant(indices[:, 0], _INT64)], axis=axes[0])
    return Tensor(shape, {LAST: name})


_TRANSLATIONS: Mapping[str, Callable[..., Any]] = {
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "div": _div,
    "neg": _neg,
    "max": _max,
    "square": _square,
    "integer_pow": _integer_pow,
    "rsqrt": _rsqrt,
    "select_n": _select,
    "clamp": _clamp,
    "convert_element_type": _cast,
    **{
        name: _node(kind)
        for name, kind in {
            "min": "Min", "pow": "Pow", "exp": "Exp", "log": "Log", "tanh": "Tanh",
            "logistic": "Sigmoid", "sqrt": "Sqrt", "abs": "Abs", "sign": "Sign", "erf": "Erf",
            "floor": "Floor", "eq": "Equal", "gt": "Greater", "lt": "Less",
            "ge": "GreaterOrEqual", "le": "LessOrEqual", "and": "And", "or": "Or", "not": "Not",
        }.items()
    },
    **dict.fromkeys(("name", "copy", "copy_p", "optimization_barrier"), _same),
    "conv_general_dilated": _conv,
    "dot_general": _dot,
    "reduce_window_max": _max_pool,
    "reduce_window_sum": _window_sum,
    "reduce_sum": _reduce("ReduceSum"),
    "reduce_max": _reduce("ReduceMax"),
    "reduce_min": _reduce("ReduceMin"),
    "reshape": _reshape,
    "squeeze": _reshape,
    "expand_dims": _reshape,
    "broadcast_in_dim": _broadcast,
    "transpose": _transpose,
    "concatenate": _concatenate,
    "split": _split,
    "slice": _slice,
    "pad": _pad,
    "gather": _gather,
}  # fmt: skip
