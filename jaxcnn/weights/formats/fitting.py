"""Fits the layers of a file to those of a network, one by one."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxcnn.models import registry
from jaxcnn.weights import layout
from jaxcnn.weights.formats import keras_names
from jaxcnn.weights.formats.graph import LAYERS, Graph, Node, ordered
from jaxcnn.weights.formats.keras import Layers
from jaxcnn.weights.formats.traced import trace
from jaxcnn.weights.mismatch import of_that_size

Arrays = dict[str, np.ndarray]

_WEIGHTED = (*LAYERS, "norm")
# Fields that change what a network computes but not its weights, with their values.
_ALTERNATIVES: dict[str, tuple[Any, ...]] = {
    "stride_on": ("1x1", "3x3"),
    "ceil_pool": (False, True),
    "pool_first": (False, True),
}
_SMALL = 6  # average pooling over larger windows is over all pixels


class OtherWindows(ValueError):
    """The weights fit, but a stride, a padding or a pooling differs."""


class Fitted(NamedTuple):
    """Weights of a file in the form of a network.

    Attributes:
      arrays: {key of jaxcnn's own files: array}.
      options: fields of the network's module that the file has determined.
      first: key of the kernel that reads the images.
      before: the normalization of images by which the file begins, if it does.
    """

    arrays: Arrays
    options: dict[str, Any]
    first: str
    before: Node | None = None


def image_shape(
    found: Graph | Layers, name: str, options: Mapping[str, Any]
) -> tuple[int, int, int]:
    """Returns (height, width, channels) of the images of a file's network.

    Args:
      found: in the file.
      name: id of the network.
      options: fields of its module.
    """
    height, width, channels = layout.image_shape(name, None, options)
    size = found.size if isinstance(found, Graph) else None
    return (size or height, size or width, channels)


def fit(
    found: Graph | Layers,
    name: str,
    image: tuple[int, int, int],
    options: Mapping[str, Any],
    num_classes: int | None = None,
) -> Fitted:
    """Fits the weights of a file to a network.

    Options of the network that change no weights, such as the convolution that has the stride, are
    set to what the file has, unless they are given.

    Args:
      found: in the file.
      name: id of the network.
      image: (height, width, channels) of its images.
      options: fields of its module.
      num_classes: 0 to leave out the classifier, whatever the file has in its place.

    Raises:
      ValueError: the file is of another network. The message names the first layer that differs.
    """
    fields = _fields(name, options)
    if isinstance(found, Layers):
        return _fit_by_names(found, name, image, dict(options), num_classes, fields)
    implied = _implied(found, fields, options)
    failure: OtherWindows | None = None
    for extra in _alternatives(fields, options):
        try:
            return _fit(found, name, image, options, {**implied, **extra}, num_classes, fields)
        except OtherWindows as error:
            failure = failure or error
    assert failure is not None
    raise failure


def _fields(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    model = registry.create_model(name, **options)
    hidden = ("parent", "name")
    return {
        f.name: getattr(model, f.name) for f in dataclasses.fields(model) if f.name not in hidden
    }


def _alternatives(
    fields: Mapping[str, Any], options: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Sets of options to try, the network's own first."""
    free = [n for n in _ALTERNATIVES if n in fields and n not in options]
    choices = [sorted(_ALTERNATIVES[n], key=lambda v, n=n: v != fields[n]) for n in free]
    for values in sorted(
        itertools.product(*choices), key=lambda v: sum(a != fields[n] for n, a in zip(free, v))
    ):
        yield {n: value for n, value in zip(free, values) if value != fields[n]}


def _implied(graph: Graph, fields: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that follow from single layers of the file, where they differ from the network's."""
    nodes = ordered(graph.outputs)
    found: dict[str, Any] = {}
    norms = [node for node in nodes if node.kind == "norm" and "affine" not in node.facts]
    if norms and "bn_epsilon" in fields:
        found["bn_epsilon"] = collections.Counter(n.epsilon for n in norms).most_common(1)[0][0]
        found["bn_epsilon"] = float(f"{found['bn_epsilon']:.4g}")  # it may have been float32
    if norms and "gamma" in fields:
        found["gamma"] = any("scale" in node.arrays for node in norms)
    padded = [n for n in nodes if n.kind == "avg_pool" and n.window is not None and _pads(n)]
    if padded and "count_include_pad" in fields:
        found["count_include_pad"] = any(node.facts.get("count_include_pad") for node in padded)
    responses = [node for node in nodes if node.kind == "lrn"]
    if responses and fields.get("lrn"):
        found["lrn"] = "caffe" if responses[0].facts.get("k", 1.0) == 1.0 else "cuda_convnet"
    if "fc_width" in fields:
        dense = [node for node in _head(graph.outputs[0]) if node.kind == "dense"]
        found["fc_width"] = dense[2].channels if len(dense) == 3 else 0
        # VGG's fully connected layers can be made for other images, AlexNet's and ZFNet's cannot.
        if graph.size and (graph.size < fields["min_size"] or "convs" in fields):
            found["min_size"] = graph.size
    return {n: v for n, v in found.items() if n not in options and v != fields[n]}


def _pads(node: Node) -> bool:
    assert node.window is not None
    return node.window.padding is None or any(map(any, node.window.padding))


def _head(node: Node) -> list[Node]:
    """The dense layers and normalizations that end a network, the last one first."""
    found = []
    while node.kind in ("dense", "norm") and any(n.kind == "dense" for n in _chain(node)):
        found.append(node)
        node = node.inputs[0]
    return found


def _chain(node: Node) -> Iterator[Node]:
    """The node and those below it, as long as they are dense layers or normalizations."""
    while node.kind in ("dense", "norm"):
        yield node
        node = node.inputs[0]


def _fit(
    graph: Graph,
    name: str,
    image: tuple[int, int, int],
    options: Mapping[str, Any],
    taken: Mapping[str, Any],
    num_classes: int | None,
    fields: Mapping[str, Any],
) -> Fitted:
    main, heads = graph.outputs[0], graph.outputs[:0:-1]
    classes = main.channels if num_classes is None and main.kind in LAYERS else 0
    taken = dict(taken)
    if "aux_heads" in fields and "aux_heads" not in options:
        taken["aux_heads"] = bool(heads) and bool(classes)
    taken = {n: value for n, value in taken.items() if value != fields[n]}
    ours = trace(name, image, **{**options, **taken, "num_classes": classes})
    ends = [main, *heads] if len(ours) == len(heads) + 1 else [main]
    ends[0] = _without_head(name, main, ours[0], classes)
    own, given = ordered(ours[: len(ends)]), ordered(ends)
    before = given[0] if _reads_images(given[0]) and not _reads_images(own[0]) else None
    pairs = _pair(name, own, given[1:] if before else given)
    _compare_windows(name, pairs, own, given)
    epsilon = {**fields, **taken}.get("bn_epsilon", 0.0)
    return Fitted(_arrays(name, pairs, epsilon), taken, f"params/{own[0].name}/kernel", before)


def _fit_by_names(
    found: Layers,
    name: str,
    image: tuple[int, int, int],
    options: Mapping[str, Any],
    num_classes: int | None,
    fields: Mapping[str, Any],
) -> Fitted:
    of_keras = (
        keras_names.options(registry.model_info(name).family) if found.format == "Keras" else {}
    )
    taken = {n: v for n, v in of_keras.items() if n in fields}
    dense = [node for node in found.layers if node.kind == "dense"]
    classes = dense[-1].channels if num_classes is None and dense else 0
    if "fc_width" in fields:
        taken["fc_width"] = dense[0].channels if len(dense) == 3 else 0
    norms = [node for node in found.layers if node.kind == "norm"]
    if "gamma" in fields and norms:
        taken["gamma"] = any("scale" in node.arrays for node in norms)
    if "aux_heads" in fields:
        taken["aux_heads"] = False
    taken = {n: v for n, v in taken.items() if v != fields[n] and n not in options}
    own = ordered(trace(name, image, **{**options, **taken, "num_classes": classes})[:1])
    own = [node for node in own if node.kind in _WEIGHTED]
    if not found.named and any(n.inputs[0].kind in ("concat", "add", "mul") for n in own):
        raise ValueError(
            "these weights do not name their layers, which are in an order that only Keras knows: "
            "save the model itself, as .keras"
        )
    layers = [n for n in found.layers if classes or n.kind != "dense" or "fc_width" in fields]
    pairs = keras_names.assign(own, layers)
    for position, (node, given) in enumerate(pairs):
        if given is None or node.kind == "unknown" or not _same(node, given):
            mine = None if node.kind == "unknown" else node
            raise ValueError(_difference(name, position, mine, given, layers))
        given.epsilon = of_keras.get("bn_epsilon", given.epsilon)
    arrays = _arrays(name, pairs, {**fields, **taken}.get("bn_epsilon", 0.0))
    return Fitted(arrays, taken, f"params/{own[0].name}/kernel")


def _without_head(name: str, main: Node, own: Node, classes: int) -> Node:
    """The file's output without the last layers of a head that the network does not have."""
    head, wanted = _head(main), sum(n.kind == "dense" for n in _head(own))
    dense = [node for node in head if node.kind == "dense"]
    if len(dense) <= wanted:
        return main
    if classes:
        layers = ", ".join(node.described() for node in reversed(dense))
        raise ValueError(
            f"these weights do not fit {name}: the file ends in {len(dense)} dense layers "
            f"({layers}), where {name} has {wanted}; num_classes=0 leaves them out"
        )
    return dense[len(dense) - wanted - 1].inputs[0]


def _pair(name: str, own: Sequence[Node], given: Sequence[Node]) -> list[tuple[Node, Node | None]]:
    """Pairs of layers; a normalization that the file has folded into a layer has none."""
    mine = [node for node in own if node.kind in _WEIGHTED]
    theirs = [node for node in given if node.kind in _WEIGHTED]
    pairs: list[tuple[Node, Node | None]] = []
    rest = collections.deque(theirs)
    for node in mine:
        if rest and _same(node, rest[0]):
            pairs.append((node, rest.popleft()))
        elif node.kind == "norm" and node.inputs[0].kind in LAYERS:
            pairs.append((node, None))
        else:
            raise ValueError(_difference(name, len(pairs), node, rest[0] if rest else None, theirs))
    if rest:
        raise ValueError(_difference(name, len(pairs), None, rest[0], theirs))
    return pairs


def _reads_images(node: Node) -> bool:
    return node.kind == "norm" and node.inputs[0].kind == "input"


def _same(own: Node, given: Node) -> bool:
    if "norm" in (own.kind, given.kind):
        return own.kind == given.kind and own.inputs[0].channels in (0, given.channels)
    if len(own.shape) == len(given.shape):
        return own.shape == given.shape
    return own.shape[-1] == given.shape[-1] and math.prod(own.shape) == math.prod(given.shape)


def _difference(
    name: str, position: int, own: Node | None, given: Node | None, theirs: Sequence[Node]
) -> str:
    here = "nothing" if own is None else own.described()
    there = "nothing" if given is None else given.described()
    count = sum(a.size for n in theirs for k, a in n.arrays.items() if k not in ("mean", "var"))
    same = [other for other in of_that_size(count) if other != name]
    hint = f"; they have as many parameters as {', '.join(same)}" if same else ""
    return (
        f"these weights do not fit {name}: layer {position + 1} of the network is {here}, and of "
        f"the file {there}{hint}"
    )


# --- windows ------------------------------------------------------------------------------------


def _compare_windows(
    name: str,
    pairs: Sequence[tuple[Node, Node | None]],
    own: Sequence[Node],
    given: Sequence[Node],
) -> None:
    """Raises OtherWindows where a convolution or pooling looks at other pixels."""
    kinds = ("max_pool", "avg_pool", "lrn")
    mine = [node for node in own if node.kind in kinds]
    theirs = [node for node in given if node.kind in kinds and not _is_global(node)]
    for node, other in pairs:
        if other is not None and other.window is not None and node.window is not None:
            _compare(name, node, other)
    for node, other in zip(mine, theirs):
        if node.kind != other.kind:
            raise OtherWindows(_other(name, node, other))
        if node.kind != "lrn":
            _compare(name, node, other)
    if len(mine) != len(theirs):
        raise OtherWindows(
            f"these weights fit {name}, but it has {len(mine)} layers of pooling and response "
            f"normalization, and the file {len(theirs)}"
        )


def _is_global(node: Node) -> bool:
    if node.window is None:
        return False
    kernel = max(node.window.kernel)
    return kernel == 1 or (node.kind == "avg_pool" and kernel >= _SMALL)


def _compare(name: str, own: Node, given: Node) -> None:
    assert own.window is not None and given.window is not None
    if own.size is None:
        return
    if (
        own.window.kernel != given.window.kernel
        or own.window.stride != given.window.stride
        or own.window.placed(own.size) != given.window.placed(own.size)
    ):
        raise OtherWindows(_other(name, own, given))


def _other(name: str, own: Node, given: Node) -> str:
    return (
        f"these weights fit {name}, but {_seen(own)} there is {_seen(given)} in the file: another "
        "network"
    )


def _seen(node: Node) -> str:
    if node.window is None:
        return node.described()
    window = node.window
    sides = "SAME" if window.padding is None else window.padding
    ceil = ", rounded up" if window.ceil else ""
    return f"{node.described()} with stride {window.stride}, padding {sides}{ceil}"


# --- values -------------------------------------------------------------------------------------


def _arrays(name: str, pairs: Sequence[tuple[Node, Node | None]], epsilon: float) -> Arrays:
    """The values under the keys of jaxcnn's own files."""
    normalized = {node.inputs[0] for node, _ in pairs if node.kind == "norm"}
    partners = dict(pairs)
    found: Arrays = {}
    for node, given in pairs:
        if node.kind == "norm":
            layer = partners.get(node.inputs[0])
            bias = None if layer is None or _has_bias(node.inputs[0]) else layer.arrays.get("bias")
            found |= _norm(node, given, bias, epsilon)
            continue
        assert given is not None
        found[f"params/{node.name}/kernel"] = _kernel(given).reshape(node.shape)
        if _has_bias(node):
            bias = given.arrays.get("bias", np.zeros(node.channels, np.float32))
            found[f"params/{node.name}/bias"] = bias
        elif "bias" in given.arrays and node not in normalized:
            raise ValueError(
                f"these weights do not fit {name}: {given.name} of the file has a bias, and "
                f"{node.name} has none"
            )
    return found


def _has_bias(node: Node) -> bool:
    return bool(node.facts.get("bias"))


def _norm(node: Node, given: Node | None, bias: np.ndarray | None, epsilon: float) -> Arrays:
    """A normalization; the bias of the convolution before it, if it has one there, is folded in."""
    channels = node.inputs[0].channels if given is None else given.channels
    zeros, ones = np.zeros(channels, np.float32), np.ones(channels, np.float32)
    if given is None:  # folded into the convolution: nothing but the bias remains
        mean, var, scale, offset = zeros, ones - np.float32(epsilon), ones, zeros
        offset = zeros if bias is None else bias
    else:
        arrays = given.arrays
        more = np.float64(given.epsilon) - np.float64(np.float32(epsilon))
        mean, var = arrays["mean"], np.asarray(arrays["var"], np.float64) + more
        mean = mean if bias is None else mean - bias
        scale, offset = arrays.get("scale", ones), arrays.get("bias", zeros)
    found = {
        f"batch_stats/{node.name}/mean": mean,
        f"batch_stats/{node.name}/var": np.asarray(var, np.float32),
    }
    if node.facts.get("bias"):
        found[f"params/{node.name}/bias"] = offset
    if node.facts.get("scale"):
        found[f"params/{node.name}/scale"] = scale
    return found


def _kernel(given: Node) -> np.ndarray:
    """The kernel, with the inputs of a dense layer in (height, width, channel) order."""
    kernel = given.arrays["kernel"]
    if kernel.ndim != 2 or given.flattened == "HWC":
        return kernel
    channels = given.inputs[0].channels
    if len(kernel) <= channels:
        return kernel
    side = math.isqrt(len(kernel) // channels)
    if side * side * channels != len(kernel):
        raise ValueError(f"{given.described()} reads {channels} channels of no square map")
    maps = kernel.reshape(channels, side, side, -1)
    return maps.transpose(1, 2, 0, 3).reshape(kernel.shape)
