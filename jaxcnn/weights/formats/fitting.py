"""Matches the layers of a file to those of a network, one by one."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from jaxcnn.models import registry
from jaxcnn.weights import layout
from jaxcnn.weights.formats import keras_names, pairing, slim, values, windows
from jaxcnn.weights.formats.graph import LAYERS, Graph, Layers, Node, ordered, reads_images
from jaxcnn.weights.formats.traced import trace

# Fields that change what a network computes but not its weights, with their values.
_ALTERNATIVES: dict[str, tuple[Any, ...]] = {
    "stride_on": ("1x1", "3x3"),
    "ceil_pool": (False, True),
    "pool_first": (False, True),
    "keras": (False, True),
}


class Fitted(NamedTuple):
    """Weights of a file in the form of a network.

    Attributes:
      arrays: {key of jaxcnn's own files: array}.
      options: fields of the network's module that the file has determined.
      first: key of the kernel that reads the images.
      before: the normalization of images with which the file begins; None if it has none.
    """

    arrays: values.Arrays
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
    return (found.size or height, found.size or width, channels)


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
      num_classes: 0 to leave out the classifier, even if the file has one.

    Raises:
      ValueError: the file does not fit; the message names the first layer that differs.
    """
    fields = _fields(name, options)
    if isinstance(found, Layers):
        return _fit_by_names(found, name, image, dict(options), num_classes, fields)
    implied = _implied(found, fields, options)
    failure: windows.OtherWindows | None = None
    for extra in _alternatives(fields, options):
        try:
            return _fit(found, name, image, options, {**implied, **extra}, num_classes, fields)
        except windows.OtherWindows as error:
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
    """Sets of options to try: none first, then those that change one field, then two, ..."""
    free = [name for name in _ALTERNATIVES if name in fields and name not in options]
    others = {name: [v for v in _ALTERNATIVES[name] if v != fields[name]] for name in free}
    for count in range(len(free) + 1):
        for names in itertools.combinations(free, count):
            for choice in itertools.product(*(others[name] for name in names)):
                yield dict(zip(names, choice))


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
        found["lrn"] = _preset(**responses[0].facts)
    if "fc_width" in fields:
        dense = [node for node in _head(graph.outputs[0]) if node.kind == "dense"]
        found["fc_width"] = dense[2].channels if len(dense) == 3 else 0
        if "onnx_zoo" in fields and len(dense) == 3:
            found["onnx_zoo"] = dense[2].channels == 4 * dense[1].channels
        # VGG's fully connected layers can be made for other images, AlexNet's and ZFNet's cannot.
        made_for = "convs" in fields and found["fc_width"]
        if graph.size and (graph.size < fields["min_size"] or made_for):
            found["min_size"] = graph.size
    return {n: v for n, v in found.items() if n not in options and v != fields[n]}


def _preset(k: float = 1.0, alpha: float = 1e-4) -> str:
    """The constants of a response normalization; files divide alpha by the number of channels."""
    if k == 1.0:
        return "caffe"
    return "cuda_convnet" if alpha < 3e-4 else "paper"


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
    if main.kind not in LAYERS and num_classes != 0:
        raise ValueError(
            f"the file ends in {main.described()}, not in a classifier: num_classes=0 loads {name} "
            "without one"
        )
    classes = 0 if num_classes == 0 else main.channels
    taken = dict(taken)
    if "aux_heads" in fields and "aux_heads" not in options:
        taken["aux_heads"] = bool(heads) and bool(classes)
    taken = {n: value for n, value in taken.items() if value != fields[n]}
    ours = trace(name, image, **{**options, **taken, "num_classes": classes})
    ends = [main, *heads] if len(ours) == len(heads) + 1 else [main]
    ends[0] = _without_head(name, main, ours[0], classes)
    own, given = ordered(ours[: len(ends)]), ordered(ends)
    before = given[0] if reads_images(given[0]) and not reads_images(own[0]) else None
    pairs = pairing.pair(name, own, given[1:] if before else given)
    windows.compare(name, pairs, own, given)
    epsilon = {**fields, **taken}.get("bn_epsilon", 0.0)
    return Fitted(
        values.arrays(name, pairs, epsilon), taken, f"params/{own[0].name}/kernel", before
    )


def _fit_by_names(
    found: Layers,
    name: str,
    image: tuple[int, int, int],
    options: Mapping[str, Any],
    num_classes: int | None,
    fields: Mapping[str, Any],
) -> Fitted:
    usual = _usual(found, registry.model_info(name).family)
    taken = {n: v for n, v in usual.items() if n in fields}
    auxiliary = {id(n) for n in found.layers if n.facts.get("place", "").startswith("aux")}
    dense = [n for n in found.layers if n.kind == "dense" and id(n) not in auxiliary]
    if not dense and num_classes != 0:
        raise ValueError(f"the file has no classifier: num_classes=0 loads {name} without one")
    classes = 0 if num_classes == 0 else dense[-1].channels
    if "fc_width" in fields:
        taken["fc_width"] = dense[0].channels if len(dense) == 3 else 0
    norms = [node for node in found.layers if node.kind == "norm"]
    if not norms:
        taken.pop("bn_epsilon", None)
    elif "gamma" in fields:
        taken["gamma"] = any("scale" in node.arrays for node in norms)
    heads = bool(auxiliary) and bool(classes) and options.get("aux_heads", "aux_heads" in fields)
    if "aux_heads" in fields:
        taken["aux_heads"] = heads
    taken = {n: v for n, v in taken.items() if v != fields[n] and n not in options}
    outputs = trace(name, image, **{**options, **taken, "num_classes": classes})
    own = ordered(outputs if heads else outputs[:1])
    own = [node for node in own if node.kind in pairing.WEIGHTED]
    if not found.named and any(n.inputs[0].kind in ("concat", "add", "mul") for n in own):
        raise ValueError(
            "these weights do not contain the names of their layers; save the whole model as "
            ".keras instead"
        )
    layers = [n for n in found.layers if classes or n.kind != "dense" or "fc_width" in fields]
    layers = [n for n in layers if heads or id(n) not in auxiliary]
    pairs = keras_names.assign(own, layers)
    for position, (node, given) in enumerate(pairs):
        if given is None or node.kind == "unknown" or not pairing.is_same(node, given):
            mine = None if node.kind == "unknown" else node
            raise ValueError(pairing.difference(name, position, mine, given, layers))
        given.epsilon = usual.get("bn_epsilon", given.epsilon)
    arrays = values.arrays(name, pairs, {**fields, **taken}.get("bn_epsilon", 0.0))
    return Fitted(arrays, taken, f"params/{own[0].name}/kernel")


def _usual(found: Layers, family: str) -> dict[str, Any]:
    """Fields with which a network computes what the framework's own does."""
    if found.format == "TF-Slim":
        return slim.options(found.scope)
    return keras_names.options(family) if found.format == "Keras" else {}


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
