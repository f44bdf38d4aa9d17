"""Reads weights files of other frameworks, without those frameworks.

The contents of a file determine its format. Its layers are matched to those of a network one by
one, along the graph that the file describes or by their names.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcnn.data.preprocessing import Preprocessing
from jaxcnn.models import registry
from jaxcnn.weights.formats import tf_checkpoint

_HDF5 = b"\x89HDF\r\n\x1a\n"
_TEXT = 4096  # bytes in which the first key of a JSON file is expected


class Converted(NamedTuple):
    """Weights of another framework, converted for a network of jaxcnn.

    Attributes:
      format: name of the framework.
      arrays: {key of jaxcnn's own files: array}.
      options: fields of the network's module that the file has determined.
      preprocessing: of its images.
      notes: lines of text about what was taken from the file or assumed about it.
    """

    format: str
    arrays: dict[str, np.ndarray]
    options: dict[str, Any]
    preprocessing: Preprocessing
    notes: tuple[str, ...]


def detect(path: Path) -> str | None:
    """Returns the format of a file of another framework; None if it is not recognized.

    Args:
      path: of the file.

    Returns:
      "caffe", "onnx", "keras h5", "keras", "tfjs", "tensorflow" or None.
    """
    if tf_checkpoint.index_of(path) == path:
        return "tensorflow"
    with open(path, "rb") as file:
        start = file.read(_TEXT)
    if start.startswith(_HDF5):
        return "keras h5"
    if start.startswith(b"PK"):
        return "keras" if zipfile.is_zipfile(path) and _has_config(path) else None
    if start.lstrip().startswith(b"{") and _is_tfjs(path):
        return "tfjs"
    # The first fields of a model: ONNX's version, and Caffe's name or layers.
    if start[:1] == b"\x08" and len(start) > 2 and start[1] < 32:
        return "onnx"
    if start[:1] in (b"\n", b"\x12") or start[:2] == b"\xa2\x06":
        return "caffe"
    return None


def _has_config(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return {"config.json", "model.weights.h5"} <= set(archive.namelist())


def _is_tfjs(path: Path) -> bool:
    try:
        return "weightsManifest" in json.loads(path.read_text("utf-8"))
    except ValueError:
        return False


def read(
    path: Path,
    format: str,
    model: str,
    options: Mapping[str, Any],
    num_classes: int | None = None,
    images: str | None = None,
) -> Converted:
    """Reads a file and fits its weights to a network.

    Args:
      path: of the file.
      format: as returned by `detect`.
      model: id of the network.
      options: fields of its module.
      num_classes: 0 leaves out the classifier, even if the file has one.
      images: input normalization that the network was trained with, a key of
        `preparation.IMAGES`; by default the usual one for the format and the network.

    Raises:
      ValueError: the file is damaged, or does not fit the network.
    """
    from jaxcnn.weights.formats import caffe, fitting, keras, onnx, preparation, slim
    from jaxcnn.weights.formats.graph import Graph

    readers: dict[str, Any] = {
        "caffe": caffe.read,
        "onnx": onnx.read,
        "keras": keras.read_zip,
        "keras h5": keras.read_h5,
        "tfjs": keras.read_tfjs,
        "tensorflow": tf_checkpoint.read,
    }
    found = readers[format](path)
    if not (found.outputs if isinstance(found, Graph) else found.layers):
        raise ValueError(f"{path} has no layers of a kind that jaxcnn supports")
    notes = []
    if found.format == "TF-Slim" and slim.without_background(found):
        notes.append("the first of 1001 outputs, for images of no class, was left out")
    shape = fitting.image_shape(found, model, options)
    try:
        fitted = fitting.fit(found, model, shape, options, num_classes)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if fitted.options:
        words = ", ".join(f"{name}={value}" for name, value in sorted(fitted.options.items()))
        notes.append(f"options taken from the file: {words}")
    family = registry.model_info(model).family
    kind = images or preparation.usual(found.format, family, fitted.before)
    mean, scale = (found.mean, found.scale) if isinstance(found, Graph) else (None, 1.0)
    if found.format == "Caffe" and preparation.takes_pixels(fitted.before):
        mean = mean or (0.0, 0.0, 0.0)
    elif found.format == "Caffe" and family != "vgg":
        mean = mean or preparation.CAFFE_MEAN
    prepare = preparation.preprocessing(kind, shape[0], mean, scale, shape[2])
    if shape[2] != 3 and kind not in preparation.SAME_FOR_ALL:
        kind, prepare = "gray", preparation.gray(model, shape[0], shape[2])
    arrays = dict(fitted.arrays)
    if kind in preparation.BGR:
        if arrays[fitted.first].shape[2] != 3:
            raise ValueError(
                f"{path}: the first layer of {model} is grouped, so its images must be RGB"
            )
        arrays[fitted.first] = arrays[fitted.first][:, :, ::-1]
        notes.append(
            "the file expects BGR images; the input channels of the first layer were reversed"
        )
    if fitted.before is not None:
        bgr = kind in preparation.BGR
        prepare = preparation.with_first_layer(prepare, fitted.before, bgr)
        notes.append(f"its first layer, {fitted.before.name}, became part of the preprocessing")
    notes.append(f"assumed input normalization: {kind!r}, {preparation.described(prepare)}")
    return Converted(found.format, arrays, fitted.options, prepare, tuple(notes))
