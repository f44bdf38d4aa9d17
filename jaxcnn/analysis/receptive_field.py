"""Receptive fields of a traced network: the pixels that an activation depends on.

Where branches with different fields join, the field is the smallest interval that contains both
(Araujo et al. 2019, "Computing receptive fields of convolutional neural networks", Distill). After
global pooling or a squeeze-and-excitation gate it is the whole image.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn

from jaxcnn.analysis.spans import INF, Spans, image_spans, propagate
from jaxcnn.analysis.trace import Size, trace


@dataclasses.dataclass(frozen=True)
class ReceptiveField:
    """Receptive field of a feature map; all attributes are (vertical, horizontal), in pixels.

    Attributes:
      size: extent of a unit's receptive field, including padding; inf for the whole image.
      stride: distance between the fields of adjacent units.
      center: of the first unit's field; 0 is the middle of the image's first pixel.
    """

    size: tuple[float, float]
    stride: tuple[int, int]
    center: tuple[float, float]

    def __str__(self) -> str:
        if INF in self.size:
            return "all"
        (high, wide), strides = (tuple(map(int, self.size)), self.stride)
        text = f"{high}" if high == wide else f"{high}x{wide}"
        stride = f"{strides[0]}" if strides[0] == strides[1] else f"{strides[0]}x{strides[1]}"
        return text if stride == "1" else f"{text}/{stride}"


def receptive_fields(
    model: nn.Module | str, input_size: Size = None, **options: Any
) -> dict[str, ReceptiveField]:
    """Computes the receptive field of every endpoint that is a feature map.

    Args:
      model: id or alias, or a network of this package.
      input_size: height and width of the image in pixels; by default the network's own. It matters
        only where the network pools over the whole image.
      **options: for `create_model`, if the model is a name.

    Returns:
      {endpoint: receptive field}, in order of computation.

    Raises:
      ValueError: see `jaxcnn.summarize`.

      >>> fields = receptive_fields("vgg16")
      >>> print(fields["stage5"])  # 7 x 7 units after the last pool
      212/32
    """
    traced = trace(model, input_size, options, endpoints=True)
    jaxpr = traced.jaxpr
    position = {var: i for i, eqn in enumerate(jaxpr.eqns) for var in eqn.outvars}
    spans = propagate(jaxpr, [None] * (len(jaxpr.invars) - 1) + [image_spans()])
    found = [item for item in zip(traced.outputs, jaxpr.outvars, spans) if item[0] != "logits"]
    ordered = sorted(found, key=lambda item: position[item[1]])
    fields = {name: field(one) for name, var, one in ordered if len(var.aval.shape) == 4}
    return {name: seen for name, seen in fields.items() if seen is not None}


def field(spans: Spans) -> ReceptiveField | None:
    """Computes the receptive field of an array.

    Args:
      spans: what the array depends on, see `jaxcnn.analysis.spans`.

    Returns:
      The receptive field; None if the array depends on no pixel.
    """
    if spans is None:
        return None
    size = tuple(span.last - span.first + 1 for span in spans)
    center = tuple(0.0 if INF in size else (span.first + span.last) / 2 for span in spans)
    return ReceptiveField(size, tuple(span.stride for span in spans), center)  # type: ignore[arg-type]
