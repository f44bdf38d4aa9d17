"""The graph of layers of a network of jaxcnn, found by tracing it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.errors import ScopeParamNotFoundError
from jax.core import ShapedArray
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Primitive

from jaxcnn import ops
from jaxcnn.models import registry
from jaxcnn.models.heads import WindowDense
from jaxcnn.weights.formats.graph import Node, Window, joined

# Stands for a layer in the traced program.
_layer = Primitive("jaxcnn_layer")
_layer.def_abstract_eval(lambda x, *, shape, **_: ShapedArray(shape, x.dtype))

_calls = itertools.count()

_POOLS = {"reduce_window_max": "max_pool", "reduce_window_sum": "avg_pool"}
_SUMS = {"add": "add", "add_any": "add", "sub": "add", "mul": "mul"}


def trace(name: str, image: tuple[int, int, int], **options: Any) -> list[Node]:
    """Traces a network in evaluation mode.

    Args:
      name: id of the network.
      image: (height, width, channels) of an image.
      **options: fields of its module.

    Returns:
      The node that computes the logits (or the features), and those of the auxiliary heads. The
      names of layers are the paths of their modules, such as "stage1_block1/conv1", and
      `facts["call"]` grows in the order of the calls.
    """
    model = registry.create_model(name, **options)
    images = jax.ShapeDtypeStruct((1, *image), jnp.float32)

    def run(x: jax.Array) -> tuple[Any, Any]:
        with nn.intercept_methods(_mark):  # no layer reads its parameters: there are none
            logits, state = model.apply({}, x, train=False, mutable=["endpoints"])
        heads = state.get("endpoints", {})
        return logits, [heads[k] for k in sorted(heads) if k.startswith("aux")]

    try:
        with ops.use("reference"):
            jaxpr = jax.make_jaxpr(run)(images).jaxpr
    except ScopeParamNotFoundError as error:
        raise ValueError(f"{name} has layers that only files of jaxcnn can describe") from error
    found = _walk(jaxpr, [Node("input", channels=image[2])])
    return list(dict.fromkeys(node for node in found if node is not None))


def _mark(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    """Replaces layers by `_layer`, which remains visible in the traced program."""
    module = context.module
    if context.method_name != "__call__":
        return call(*args, **kwargs)
    path = "/".join(module.path)
    if isinstance(module, ops.BatchNorm):
        x, *rest = args
        y = _layer.bind(
            x,
            shape=x.shape,
            path=path,
            kind="norm",
            kernel=(),
            window=None,
            groups=1,
            bias=module.use_bias,
            scale=module.use_scale,
        )
        return y + rest[0] if rest and rest[0] is not None else y
    window, groups, bias, x = None, 1, True, args[0]
    kernel: tuple[int, ...]
    shape: tuple[int, ...]
    if isinstance(module, nn.Conv):
        groups, bias = module.feature_group_count, module.use_bias
        window = Window(*_pairs(module))
        kernel = (*window.kernel, x.shape[-1] // groups, module.features)
        size = tuple(out for out, _ in window.placed(x.shape[1:3]))
        shape = (x.shape[0], *size, module.features)
    elif isinstance(module, WindowDense):
        kernel = (module.window**2 * x.shape[-1], module.features)
        size = tuple(n - module.window + 1 for n in x.shape[1:3])
        shape = (x.shape[0], *size, module.features)
    elif isinstance(module, nn.Dense):
        kernel, bias = (x.shape[-1], module.features), module.use_bias
        shape = (*x.shape[:-1], module.features)
    else:
        return call(*args, **kwargs)
    return _layer.bind(
        x,
        shape=shape,
        path=path,
        kind="dense" if window is None else "conv",
        kernel=kernel,
        window=window,
        groups=groups,
        bias=bias,
        scale=False,
    )


def _pairs(conv: nn.Conv) -> tuple[Any, Any, Any]:
    """(kernel size, stride, padding) of a convolution that `jaxcnn.layers.conv` has made."""
    strides, padding = conv.strides, conv.padding
    assert isinstance(strides, Sequence) and not isinstance(padding, (str, int))
    return tuple(conv.kernel_size), tuple(strides), tuple(map(tuple, padding))  # type: ignore[arg-type]


def _walk(jaxpr: Jaxpr, inputs: Sequence[Node | None]) -> list[Node | None]:
    """The nodes that compute the outputs of a program; None for what no image goes into."""
    nodes: dict[Any, Node | None] = dict(zip(jaxpr.invars, inputs))

    def node_of(atom: Any) -> Node | None:
        return None if isinstance(atom, Literal) else nodes.get(atom)

    for equation in jaxpr.eqns:
        given = [node_of(atom) for atom in equation.invars]
        if not any(node is not None for node in given):
            continue
        inner = _inner(equation.params, len(given))
        if inner is not None:
            nodes.update(zip(equation.outvars, _walk(inner, given)))
            continue
        node = _node(equation, [node for node in given if node is not None])
        nodes.update(dict.fromkeys(equation.outvars, node))
    return [node_of(atom) for atom in jaxpr.outvars]


def _inner(params: Mapping[str, Any], count: int) -> Jaxpr | None:
    """The program that an equation calls with its own arguments, if it calls one."""
    for value in params.values():
        jaxpr = value.jaxpr if isinstance(value, ClosedJaxpr) else value
        if isinstance(jaxpr, Jaxpr) and len(jaxpr.invars) == count:
            return jaxpr
    return None


def _node(equation: Any, given: list[Node]) -> Node:
    kind, params = equation.primitive.name, equation.params
    shape = equation.invars[0].aval.shape
    if equation.primitive is _layer:
        return Node(
            params["kind"],
            tuple(given),
            params["path"],
            shape=params["kernel"],
            groups=params["groups"],
            channels=shape[-1],
            window=params["window"],
            size=shape[1:3] if len(shape) == 4 else None,
            facts={"bias": params["bias"], "scale": params["scale"], "call": next(_calls)},
        )
    if kind == "pad" and len(shape) == 4 and any(map(any, params["padding_config"][1:3])):
        zeros = tuple((low, high) for low, high, _ in params["padding_config"][1:3])
        return Node("pad", (given[0],), "zeros", window=Window((1, 1), padding=zeros))  # type: ignore[arg-type]
    if kind in _POOLS and len(shape) == 4:
        window = params["window_dimensions"]
        if window[3] > 1:
            return Node("lrn", (given[0],), "response normalization")
        if max(window) > 1:
            pads = tuple(params["padding"][1:3])
            placed = Window(tuple(window[1:3]), tuple(params["window_strides"][1:3]), pads)
            kind, size, x = _POOLS[kind], shape[1:3], given[0]
            if x.kind == "pad" and x.window is not None and x.window.padding is not None:
                zeros = x.window.padding
                size = tuple(n - sum(pair) for n, pair in zip(size, zeros))
                placed, x = placed.padded(*zeros), x.inputs[0]
            return Node(kind, (x,), kind, window=placed, size=size)
    if kind == "concatenate" and params["dimension"] == len(shape) - 1:
        return joined("concat", given)
    return joined(_SUMS.get(kind, "add"), given)
