"""Traces networks without computing anything or allocating arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcnn import ops
from jaxcnn.models.registry import create_model, model_info, resolve

Size = int | tuple[int, ...] | None


class Traced(NamedTuple):
    """Trace of a network for one image in evaluation mode.

    Attributes:
      name: id, or name of the class.
      size: (height, width, channels) of the image.
      network: the module.
      variables: shapes of its parameters and statistics, which are the jaxpr's first inputs.
      jaxpr: computes the logits or the endpoints from (variables, images f32[1,H,W,C]).
      outputs: names of the jaxpr's outputs: "logits", or the endpoints.
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
      input_size: one number for height and width, (height, width) or (height, width, channels);
        by default the network's own.
      options: fields of the network to override.
      endpoints: trace the endpoints instead of the logits.

    Raises:
      ValueError: the name or an option is unknown, or the input size is missing or too small.
    """
    channels = 3
    network: Any
    if isinstance(model, str):
        name, info = resolve(model), model_info(model)
        channels = info.input_size[2] if info.input_size else channels
        input_size = info.input_size if input_size is None else input_size
        network = create_model(name, **(options or {}))
    else:
        name, network = type(model).__name__, model.clone(**(options or {}))
        channels = getattr(model, "channels", channels) or channels
    size = _full_size(input_size, channels)
    images = jax.ShapeDtypeStruct((1, *size), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), images)

    def run(variables: Any, images: Any) -> dict[str, Any]:
        if not endpoints:
            return {"logits": network.apply(variables, images, train=False)}
        _, state = network.apply(variables, images, train=False, mutable=["endpoints"])
        return dict(state.get("endpoints", {}))

    with ops.use("reference"):  # plain operations, which the readers of jaxprs support
        closed, shapes = jax.make_jaxpr(run, return_shape=True)(variables, images)
    return Traced(name, size, network, variables, closed.jaxpr, tuple(sorted(shapes)))


def _full_size(size: Size, channels: int) -> tuple[int, int, int]:
    if size is None:
        raise ValueError(
            "input_size is missing: a network given as a module has no default input size"
        )
    full = (size, size) if isinstance(size, int) else tuple(size)
    full = (*full, channels) if len(full) == 2 else full
    if len(full) != 3 or min(full) < 1:
        raise ValueError(
            f"input_size is {size!r}; it must be a number, (height, width) or (height, width, "
            "channels)"
        )
    return full
