"""How a convolution takes another form on one platform than on another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax import Array, lax

from jaxcnn.native_conv import Form, gradients_of


def on_gpu(form: Callable | None) -> dict[str, Callable]:
    """What `lax.platform_dependent` takes for a GPU of either maker; {} for None."""
    return {} if form is None else {"cuda": form, "rocm": form}


def by_platform(
    name: str,
    native: Form,
    forward: Form,
    gradients: Callable[[Array, Array, Array], Any],
    gpu: Form | None = None,
) -> Form:
    """`native(x, w)`, with `forward(x, w)` and `gradients(x, w, g)` in its place on a CPU.

    `gpu` is a GPU's form, the native one without it. The form is picked while a program is lowered:
    it holds that of its platform only. `name` is what a jaxpr shows. Reverse-mode only.
    """

    def primal(x, w):
        return lax.platform_dependent(x, w, cpu=forward, **on_gpu(gpu), default=native)

    primal.__name__ = name
    conv = jax.custom_vjp(primal)

    def backward(residuals, g):
        forms = on_gpu(gpu and gradients_of(gpu))
        default = gradients_of(native)
        return lax.platform_dependent(*residuals, g, cpu=gradients, **forms, default=default)

    conv.defvjp(lambda x, w: (primal(x, w), (x, w)), backward)
    return conv
