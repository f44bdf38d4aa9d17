"""Counts of a traced computation: parameters and multiply-adds, without computing anything."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax


def count_params(tree: Any) -> int:
    """Number of scalars in a tree of arrays or shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def count_macs(function: Callable, *args: Any) -> int:
    """Multiply-adds of the convolutions and matrix products in `function(*args)`.

    Traced, not run: arguments may be `jax.ShapeDtypeStruct`s. A choice by platform
    (`lax.platform_dependent`) counts as its default.
    """
    return jaxpr_macs(jax.make_jaxpr(function)(*args).jaxpr)


def jaxpr_macs(jaxpr) -> int:
    """Multiply-adds of a jaxpr and of the jaxprs in it."""
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


def equation_macs(eqn) -> int:
    """Multiply-adds of one equation of a jaxpr; 0 unless it is a convolution or a product."""
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


def _conv_macs(eqn) -> int:
    """Multiply-adds of `jaxcnn.ops.conv` or one of its gradients."""
    first, second = (var.aval.shape for var in eqn.invars)
    out = eqn.outvars[0].aval.shape
    if eqn.primitive.name == "conv_kernel_gradient":
        return math.prod(second) * math.prod(out[:3])
    pixels = out if eqn.primitive.name == "conv" else first
    return math.prod(pixels) * math.prod(second[:3])


def sub_jaxprs(eqn) -> Iterator[Any]:
    """The jaxprs inside an equation: of a jit, a custom derivative, a rematerialised block, ..."""
    for value in eqn.params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if hasattr(item, "eqns"):
                yield item
            elif hasattr(getattr(item, "jaxpr", None), "eqns"):
                yield item.jaxpr
