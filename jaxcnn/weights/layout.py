"""Converts the variables of a network to and from PyTorch's names and layouts.

The PyTorch names of modules come from the family's file in `jaxcnn.weights.rules`; a family without
one has no PyTorch counterpart and keeps its own names, joined by dots. Leaves are converted in the
same way for all families: kernel and scale become `weight`, mean and var become `running_mean` and
`running_var`, and kernels are transposed.
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

# Placeholder for the number of classes while a network is traced. No layer is as wide, so that it
# identifies the shapes of the classifiers.
_CLASSES = 1_000_003

_AUXILIARY = re.compile(r"aux\d_head/")


class Leaf(NamedTuple):
    """An array of the variables, and how a mapping stores it.

    Attributes:
      collection, path: position in the variables: "params", "stage1_block1/conv1/kernel".
      key: name in the mapping.
      shape: shape in the variables, with a placeholder for the number of classes.
      store: layout in the mapping: "as is", "transposed", or a layout of dense layers defined by
        the rules.
      dtype: type in the variables.
    """

    collection: str
    path: str
    key: str
    shape: Shape
    store: str | tuple[int, int, int]
    dtype: Any

    @property
    def is_head(self) -> bool:
        """Whether the shape depends on the number of classes."""
        return _CLASSES in self.shape

    @property
    def is_auxiliary(self) -> bool:
        """Whether it belongs to an auxiliary head."""
        return _AUXILIARY.match(self.path) is not None

    def shape_here(self, num_classes: int) -> Shape:
        """Returns the shape in the variables."""
        return tuple(num_classes if n == _CLASSES else n for n in self.shape)

    def stored_shape(self, num_classes: int) -> Shape:
        """Returns the shape in the mapping."""
        # A broadcast view allocates no memory.
        return store(self, np.broadcast_to(np.float32(0), self.shape_here(num_classes))).shape


class Layout(NamedTuple):
    """How a mapping stores the variables of a network.

    Attributes:
      name: id of the network.
      leaves: of all its variables, including those of auxiliary heads.
      auxiliary: whether to read auxiliary heads if the mapping has them.
    """

    name: str
    leaves: tuple[Leaf, ...]
    auxiliary: bool


def from_torch(
    name: str, state_dict: Mapping[str, Any], *, num_classes: int | None = None, **options: Any
) -> Variables:
    """Converts a PyTorch state dict to the variables of a network.

    Args:
      name: id or alias of the network.
      state_dict: {PyTorch key: array in PyTorch's layout}, as of torchvision or timm. Counters of
        batches are ignored. If it lacks the auxiliary heads, so does the result.
      num_classes: width of the classifier, by default that of the state dict; 0 leaves out the
        classifiers.
      **options: fields of the network's module, as for `create_model`.

    Returns:
      {"params": ..., "batch_stats": ...} for `model.apply`, without "batch_stats" if the network
      has no BatchNorm. The arrays are copies, with the types of `model.init`.

    Raises:
      ValueError: the name is unknown, or the state dict does not match the network. The message
        lists missing (-) and unexpected (+) keys and different shapes, up to a limit.
    """
    return read(describe(name, **options), state_dict, num_classes)


def to_torch(name: str, variables: Mapping[str, Any], **options: Any) -> dict[str, np.ndarray]:
    """Converts the variables of a network to a PyTorch state dict.

    It is the exact inverse of `from_torch`.

    Each BatchNorm also gets a counter of batches, an int64 zero.

    Args:
      name: id or alias of the network.
      variables: {"params": ..., "batch_stats": ...}.
      **options: fields of the network's module, as for `create_model`.

    Returns:
      {PyTorch key: array in PyTorch's layout}.

    Raises:
      ValueError: the name is unknown, or the variables do not match the network.
    """
    return write(describe(name, **options), variables)


def describe(name: str, shape: Shape | None = None, **options: Any) -> Layout:
    """Determines the PyTorch layout of a network by tracing it.

    Args:
      name: id, alias or address of the network.
      shape: (height, width, channels) of an image, for networks of unknown input size.
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
    """Converts lists, as in JSON, to tuples, as in fields of a module; also within dictionaries."""
    if isinstance(value, dict):
        return {key: frozen(item) for key, item in value.items()}
    return tuple(map(frozen, value)) if isinstance(value, (list, tuple)) else value


def image_shape(name: str, shape: Shape | None, options: Mapping[str, Any]) -> Shape:
    """Determines the shape of an image that a network with these options accepts.

    Args:
      name: id, alias or address of the network.
      shape: result for networks of unknown input size.
      options: fields of its module.

    Returns:
      (height, width, channels).
    """
    info = registry.model_info(name)
    if info.input_size is None and shape is not None:
        return shape
    height, width, channels = info.known_input_size()
    if "min_size" in options:  # the size that fully connected layers are made for
        height = width = options["min_size"]
    return height, width, options.get("channels", channels)


def in_own_names(layout: Layout) -> Layout:
    """Returns the layout of jaxcnn's own files: no transposition, and keys like "params/fc/kernel".

    Args:
      layout: of the network.
    """
    leaves = (
        leaf._replace(key=f"{leaf.collection}/{leaf.path}", store="as is") for leaf in layout.leaves
    )
    return layout._replace(leaves=tuple(leaves))


def read(layout: Layout, mapping: Mapping[str, Any], num_classes: int | None = None) -> Variables:
    """Reads the variables of a network from a mapping.

    Args:
      layout: of the mapping.
      mapping: {key: array}.
      num_classes: width of the classifier, by default that of the mapping; 0 leaves out the
        classifiers.

    Raises:
      ValueError: the mapping does not match the layout, or holds a value that is not finite.
    """
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
        array = _cast(layout.name, leaf, given[leaf.key])
        array = restore(leaf, array, leaf.shape_here(classes))
        arrays[f"{leaf.collection}/{leaf.path}"] = jnp.array(array)
    return unflatten_dict(arrays, sep="/")


def _cast(name: str, leaf: Leaf, array: np.ndarray) -> np.ndarray:
    """Converts an array to the type of a leaf; raises ValueError if it is not finite then."""
    with np.errstate(over="ignore"):
        cast = array.astype(leaf.dtype, copy=False)
    if not np.isfinite(cast).all():
        raise ValueError(
            f"the weights of {name} are not finite: {leaf.key} holds "
            f"{cast[~np.isfinite(cast)].flat[0]} in {np.dtype(leaf.dtype)}"
        )
    return cast


def write(layout: Layout, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Writes the variables of a network to a mapping.

    Args:
      layout: of the mapping.
      variables: {"params": ..., "batch_stats": ...}.

    Returns:
      {key: array}.

    Raises:
      ValueError: the variables do not match the network.
    """
    own = in_own_names(layout)
    given = {where: np.asarray(value) for where, value in _flatten(variables).items()}
    classes = stored_classes(own, given)
    leaves = _present(own, given, classes)
    check(layout.name, {leaf.key: leaf.stored_shape(classes) for leaf in leaves}, given)
    mapping: dict[str, np.ndarray] = {}
    for leaf in layout.leaves:
        array = given.get(f"{leaf.collection}/{leaf.path}")
        if array is None:  # of a head that the network does not have
            continue
        mapping[leaf.key] = np.ascontiguousarray(store(leaf, array))
        if leaf.key.endswith(".running_var"):
            counter = leaf.key.replace("running_var", COUNTER)
            mapping[counter] = np.zeros((), np.int64)
    return mapping


def class_count(layout: Layout, mapping: Mapping[str, Any]) -> int:
    """Returns the number of classes of a mapping's classifier.

    Args:
      layout: of the mapping.
      mapping: {key: array}.

    Returns:
      The number of classes; the network's default if the mapping has no classifier.
    """
    mapping = _respell(layout, mapping)
    for leaf in layout.leaves:
        if leaf.is_head and not leaf.is_auxiliary and leaf.key in mapping:
            shape = np.shape(mapping[leaf.key])
            if len(shape) == len(leaf.stored_shape(1)):
                return int(shape[leaf.stored_shape(_CLASSES).index(_CLASSES)])
    return registry.model_info(layout.name).num_classes or 0


def stored_classes(layout: Layout, mapping: Mapping[str, Any]) -> int:
    """Returns the width of the classifier that a mapping has; 0 if it has none.

    Auxiliary heads do not count.

    Args:
      layout: of the mapping.
      mapping: {key: array}.
    """
    heads = [leaf.key for leaf in layout.leaves if leaf.is_head and not leaf.is_auxiliary]
    if heads and not any(key in _respell(layout, mapping) for key in heads):
        return 0
    return class_count(layout, mapping)


def without_heads(layout: Layout, mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Removes the arrays whose shapes depend on the number of classes.

    Args:
      layout: of the mapping.
      mapping: {key: array}.
    """
    heads = {leaf.key for leaf in layout.leaves if leaf.is_head}
    return {k: v for k, v in _respell(layout, mapping).items() if k not in heads}


def look_up(variables: Mapping[str, Any], leaf: Leaf) -> Any:
    """Returns the array of a leaf in the variables of a network."""
    return _flatten(variables)[f"{leaf.collection}/{leaf.path}"]


def _trace(name: str, shape: Shape | None, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Shapes of all variables, auxiliary heads included, with `_CLASSES` classes."""
    images = jax.ShapeDtypeStruct((1, *image_shape(name, shape, options)), jnp.float32)

    def shapes(**wishes: Any) -> Mapping[str, Any]:
        model = registry.create_model(name, **{**options, **wishes})
        return jax.eval_shape(lambda x: model.init(jax.random.key(0), x), images)

    # A network may have no auxiliary heads, or support only one number of classes.
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
    """Converts timm's VGG, which has convolutions as dense layers, to torchvision's layout."""
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
    """The leaves that a mapping must contain: auxiliary heads are either complete or absent."""
    auxiliary = layout.auxiliary and any(
        leaf.key in mapping for leaf in layout.leaves if leaf.is_auxiliary
    )
    return [
        leaf
        for leaf in layout.leaves
        if (auxiliary or not leaf.is_auxiliary) and (num_classes or not leaf.is_head)
    ]


def store(leaf: Leaf, array: np.ndarray) -> np.ndarray:
    """Converts an array to the layout of a mapping: kernels HWIO to OIHW, (in, out) to (out, in).

    Args:
      leaf: of the array.
      array: in the layout of the variables.
    """
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
    """Converts an array from the layout of a mapping, the inverse of `store`.

    Args:
      leaf: of the array.
      array: in the layout of the mapping.
      shape: of the result.
    """
    if leaf.store == "as is":
        return array
    if leaf.store == "transposed":
        return array.T if array.ndim == 2 else array.transpose(2, 3, 1, 0)
    if leaf.store == "conv1x1":
        return array[:, :, 0, 0].T
    rows, out = shape
    return array.reshape(out, *_map_size(leaf, rows)).transpose(2, 3, 1, 0).reshape(rows, out)


def _map_size(leaf: Leaf, rows: int) -> Shape:
    """(C, H, W) of the map that a dense layer flattens; with `min_size` smaller than the rule's."""
    assert not isinstance(leaf.store, str)
    channels, height, width = leaf.store
    if channels * height * width != rows:
        height = width = math.isqrt(rows // channels)
    return channels, height, width


def _flatten(variables: Mapping[str, Any]) -> dict[str, Any]:
    """{"collection/path": array} of what is trained and of running statistics."""
    kept = {name: variables[name] for name in COLLECTIONS if name in variables}
    return flatten_dict(kept, sep="/")
