"""Variables of a network to and from torch's names and layouts.

What a module is called in torch comes from the family's file in `jaxcnn.weights.rules`; a family
without one has no peer and keeps its own names, joined by dots. What becomes of a leaf is the same
everywhere: kernel and scale are `weight`, mean and var `running_mean` and `running_var`, and a
kernel is transposed.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxcnn.models import registry
from jaxcnn.weights.mismatch import COUNTER, check

Shape = tuple[int, ...]
Variables = dict[str, Any]

COLLECTIONS = ("params", "batch_stats")

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}

# Stands for the number of classes while a network is traced. No layer is as wide: shapes with it
# are those of the classifiers.
_CLASSES = 1_000_003

_AUXILIARY = re.compile(r"aux\d_head/")


class Leaf(NamedTuple):
    """One array of the variables.

    Attributes:
      collection, path: where it is: "params", "stage1_block1/conv1/kernel".
      key: its name in a mapping.
      shape: its shape here, with a number of its own for that of the classes.
      store: how a mapping stores it: "as is", "transposed" and what the rules say of dense layers.
      dtype: its type here.
    """

    collection: str
    path: str
    key: str
    shape: Shape
    store: str | tuple[int, int, int]
    dtype: Any

    @property
    def is_head(self) -> bool:
        return _CLASSES in self.shape

    @property
    def is_auxiliary(self) -> bool:
        return _AUXILIARY.match(self.path) is not None

    def shape_here(self, num_classes: int) -> Shape:
        return tuple(num_classes if n == _CLASSES else n for n in self.shape)

    def stored_shape(self, num_classes: int) -> Shape:
        # Of a view without memory: no more than the arithmetic of shapes.
        return store(self, np.broadcast_to(np.float32(0), self.shape_here(num_classes))).shape


class Layout(NamedTuple):
    """How a mapping holds a network's variables.

    Attributes:
      name: id of the network.
      leaves: of all its variables, those of auxiliary heads included.
      auxiliary: whether auxiliary heads are wanted where a mapping has them.
    """

    name: str
    leaves: tuple[Leaf, ...]
    auxiliary: bool


def from_torch(
    name: str, state_dict: Mapping[str, Any], *, num_classes: int | None = None, **options: Any
) -> Variables:
    """The variables of a network from a torch mapping.

    Args:
      name: id or alias of the network.
      state_dict: {torch key: array in torch layout}, as of torchvision or timm. Counters of
        batches are ignored. Auxiliary heads may be left out, and are then missing in the result.
      num_classes: width of the classifier; by default the mapping's. 0 leaves the classifiers out.
      **options: fields of the network's module, as for `create_model`.

    Returns:
      {"params": ..., "batch_stats": ...} for `model.apply`; without "batch_stats" where the network
      has no BatchNorm. The arrays are copies, in the types that `model.init` gives.

    Raises:
      ValueError: the name is unknown, or the mapping does not fit: keys are missing (-) or surplus
        (+), or shapes differ; all are listed, up to a bound.
    """
    return read(describe(name, **options), state_dict, num_classes)


def to_torch(name: str, variables: Mapping[str, Any], **options: Any) -> dict[str, np.ndarray]:
    """The torch mapping of a network's variables: the inverse of `from_torch`, bit for bit.

    Every BatchNorm also gets its counter of batches, an int64 zero.

    Raises:
      ValueError: the name is unknown, or these are not the variables of this network.
    """
    return write(describe(name, **options), variables)


def describe(name: str, shape: Shape | None = None, **options: Any) -> Layout:
    """The torch layout of a network. Traces it and computes nothing.

    Args:
      name: id, alias or address of the network.
      shape: (height, width, channels) of an image, for a network whose input size is not known.
      **options: fields of its module.
    """
    options.pop("num_classes", None)
    if registry.model_info(name).input_size is not None:
        shape = None
    return _describe(registry.resolve(name), shape, tuple(sorted(frozen(options).items())))


@functools.lru_cache(maxsize=16)
def _describe(name: str, shape: Shape | None, fixed: tuple[tuple[str, Any], ...]) -> Layout:
    options = dict(fixed)
    registry.create_model(name, **options)  # raises for an unknown option
    torch_name, dense_layout = _rules(registry.model_info(name).family)
    leaves = []
    for where, value in _flatten(_trace(name, shape, options)).items():
        collection, _, path = where.partition("/")
        module, _, leaf = path.rpartition("/")
        how: str | tuple[int, int, int] = "as is"
        if leaf == "kernel" and len(value.shape) in (2, 4):
            how = (len(value.shape) == 2 and dense_layout(name, module)) or "transposed"
        key = f"{torch_name(name, module)}.{_LEAVES.get(leaf, leaf)}"
        leaves.append(Leaf(collection, path, key, value.shape, how, value.dtype))
    return Layout(name, tuple(leaves), options.get("aux_heads", True))


def frozen(value: Any) -> Any:
    """Lists, as JSON has them, as tuples, which the fields of a module are; inside of dicts too."""
    if isinstance(value, dict):
        return {key: frozen(item) for key, item in value.items()}
    return tuple(map(frozen, value)) if isinstance(value, (list, tuple)) else value


def image_shape(name: str, shape: Shape | None, options: Mapping[str, Any]) -> Shape:
    """(height, width, channels) of an image that a network with these options takes.

    `shape` is for a network whose input size is not known.
    """
    info = registry.model_info(name)
    if info.input_size is None and shape is not None:
        return shape
    height, width, channels = info.known_input_size()
    if "min_size" in options:  # the size that fully connected layers are made for
        height = width = options["min_size"]
    return height, width, options.get("channels", channels)


def in_own_names(layout: Layout) -> Layout:
    """The layout of jaxcnn's own files: nothing transposed, keys like "params/fc/kernel"."""
    leaves = (
        leaf._replace(key=f"{leaf.collection}/{leaf.path}", store="as is") for leaf in layout.leaves
    )
    return layout._replace(leaves=tuple(leaves))


def read(layout: Layout, mapping: Mapping[str, Any], num_classes: int | None = None) -> Variables:
    """The variables in a mapping. Raises ValueError where it does not fit."""
    mapping = _respell(layout, mapping)
    classes = class_count(layout, mapping) if num_classes is None else num_classes
    leaves = _present(layout, mapping, classes)
    ignored = {
        leaf.key
        for leaf in layout.leaves
        if (leaf.is_head and not classes) or (leaf.is_auxiliary and not layout.auxiliary)
    }
    given = {
        key: np.asarray(value)
        for key, value in mapping.items()
        if key not in ignored and key.rpartition(".")[2] != COUNTER
    }
    check(layout.name, {leaf.key: leaf.stored_shape(classes) for leaf in leaves}, given)
    arrays = {}
    for leaf in leaves:
        array = restore(leaf, given[leaf.key], leaf.shape_here(classes))
        arrays[f"{leaf.collection}/{leaf.path}"] = jnp.array(array, leaf.dtype)
    return unflatten_dict(arrays, sep="/")


def write(layout: Layout, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The mapping of variables. Raises ValueError where they are not this network's."""
    own = in_own_names(layout)
    given = {where: np.asarray(value) for where, value in _flatten(variables).items()}
    classes = class_count(own, given)
    leaves = _present(own, given, classes)
    check(layout.name, {leaf.key: leaf.stored_shape(classes) for leaf in leaves}, given)
    mapping: dict[str, np.ndarray] = {}
    for leaf in layout.leaves:
        array = given.get(f"{leaf.collection}/{leaf.path}")
        if array is None:  # of a head that there is not
            continue
        mapping[leaf.key] = np.ascontiguousarray(store(leaf, array))
        if leaf.key.endswith(".running_var"):
            counter = leaf.key.replace("running_var", COUNTER)
            mapping[counter] = np.zeros((), np.int64)
    return mapping


def class_count(layout: Layout, mapping: Mapping[str, Any]) -> int:
    """Number of classes of the classifier in a mapping; the network's own if it has none there."""
    mapping = _respell(layout, mapping)
    for leaf in layout.leaves:
        if leaf.is_head and not leaf.is_auxiliary and leaf.key in mapping:
            shape = np.shape(mapping[leaf.key])
            if len(shape) == len(leaf.stored_shape(1)):
                return int(shape[leaf.stored_shape(_CLASSES).index(_CLASSES)])
    return registry.model_info(layout.name).num_classes or 0


def without_heads(layout: Layout, mapping: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping without the arrays whose shapes depend on the number of classes."""
    heads = {leaf.key for leaf in layout.leaves if leaf.is_head}
    return {k: v for k, v in _respell(layout, mapping).items() if k not in heads}


def look_up(variables: Mapping[str, Any], leaf: Leaf) -> Any:
    """The leaf's array in variables."""
    return _flatten(variables)[f"{leaf.collection}/{leaf.path}"]


def _trace(name: str, shape: Shape | None, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Shapes of all variables, auxiliary heads included, with `_CLASSES` classes."""
    images = jax.ShapeDtypeStruct((1, *image_shape(name, shape, options)), jnp.float32)

    def shapes(**wishes: Any) -> Mapping[str, Any]:
        model = registry.create_model(name, **{**options, **wishes})
        return jax.eval_shape(lambda x: model.init(jax.random.key(0), x), images)

    # A network may have no auxiliary heads, or be for one number of classes only.
    if hasattr(registry.create_model(name, **options), "aux_heads"):
        with contextlib.suppress(ValueError):
            return shapes(num_classes=_CLASSES, aux_heads=True)
    with contextlib.suppress(ValueError):
        return shapes(num_classes=_CLASSES)
    return shapes()


@functools.cache
def _rules(family: str) -> tuple[Callable[[str, str], str], Callable[[str, str], Any]]:
    file = f"jaxcnn.weights.rules.{family}"
    try:
        module = importlib.import_module(file)
    except ModuleNotFoundError as error:
        if error.name != file:
            raise
        return lambda model, path: path.replace("/", "."), lambda model, path: None
    return module.torch_name, module.dense_layout


def _respell(layout: Layout, mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    """timm keeps VGG's fully connected layers as convolutions: torchvision's names and matrices."""
    if not layout.name.startswith("vgg") or "pre_logits.fc1.weight" not in mapping:
        return mapping
    names = {
        "pre_logits.fc1": "classifier.0",
        "pre_logits.fc2": "classifier.3",
        "head.fc": "classifier.6",
    }
    renamed = {}
    for key, value in mapping.items():
        module, _, leaf = key.rpartition(".")
        if module in names and np.ndim(value) == 4:
            value = np.reshape(np.asarray(value), (np.shape(value)[0], -1))
        renamed[f"{names.get(module, module)}.{leaf}"] = value
    return renamed


def _present(layout: Layout, mapping: Mapping[str, Any], num_classes: int) -> list[Leaf]:
    """The leaves that the mapping has to have: auxiliary heads are complete or not there at all."""
    auxiliary = layout.auxiliary and any(
        leaf.key in mapping for leaf in layout.leaves if leaf.is_auxiliary
    )
    return [
        leaf
        for leaf in layout.leaves
        if (auxiliary or not leaf.is_auxiliary) and (num_classes or not leaf.is_head)
    ]


def store(leaf: Leaf, array: np.ndarray) -> np.ndarray:
    """An array as a mapping stores it: kernels HWIO to OIHW, (in, out) to (out, in)."""
    if leaf.store == "as is":
        return array
    if leaf.store == "transposed":
        return array.T if array.ndim == 2 else array.transpose(3, 2, 0, 1)
    if leaf.store == "conv1x1":
        return array.T[:, :, None, None]
    rows, out = array.shape
    channels, height, width = _map_size(leaf, rows)
    return array.reshape(height, width, channels, out).transpose(3, 2, 0, 1).reshape(out, rows)


def restore(leaf: Leaf, array: np.ndarray, shape: Shape) -> np.ndarray:
    """The inverse of `store`; `shape` is that of the result."""
    if leaf.store == "as is":
        return array
    if leaf.store == "transposed":
        return array.T if array.ndim == 2 else array.transpose(2, 3, 1, 0)
    if leaf.store == "conv1x1":
        return array[:, :, 0, 0].T
    rows, out = shape
    return array.reshape(out, *_map_size(leaf, rows)).transpose(2, 3, 1, 0).reshape(rows, out)


def _map_size(leaf: Leaf, rows: int) -> Shape:
    """(C, H, W) of the map that a dense layer flattens: the rule's, or smaller for `min_size`."""
    assert not isinstance(leaf.store, str)
    channels, height, width = leaf.store
    if channels * height * width != rows:
        height = width = math.isqrt(rows // channels)
    return channels, height, width


def _flatten(variables: Mapping[str, Any]) -> dict[str, Any]:
    """{"collection/path": array} of what is trained and of running statistics."""
    kept = {name: variables[name] for name in COLLECTIONS if name in variables}
    return flatten_dict(kept, sep="/")
