"""Explains predictions: Grad-CAM, deconvnet and guided backpropagation, strongest activations.

The functions are pure and work on any network with endpoints, in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn import ops
from jaxcnn._checks import near, one_of
from jaxcnn.analysis.receptive_field import ReceptiveField
from jaxcnn.analysis.rewiring import RULES, evaluate
from jaxcnn.analysis.spans import INF

Array = jax.Array
LOGITS = "logits"


class _TracedNetwork(NamedTuple):
    """A network traced for a batch; its outputs are the endpoints and "logits", by name."""

    closed: Any
    outputs: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]]
    leaves: list[Array]

    def run(self, images: Array, relu: Any = None, added: Any = None) -> dict[str, Array]:
        args = [*self.leaves, images]
        values = evaluate(self.closed.jaxpr, self.closed.consts, args, relu=relu, added=added)
        return dict(zip(self.outputs, values))

    def var(self, name: str) -> Any:
        return self.closed.jaxpr.outvars[self.outputs.index(name)]

    def check(self, name: str, dims: int | None = None) -> None:
        known = [n for n in self.outputs if dims in (None, len(self.shapes[n]))]
        if name not in known:
            raise ValueError(
                f"the network has no endpoint {name!r}{near(name, known)}; its endpoints are "
                f"{', '.join(known) or 'none'}"
            )


def _trace(model: nn.Module, variables: Mapping[str, Any], images: Array) -> _TracedNetwork:
    def run(variables: Any, images: Any) -> dict[str, Any]:
        logits, state = model.apply(variables, images, train=False, mutable=["endpoints"])
        return {LOGITS: logits, **state.get("endpoints", {})}

    variables = {name: held for name, held in variables.items() if name != "endpoints"}
    with ops.use("reference"):  # plain operations only, each ReLU by itself
        closed, outputs = jax.make_jaxpr(run, return_shape=True)(variables, images)
    shapes = {name: outputs[name].shape for name in sorted(outputs)}
    return _TracedNetwork(closed, tuple(shapes), shapes, jax.tree.leaves(variables))


def grad_cam(
    model: nn.Module,
    variables: Mapping[str, Any],
    images: Array,
    endpoint: str,
    classes: Array | Sequence[int],
) -> Array:
    """Computes Grad-CAM maps (Selvaraju et al. 2017, equations 1 and 2).

    A map is the sum of the feature maps, each weighted by the mean gradient of the class's logit
    with respect to it, and clipped at 0.

    Args:
      model: the network.
      variables: its variables.
      images: f32[N,H,W,C].
      endpoint: name of feature maps f32[N,h,w,K], such as "stage4".
      classes: i32[N], the class to explain for each image.

    Returns:
      f32[N,h,w], at least 0.

    Raises:
      ValueError: the network has no feature maps of that name.
    """
    network = _trace(model, variables, images)
    network.check(endpoint, 4)
    place = network.var(endpoint)
    classes = jnp.asarray(classes)

    def score(added: Array) -> tuple[Array, Array]:
        outputs = network.run(images, added={place: added})
        return jnp.take_along_axis(outputs[LOGITS], classes[:, None], 1).sum(), outputs[endpoint]

    nothing = jnp.zeros(network.shapes[endpoint], place.aval.dtype)
    gradient, maps = jax.grad(score, has_aux=True)(nothing)
    weights = gradient.astype(jnp.float32).mean((1, 2), keepdims=True)
    return jnp.maximum((weights * maps).sum(-1), 0)


def backward_view(
    model: nn.Module,
    variables: Mapping[str, Any],
    images: Array,
    seeds: Mapping[str, Array],
    rule: str = "guided",
) -> Array:
    """Propagates a signal from activations of the network back to the pixels.

    Max pooling passes the signal to the position of the maximum, and a convolution applies its
    transposed kernel. A ReLU passes the positive part of the signal ("deconvnet", Zeiler & Fergus
    2013), the signal at positive activations ("gradient"), or the positive part at positive
    activations ("guided", Springenberg et al. 2014).

    Args:
      model: the network.
      variables: its variables.
      images: f32[N,H,W,C].
      seeds: {endpoint or "logits": signal with the shape of the activation}. A signal that is 1 at
        one unit and 0 elsewhere shows what that unit responds to.
      rule: "gradient", "deconvnet" or "guided".

    Returns:
      f32[N,H,W,C].

    Raises:
      ValueError: the rule or an endpoint is unknown.
    """
    one_of("rule", rule, RULES)
    network = _trace(model, variables, images)
    for name in seeds:
        network.check(name)

    def signal(images: Array) -> Array:
        outputs = network.run(images, relu=RULES[rule])
        return sum((jnp.vdot(outputs[name], seed) for name, seed in seeds.items()), jnp.zeros(()))

    return jax.grad(signal)(images)


def peaks(maps: Array) -> tuple[Array, Array, Array]:
    """Finds the strongest activation of each channel.

    Args:
      maps: f32[N,h,w,K].

    Returns:
      (value, row, column), each [N,K].
    """
    n, _, w, k = maps.shape
    flat = maps.reshape(n, -1, k)
    where = jnp.argmax(flat, 1)
    return flat.max(1), where // w, where % w


def strongest(values: np.ndarray, channels: int, images: int) -> list[tuple[int, list[int]]]:
    """Selects the channels with the strongest activations, and the images that cause them.

    Args:
      values: f32[N,K], the strongest activation of each channel in each image.
      channels: maximum number of channels.
      images: maximum number of images per channel.

    Returns:
      [(channel, [image, ...])], strongest first.
    """
    chosen = np.argsort(-values.max(0), kind="stable")[:channels]
    order = np.argsort(-values, 0, kind="stable")[:images]
    return [(int(k), [int(i) for i in order[:, k]]) for k in chosen]


def patch_box(
    seen: ReceptiveField, row: int, column: int, size: Sequence[int]
) -> tuple[int, int, int, int]:
    """Computes the pixels that a unit of a feature map sees.

    Args:
      seen: receptive field of the feature map.
      row: of the unit.
      column: of the unit.
      size: (height, width) of the image.

    Returns:
      (top, bottom, left, right) within the image; bottom and right are exclusive, as in a slice.
    """
    bounds: list[int] = []
    for axis, index in enumerate((row, column)):
        first, last = 0, size[axis] - 1
        if seen.size[axis] != INF:
            middle = seen.center[axis] + seen.stride[axis] * index
            half = (seen.size[axis] - 1) / 2
            first, last = max(first, round(middle - half)), min(last, round(middle + half))
        bounds += [first, last + 1]
    top, bottom, left, right = bounds
    return top, bottom, left, right
