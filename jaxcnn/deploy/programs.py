"""A network with its weights as one program: StableHLO or ONNX, for any number of images."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from jaxcnn import ops
from jaxcnn._checks import optional_package
from jaxcnn._objects import without_folder
from jaxcnn.data.augment.pipeline import normalize
from jaxcnn.evaluation.evaluate import Entry

PLATFORMS = ("cpu", "cuda", "tpu")
BATCH, IMAGES = "batch", "images"


def image_shape(entry: Entry) -> tuple[int, int, int]:
    """Returns (height, width, channels) of the images that a network takes."""
    preprocessing = entry.preprocessing
    return preprocessing.size, preprocessing.size, len(preprocessing.mean)


def output_name(pixels: bool) -> str:
    """Returns the name of a program's output: of its values for pixels or normalized images."""
    return "probabilities" if pixels else "logits"


def to_stablehlo(entry: Entry, *, pixels: bool = False) -> bytes:
    """Exports a network as StableHLO for CPUs, CUDA and TPUs, with a symbolic batch size.

    Args:
      entry: the network and its variables.
      pixels: see `export_model`.

    Returns:
      The program, for `jax.export.deserialize`.
    """
    logits = _logits(entry, pixels)

    @jax.jit
    def program(images: jax.Array) -> jax.Array:
        found = logits(entry.variables, images)
        return jax.nn.softmax(found, -1) if pixels else found

    with _without_folders():
        exported = export.export(program, platforms=PLATFORMS)(_images(entry, pixels))
        return bytes(exported.serialize())


@contextlib.contextmanager
def _without_folders() -> Iterator[None]:
    """Reduces the source locations in programs to file names; published files name no folders."""
    option = "jax_hlo_source_file_canonicalization_regex"
    before = getattr(jax.config, option)
    jax.config.update(option, r".*[/\\]")
    try:
        yield
    finally:
        jax.config.update(option, before)


def to_onnx(entry: Entry, *, pixels: bool = False) -> Any:
    """Converts a network to an ONNX model with a symbolic batch size.

    BatchNorm is folded into the convolutions that precede it.

    Args:
      entry: the network and its variables.
      pixels: see `export_model`.

    Returns:
      The `onnx.ModelProto`.

    Raises:
      ValueError: the network has an operation without a translation, or `onnx` is not installed.
    """
    from jaxcnn.deploy.onnx_graph import LAST, Graph, Tensor
    from jaxcnn.deploy.onnx_ops import translate

    onnx = optional_package("onnx", "onnx")
    graph, like = Graph(), _images(entry, pixels)
    with ops.use("reference"):  # plain operations only
        closed = jax.make_jaxpr(_logits(entry, pixels))(entry.variables, like)
    variables = [np.asarray(leaf) for leaf in jax.tree.leaves(entry.variables)]
    images = Tensor(like.shape, {LAST: IMAGES})
    (logits,) = translate(graph, closed.jaxpr, closed.consts, [*variables, images])
    result = graph.name(logits, LAST)
    if pixels:
        result = graph.add("Softmax", [result], axis=-1)
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(like.dtype))
    shape = [BATCH, *image_shape(entry)]
    described = onnx.helper.make_tensor_value_info(IMAGES, kind, shape)
    output = output_name(pixels)
    output_info = onnx.helper.make_tensor_value_info(output, 1, [BATCH, entry.classes])  # float32
    title = without_folder(entry.model or "network")
    model = graph.model(title, described, output_info, result)
    onnx.checker.check_model(model)
    return model


def _images(entry: Entry, pixels: bool) -> jax.ShapeDtypeStruct:
    """Images of a symbolic batch size."""
    sizes = ", ".join(map(str, image_shape(entry)))
    shape = export.symbolic_shape(f"{BATCH}, {sizes}")
    return jax.ShapeDtypeStruct(shape, jnp.uint8 if pixels else jnp.float32)


def _logits(entry: Entry, pixels: bool) -> Callable[[Any, jax.Array], jax.Array]:
    """A function of (variables, images) to logits."""
    model, preprocessing = entry.make(), entry.preprocessing

    def network(variables: Any, images: jax.Array) -> Any:
        if pixels:
            images = normalize(images, preprocessing.mean, preprocessing.std)
        return model.apply(variables, images, train=False)

    return network
