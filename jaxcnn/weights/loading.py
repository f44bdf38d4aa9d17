"""Loads networks with weights from the Hub or a file, and saves them to a file."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import jaxcnn
from jaxcnn._checks import one_of
from jaxcnn._files import any_path, is_local, local_path
from jaxcnn._objects import is_address, without_folder
from jaxcnn.data.preprocessing import Preprocessing, from_dict, to_dict
from jaxcnn.models import registry
from jaxcnn.weights import files, formats, hub, layout, pretrained, timm_config, torch_files

LAYOUTS = ("jaxcnn", "torch")

# The entry "format" of a file's metadata; PyTorch's libraries write "pt".
_FORMAT = {"jaxcnn": "jaxcnn", "torch": "pt"}

_log = logging.getLogger(__name__)


def load_pretrained(
    name_or_path: str | Path,
    *,
    model: str | None = None,
    num_classes: int | None = None,
    images: str | None = None,
    **options: Any,
) -> tuple[nn.Module, layout.Variables]:
    """Loads a network and its variables.

    Args:
      name_or_path: name of published weights on the Hugging Face Hub, such as "resnet50.tv_in1k",
        or of weights that come with the package, such as "lenet5.digits"; or path of a
        .safetensors, .npz or .pth file in PyTorch's or jaxcnn's layout, or of a file of Caffe,
        ONNX, Keras or TensorFlow; see `jaxcnn.weights.files` for other suffixes of PyTorch
        checkpoints, and `jaxcnn.weights.formats` for other frameworks.
      model: id or alias of the network; not needed for published weights and files written by
        jaxcnn.
      num_classes: width of the classifier, by default that of the weights. If it differs, the
        classifiers are initialized from a fixed key, and a warning is logged; 0 leaves them out.
      images: input normalization of a network of another framework, a key of
        `jaxcnn.weights.formats.preparation.IMAGES`; by default the usual one of the framework.
        Only for files of such frameworks.
      **options: fields of the network's module, as for `create_model`.

    Returns:
      (model, variables), for `model.apply(variables, images)`.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the name is unknown, or the weights cannot be downloaded, cannot be read or do not
        match the network.
    """
    opened = open_weights(
        name_or_path, model, num_classes=num_classes, images=images, options=options
    )
    return build(opened, num_classes, **options)


class Opened(NamedTuple):
    """Weights as they are stored, with their metadata.

    Attributes:
      origin: name or path, for messages.
      arrays: {key: array}.
      layout: "jaxcnn" or "torch".
      model: id of the network.
      options: fields of its module that differ from the variant's.
      preprocessing: of its images.
      class_names: of the classifier, if the file has them.
      notes: what was taken from a file of another framework or assumed about it.
      headless: whether the file says that it has no classifier.
    """

    origin: str
    arrays: dict[str, np.ndarray]
    layout: str
    model: str
    options: dict[str, Any]
    preprocessing: Preprocessing
    class_names: tuple[str, ...] | None
    notes: tuple[str, ...] = ()
    headless: bool = False


def open_weights(
    name_or_path: str | Path,
    model: str | None = None,
    *,
    num_classes: int | None = None,
    images: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Opened:
    """Reads published weights or a weights file; arguments and errors as in `load_pretrained`."""
    origin = str(pretrained.SHIPPED.get(str(name_or_path), name_or_path))
    _check_names(options or {})
    if (foreign := _foreign(origin)) is not None:
        if model is None:
            raise ValueError(f"{origin} does not state its network: pass its name as `model`")
        name = registry.resolve(model)
        return _open_foreign(origin, *foreign, name, dict(options or {}), num_classes, images)
    if images is not None:
        raise ValueError(
            f"images is {images!r}; it is only for files of Caffe, ONNX, Keras and TensorFlow, and "
            f"{origin} is none"
        )
    if not files.is_weights(origin):
        weights = pretrained.find(origin)
        if model is not None and registry.resolve(model) != weights.model:
            raise ValueError(f"{origin!r} are weights of {weights.model!r}, not of {model!r}")
        arrays, _ = files.read(hub.fetch(weights))
        return Opened(origin, arrays, "torch", weights.model, {}, weights.preprocessing, None)
    arrays, metadata = files.read(origin)
    if "jaxcnn" not in metadata:  # written by another program
        metadata = timm_config.metadata(any_path(origin))
    own_layout = metadata.get("format") == _FORMAT["jaxcnn"]
    if not own_layout:
        arrays = torch_files.without_prefixes(arrays)
    if model is None and "model" not in metadata:
        raise ValueError(f"{origin} does not state its network: pass its name as `model`")
    if model is None and is_address(metadata["model"]):  # a file does not choose code to run
        raise ValueError(
            f"{origin} holds weights of {metadata['model']}, a network that is not part of jaxcnn: "
            "name that model to load them"
        )
    name = registry.resolve(model or metadata["model"])
    stored = files.stated(origin, metadata, "options", dict) or {}
    fields = files.stated(origin, metadata, "preprocessing", dict)
    names = files.stated(origin, metadata, "class_names", list)
    try:
        _check_names(stored)
        prepare = from_dict(fields) if fields else pretrained.default_preprocessing(name)
    except ValueError as error:
        raise ValueError(f"{origin} has invalid metadata: {error}") from error
    return Opened(
        origin,
        arrays,
        "jaxcnn" if own_layout else "torch",
        name,
        stored,
        prepare,
        names and tuple(map(str, names)),
        headless=metadata.get("num_classes") == "0",
    )


def _foreign(origin: str) -> tuple[Path, str] | None:
    """A file of another framework and its format; None for all other files and names."""
    if is_local(origin) and (table := formats.tf_checkpoint.index_of(local_path(origin))):
        return table, "tensorflow"  # also as a .ckpt, which may be PyTorch's, and by a prefix
    if files.is_weights(origin) or is_address(origin) or not local_path(origin).is_file():
        return None
    found = formats.detect(local_path(origin))
    if found is None:
        raise ValueError(
            f"{origin} is damaged or has an unknown format: it is not a file of Caffe, ONNX, "
            f"Keras or TensorFlow, and its name does not end in {', '.join(files.SUFFIXES)}"
        )
    return local_path(origin), found


def _open_foreign(
    origin: str,
    path: Path,
    format: str,
    name: str,
    options: dict[str, Any],
    num_classes: int | None,
    images: str | None,
) -> Opened:
    found = formats.read(path, format, name, options, num_classes, images)
    options |= found.options
    prepare = found.preprocessing
    return Opened(origin, found.arrays, "jaxcnn", name, options, prepare, None, found.notes)


def _check_names(options: Mapping[str, Any]) -> None:
    """Raises ValueError if options of a network have names that are set in another way."""
    for name in ("name", "parent", "num_classes"):
        if name in options:
            raise ValueError(f"{name!r} is not an option of a network")


def build(
    opened: Opened, num_classes: int | None = None, **options: Any
) -> tuple[nn.Module, layout.Variables]:
    """Creates the network and the variables of opened weights; see `load_pretrained`."""
    _check_names(options)
    options = layout.frozen({**opened.options, **options})
    arrays = opened.arrays
    shape = _image_shape(opened.preprocessing)
    described = layout.describe(opened.model, shape, **options)
    if opened.layout == "jaxcnn":
        described = layout.in_own_names(described)
    classes = layout.stored_classes(described, arrays)
    wanted = num_classes
    if wanted is None:
        wanted = classes if opened.headless else layout.class_count(described, arrays)
    network = registry.create_model(opened.model, num_classes=wanted, **options)
    if num_classes is None or wanted in (0, classes):
        return network, layout.read(described, arrays, wanted)
    # Auxiliary heads are initialized only if the weights have them.
    heads = [
        leaf
        for leaf in described.leaves
        if leaf.is_head and (leaf.key in arrays or not leaf.is_auxiliary)
    ]
    arrays = layout.without_heads(described, arrays)
    images = jnp.zeros((1, *layout.image_shape(described.name, shape, options)), jnp.float32)
    for leaf, value in zip(heads, _initial(network, heads, images)):
        arrays[leaf.key] = layout.store(leaf, np.asarray(value))
    variables = layout.read(described, arrays, wanted)
    found = f"the classifier of {classes} classes is dropped" if classes else "has no classifier"
    _log.warning("%s: %s, a new one of %d is initialized", opened.origin, found, wanted)
    return network, variables


def _image_shape(preprocessing: Preprocessing) -> tuple[int, int, int]:
    return preprocessing.size, preprocessing.size, len(preprocessing.mean)


def _initial(network: nn.Module, heads: list[layout.Leaf], images: jax.Array) -> list[jax.Array]:
    """Initial values of the classifiers; the compiler removes the computation of the others."""

    def init(key: jax.Array) -> list[jax.Array]:
        variables = network.init(key, images)
        return [layout.look_up(variables, leaf) for leaf in heads]

    return jax.jit(init)(jax.random.key(0))


def save(
    path: str | Path,
    name: str,
    variables: Mapping[str, Any],
    *,
    to: str = "jaxcnn",
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] | None = None,
    **options: Any,
) -> None:
    """Saves the variables of a network to a .safetensors, .npz or .pth file.

    Except for .pth, the file also records the network, its number of classes, the preprocessing of
    its images, and the version of jaxcnn.

    Args:
      path: of the file, which is written atomically.
      name: id or alias of the network.
      variables: {"params": ..., "batch_stats": ...}.
      to: "jaxcnn", or "torch" for torchvision's or timm's names and layouts.
      preprocessing: of its images, by default the network's own.
      class_names: of the classifier.
      **options: fields of the network's module that differ from the variant's.

    Raises:
      FileNotFoundError: the directory does not exist.
      ValueError: the name, the layout, the suffix or an option is unknown, an option cannot be
        stored, the variables or the names of classes do not match the network, or PyTorch is
        required but not installed.
    """
    one_of("layout", to, LAYOUTS)
    _check_names(options)
    try:
        stored_options = json.dumps(options)
    except TypeError as error:
        raise ValueError(f"an option of the network cannot be stored: {error}") from None
    prepare = preprocessing or pretrained.default_preprocessing(name)
    described = layout.describe(name, _image_shape(prepare), **options)
    own = layout.in_own_names(described)
    arrays = layout.write(own if to == "jaxcnn" else described, variables)
    classes = layout.stored_classes(described if to == "torch" else own, arrays)
    if class_names is not None and len(class_names) != classes:
        raise ValueError(f"class_names has {len(class_names)} names; there are {classes} classes")
    metadata = {
        "format": _FORMAT[to],
        "jaxcnn": jaxcnn.__version__,
        "model": without_folder(described.name),
        "options": stored_options,
        "num_classes": str(classes),
        "preprocessing": json.dumps(to_dict(prepare)),
    }
    if class_names is not None:
        metadata["class_names"] = json.dumps(list(class_names))
    files.write(path, arrays, metadata)
