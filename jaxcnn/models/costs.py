"""Parameters, multiply-adds and depth of a computation, from its trace alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax.extend.core import Literal


def count_params(tree: Any) -> int:
    """Counts the scalars in a tree.

    Args:
      tree: of arrays or of `jax.ShapeDtypeStruct`s.
    """
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def count_macs(function: Callable[..., Any], *args: Any) -> int:
    """Counts the multiply-adds of the convolutions and matrix products in `function(*args)`.

    The function is traced, not run. Of the branches of `lax.platform_dependent` only the default is
    counted.

    Args:
      function: to be traced.
      *args: its arguments: arrays or `jax.ShapeDtypeStruct`s.
    """
    return jaxpr_macs(jax.make_jaxpr(function)(*args).jaxpr)


def jaxpr_macs(jaxpr: Any) -> int:
    """Counts the multiply-adds of a jaxpr, including those of inner jaxprs."""
    total = 0
    for eqn in jaxpr.eqns:
        inner = [jaxpr_macs(sub) for sub in sub_jaxprs(eqn)]
        if eqn.primitive.name == "cond":
            total += inner[-1]  # the default comes last
        elif eqn.primitive.name == "scan":
            total += eqn.params["length"] * sum(inner)
        else:
            total += sum(inner) + equation_macs(eqn)
    return total


def jaxpr_depth(jaxpr: Any, depths: Sequence[int | None]) -> list[int | None]:
    """Counts the convolutions and matrix products on the longest path to each output of a jaxpr.

    A product of two activations has the depth of the less deep one, so that the gates of
    squeeze-and-excitation do not count.

    Args:
      jaxpr: of a network, traced with plain operations (`jaxcnn.ops.use("reference")`).
      depths: of each input; 0 for the images and None for inputs that do not depend on them.

    Returns:
      The depth of each output, None if it does not depend on the images.
    """
    known = dict(zip(jaxpr.invars, depths))

    def look_up(variables: Sequence[Any]) -> list[int | None]:
        return [None if isinstance(v, Literal) else known.get(v) for v in variables]

    for eqn in jaxpr.eqns:
        inputs = look_up(eqn.invars)
        inner = list(sub_jaxprs(eqn))
        if eqn.primitive.name == "cond":
            inner, inputs = inner[-1:], inputs[1:]  # the default comes last
        found = [depth for depth in inputs if depth is not None]
        if inner and len(inner[0].invars) == len(inputs):
            outputs = jaxpr_depth(inner[0], inputs)
        elif found:
            depth = min(found) if eqn.primitive.name == "mul" else max(found)
            outputs = [depth + (equation_macs(eqn) > 0)] * len(eqn.outvars)
        else:
            continue
        known.update(zip(eqn.outvars, outputs))
    return look_up(jaxpr.outvars)


def equation_macs(eqn: Any) -> int:
    """Counts the multiply-adds of an equation of a jaxpr: a convolution or a matrix product.

    Returns 0 for other operations.
    """
    if eqn.primitive.name in ("conv", "conv_images_gradient", "conv_kernel_gradient"):
        return _conv_macs(eqn)
    if eqn.primitive.name == "conv_general_dilated":
        kernel = eqn.invars[1].aval.shape
        out_axis = eqn.params["dimension_numbers"].rhs_spec[0]
        return math.prod(eqn.outvars[0].aval.shape) * math.prod(kernel) // kernel[out_axis]
    if eqn.primitive.name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        lhs = eqn.invars[0].aval.shape
        return math.prod(eqn.outvars[0].aval.shape) * math.prod(lhs[i] for i in contracted)
    return 0


def _conv_macs(eqn: Any) -> int:
    """Multiply-adds of `jaxcnn.ops.conv` or one of its gradients."""
    first, second = (var.aval.shape for var in eqn.invars)
    out = eqn.outvars[0].aval.shape
    if eqn.primitive.name == "conv_kernel_gradient":
        return math.prod(second) * math.prod(out[:3])
    pixels = out if eqn.primitive.name == "conv" else first
    return math.prod(pixels) * math.prod(second[:3])


def sub_jaxprs(eqn: Any) -> Iterator[Any]:
    """Yields the jaxprs in an equation's parameters, such as those of jit or `jax.checkpoint`."""
    for value in eqn.params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if hasattr(item, "eqns"):
                yield item
            elif hasattr(getattr(item, "jaxpr", None), "eqns"):
                yield item.jaxpr
