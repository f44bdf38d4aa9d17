"""Operations with one implementation per platform, and the switch that disables them.

The implementation of an operation is chosen when a program is lowered for a platform: operations
are JAX primitives or use `lax.platform_dependent`. A program that is compiled ahead of time for a
TPU therefore contains TPU implementations, whatever machine compiles it. Every operation has a
plain implementation in `jaxcnn.ops.reference`, which defines its shape, values and derivatives.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxcnn._checks import one_of

MODES = ("platform", "reference")
GPUS = ("cuda", "rocm")

Function = Callable[..., Any]

_mode = jax.make_user_context(default_value=None)  # part of the key of JAX's caches


@contextlib.contextmanager
def use(mode: str) -> Iterator[None]:
    """Selects the implementations of everything traced inside the `with` statement.

    `"reference"` computes every operation, BatchNorm included, with plain `lax` and Flax;
    `"platform"` is the default. The environment variable `JAXCNN_OPS` sets the mode of a whole
    process. The mode is read when a function is traced, and a function that was compiled in one
    mode is traced again in the other.

    Args:
      mode: "platform" or "reference".

    Raises:
      ValueError: `mode` is neither.
    """
    with _mode(one_of("the mode of jaxcnn.ops", mode, MODES)):
        yield


def reference_requested(*args: Any) -> bool:
    """Returns whether operations are traced with their plain implementations.

    So are those on arrays that are sharded over explicit mesh axes, whatever the mode: the other
    implementations reshape and slice the batch, which JAX rejects there.

    Args:
      *args: the arrays, or trees of them.

    Raises:
      ValueError: `JAXCNN_OPS` is not a mode.
    """
    mode, named = _mode.value, os.environ.get("JAXCNN_OPS")
    if not mode and named:
        mode = one_of("JAXCNN_OPS", named, MODES)
    return mode == "reference" or any(map(_is_explicitly_sharded, jax.tree.leaves(args)))


def _is_explicitly_sharded(a: Any) -> bool:
    return any(axis is not None for axis in jax.typeof(a).sharding.spec)


def by_platform(
    plain: Function, *args: Any, cpu: Function | None = None, gpu: Function | None = None
) -> Any:
    """Computes `plain(*args)`, or uses `cpu` or `gpu` when lowered for such a platform.

    Each implementation is differentiated separately.

    Args:
      plain: the implementation for all other platforms.
      *args: arrays.
      cpu: the implementation for CPUs, if there is one.
      gpu: the implementation for GPUs, if there is one.
    """
    if reference_requested(*args) or (cpu is None and gpu is None):
        return plain(*args)
    on_cpu = {} if cpu is None else {"cpu": cpu}
    return lax.platform_dependent(*args, **on_cpu, **on_gpus(gpu), default=plain)


def on_gpus(implementation: Function | None) -> dict[str, Function]:
    """Maps the names of both GPU platforms to an implementation; {} for None."""
    return {} if implementation is None else dict.fromkeys(GPUS, implementation)


def new_primitive(
    name: str,
    plain: Function,
    *,
    cpu: Function | None = None,
    gpu: Function | None = None,
    several: bool = False,
) -> Primitive:
    """Creates a primitive that computes `plain(*arrays, **params)`.

    The primitive can be evaluated, compiled and exported. The caller must add derivatives and a
    batching rule.

    Args:
      name: name in a jaxpr.
      plain: the implementation that defines shapes and dtypes, and is used on all other platforms.
        `params` must be hashable.
      cpu: the implementation for CPUs, if there is one.
      gpu: the implementation for GPUs, if there is one.
      several: whether the implementations return a tuple of arrays instead of one array.
    """
    primitive = Primitive(name)
    primitive.multiple_results = several

    @functools.partial(jax.jit, static_argnames="params")
    def compiled(*args, params):
        return primitive.bind(*args, **dict(params))

    def evaluate(*args, **params):
        with jax.disable_jit(False):  # as JAX evaluates its own primitives
            return compiled(*args, params=tuple(params.items()))

    def abstract(*avals, **params):
        out = jax.make_jaxpr(functools.partial(plain, **params))(*avals).out_avals
        return out if several else out[0]

    primitive.def_impl(evaluate)
    primitive.def_abstract_eval(abstract)
    mlir.register_lowering(primitive, mlir.lower_fun(plain, multiple_results=several))
    by_name = {**({} if cpu is None else {"cpu": cpu}), **on_gpus(gpu)}
    for platform, implementation in by_name.items():
        lowering = mlir.lower_fun(implementation, multiple_results=several)
        mlir.register_lowering(primitive, lowering, platform=platform)
    return primitive


def linear_pair(
    name: str,
    forward: Function,
    backward: Function,
    *,
    counts: tuple[int, int],
    cpu: Function | None = None,
    gpu: Function | None = None,
) -> Function:
    """Creates a function that is linear in its first arguments, with a given transpose.

    `forward(*t, *residuals, **params)` and `backward(*cotangents, *residuals, **params)` are each
    other's transposes in the linear arguments; both return tuples. The result has derivatives of
    every order: in the linear arguments by itself and by its transpose, in the residuals by the
    plain implementations.

    Args:
      name: name in a jaxpr; that of the transpose ends in "_transpose".
      forward: the plain implementation.
      backward: the plain implementation of the transpose. Returns a cotangent for each linear
        argument.
      counts: number of linear arguments, and of arrays that `forward` returns.
      cpu: the implementation of the transpose for CPUs, if there is one.
      gpu: the implementation of the transpose for GPUs, if there is one.

    Returns:
      `function(*t, *residuals, **params)`, which returns a tuple.
    """
    ahead = new_primitive(name, _mapped(forward), several=True)
    back = new_primitive(
        f"{name}_transpose", _mapped(backward), several=True,
        cpu=cpu and _mapped(cpu), gpu=gpu and _mapped(gpu),
    )  # fmt: skip
    _differentiate(ahead, back, forward, counts[0])
    _differentiate(back, ahead, backward, counts[1])

    def function(*args, **params):
        return tuple(ahead.bind(*args, mapped=(), **params))

    return function


def _mapped(function: Function) -> Function:
    """Applies a `vmap` for each entry of `mapped`, which are axes of arguments, innermost first."""

    def call(*args, mapped: Sequence[tuple[int | None, ...]], **params):
        one = functools.partial(function, **params)
        for axes in mapped:
            one = jax.vmap(one, in_axes=axes)
        return one(*args)

    return call


def _differentiate(primitive: Primitive, partner: Primitive, plain: Function, linear: int) -> None:
    """Adds the derivatives and the batching rule of one half of a `linear_pair`."""
    call = _mapped(plain)

    def jvp(primals, tangents, /, **params):
        out = primitive.bind(*primals, **params)
        t = [_dense(dot, of) for dot, of in zip(tangents[:linear], primals)]
        dots = primitive.bind(*t, *primals[linear:], **params)
        moving = [i for i in range(linear, len(primals)) if not _is_zero(tangents[i])]
        if moving:

            def of_residuals(*values):
                args = list(primals)
                for i, value in zip(moving, values):
                    args[i] = value
                return call(*args, **params)

            at, along = ([values[i] for i in moving] for values in (primals, tangents))
            more = jax.jvp(of_residuals, at, along)[1]
            dots = [a + b for a, b in zip(dots, more, strict=True)]
        return out, list(dots)

    def transpose(cotangents, /, *args, **params):
        cotangents = [_dense(ct, ct.aval if _is_zero(ct) else ct) for ct in cotangents]
        results = partner.bind(*cotangents, *args[linear:], **params)
        wanted = [r if ad.is_undefined_primal(a) else None for r, a in zip(results, args)]
        return [*wanted, *[None] * (len(args) - linear)]

    def batch(args, dims, /, *, mapped, **params):
        size = next(a.shape[axis] for a, axis in zip(args, dims) if axis is not None)
        args = [
            in_front(a, axis, size if i < linear else None)
            for i, (a, axis) in enumerate(zip(args, dims))
        ]
        front = tuple(None if i >= linear and axis is None else 0 for i, axis in enumerate(dims))
        out = primitive.bind(*args, mapped=(*mapped, front), **params)
        return out, [0] * len(out)

    ad.primitive_jvps[primitive] = jvp
    ad.primitive_transposes[primitive] = transpose
    batching.primitive_batchers[primitive] = batch


def _is_zero(tangent: Any) -> bool:
    return isinstance(tangent, ad.Zero) or tangent.dtype == jax.dtypes.float0


def _dense(tangent: Any, like: Any) -> Any:
    """Converts a symbolic zero to an array of zeros."""
    return jnp.zeros(like.shape, like.dtype) if _is_zero(tangent) else tangent


def in_front(a: Any, axis: int | None, size: int | None = None) -> Any:
    """Moves the mapped axis to the front.

    Args:
      a: an array.
      axis: the mapped axis, or `None`.
      size: length of the mapped axis, to broadcast an array that is not mapped; if None, such an
        array is returned unchanged.
    """
    if axis is not None:
        return jnp.moveaxis(a, axis, 0)
    return a if size is None else jnp.broadcast_to(a, (size, *a.shape))
