"""Traces networks without computing anything or allocating arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn import ops
from jaxcnn.models.registry import create_model, list_models, model_info, resolve

Size = int | tuple[int, ...] | None


class Traced(NamedTuple):
    """Trace of a network for one image in evaluation mode.

    Attributes:
      name: id, or name of the class.
      size: (height, width, channels) of the image.
      network: the module.
      variables: shapes of its parameters and statistics, which are the jaxpr's first inputs.
      jaxpr: computes the logits or the endpoints from (variables, images f32[1,H,W,C]).
      outputs: names of the jaxpr's outputs: "logits", and the endpoints if they were traced.
    """

    name: str
    size: tuple[int, int, int]
    network: Any
    variables: Mapping[str, Any]
    jaxpr: Any
    outputs: tuple[str, ...]


def trace(
    model: str | nn.Module,
    input_size: Size = None,
    options: Mapping[str, Any] | None = None,
    *,
    endpoints: bool = False,
) -> Traced:
    """Traces a network.

    Args:
      model: id or alias, or a network of this package.
      input_size: see `input_size_of`.
      options: fields of the network to override.
      endpoints: trace the endpoints as well.

    Raises:
      ValueError: the name or an option is unknown, or the input size is missing or too small.
    """
    network: Any
    size = input_size_of(model, input_size)
    if isinstance(model, str):
        name, network = resolve(model), create_model(model, **(options or {}))
    else:
        name, network = type(model).__name__, model.clone(**(options or {}))
    images = jax.ShapeDtypeStruct((1, *size), jnp.float32)
    variables = {"params": {}, **jax.eval_shape(network.init, jax.random.key(0), images)}

    def run(variables: Any, images: Any) -> dict[str, Any]:
        mutable = ["endpoints"] if endpoints else []
        logits, state = network.apply(variables, images, train=False, mutable=mutable)
        return {**state.get("endpoints", {}), "logits": logits}

    with ops.use("reference"):  # plain operations, which the readers of jaxprs support
        closed, shapes = jax.make_jaxpr(run, return_shape=True)(variables, images)
    return Traced(name, size, network, variables, closed.jaxpr, tuple(sorted(shapes)))


def input_size_of(model: str | nn.Module, input_size: Size = None) -> tuple[int, int, int]:
    """Returns the size of the images that a network is traced with.

    Args:
      model: id or alias, or a network of this package.
      input_size: one number for height and width, (height, width) or (height, width, channels); by
        default the one of the published network, or of that which a module is most like.

    Returns:
      (height, width, channels).

    Raises:
      ValueError: the input size is missing or no such numbers.
    """
    if isinstance(model, str):
        name, info = model, model_info(model)
        native, channels = info.input_size and info.input_size[:2], info.channels
    else:
        name, native = type(model).__name__, _native_size(model)
        channels = getattr(model, "channels", 3) or 3
    size = native if input_size is None else input_size
    if size is None:
        raise ValueError(
            f"input_size is missing: {name} has no default input size (--image-size in commands)"
        )
    full = (size, size) if isinstance(size, (int, np.integer)) else tuple(size)
    full = (*full, channels) if len(full) == 2 else full
    if len(full) != 3 or min(full) < 1:
        raise ValueError(
            f"input_size is {size!r}; it must be a positive number, (height, width) or (height, "
            "width, channels)"
        )
    return full


def _native_size(model: Any) -> tuple[int, int] | None:
    """The input size of the network with the most fields in common, among those of its class."""
    alike = {}
    for name in list_models():
        other = create_model(name)
        if isinstance(model, type(other)):
            fields = [field.name for field in dataclasses.fields(other)]
            alike[name] = sum(getattr(model, f) == getattr(other, f) for f in fields)
    size = model_info(max(alike, key=alike.__getitem__)).input_size if alike else None
    return size[:2] if size else None
