"""XLA's own convolution, and that of several networks at once on a GPU."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import custom_vmap

Pairs = tuple[tuple[int, int], tuple[int, int]]
Form = Callable[[Array, Array], Array]

_GPU_BLOCK = 64  # channels that groups side by side may have as one on a GPU


def native_conv(
    x: Array, w: Array, padding: Pairs, stride: tuple[int, int] = (1, 1), groups: int = 1
) -> Array:
    """XLA's own convolution, [N,H,W,C] by [kh,kw,C/groups,F].

    On a GPU, which the backend says while it is traced, images and kernels that are both under
    `jax.vmap` are convolved in `merged_conv`; that one is reverse-mode only.
    """
    if groups == 1 and jax.default_backend() == "gpu":
        return of_members(tuple(map(tuple, padding)), tuple(stride))(x, w)
    return _conv(x, w, padding, stride, groups)


def _conv(x: Array, w: Array, padding: Pairs, stride: tuple[int, int], groups: int = 1) -> Array:
    return lax.conv_general_dilated(
        x, w, stride, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )  # fmt: skip


def gradients_of(form: Form) -> Callable[[Array, Array, Array], tuple[Array, Array]]:
    """(x, w, g) to the gradients of x and w."""
    return lambda x, w, g: jax.vjp(form, x, w)[1](g)


# --- groups -------------------------------------------------------------------------------------


def blocked(w: Array, groups: int, most: int) -> tuple[Array, int]:
    """The kernel with several groups as one, zeros between, up to `most` channels; groups left."""
    kh, kw, channels, features = w.shape
    m = max(m for m in range(1, groups + 1)
            if groups % m == 0 and (m == 1 or m * channels <= most))  # fmt: skip
    blocks = groups // m
    apart = w.reshape(kh, kw, 1, channels, blocks, m, features // groups)
    own = jnp.eye(m, dtype=bool).reshape(m, 1, 1, m, 1)
    return jnp.where(own, apart, 0).reshape(kh, kw, m * channels, features), blocks


def merged_conv(x: Array, w: Array, padding: Pairs, stride: tuple[int, int], groups: int) -> Array:
    """A grouped convolution as one of fewer, wider groups, with zeros: a GPU's form."""
    w, blocks = blocked(w, groups, _GPU_BLOCK)
    return _conv(x, w, padding, stride, blocks)


# --- several networks ---------------------------------------------------------------------------


@functools.cache
def of_members(padding: Pairs, stride: tuple[int, int]) -> Form:
    """`native_conv`, whose `vmap` is `members_conv`, and so are its gradients'."""
    one = functools.partial(_conv, padding=padding, stride=stride)
    many = functools.partial(members_conv, padding=padding, stride=stride)
    conv = jax.custom_vjp(_with_vmap(one, many))
    gradients = _with_vmap(gradients_of(one), gradients_of(many))
    conv.defvjp(lambda x, w: (conv(x, w), (x, w)), lambda kept, g: gradients(*kept, g))
    return conv


def _with_vmap(one: Callable, many: Callable) -> Callable:
    """`one`, which becomes `many` under a vmap of all its arguments."""
    function = custom_vmap(one)

    @function.def_vmap
    def rule(_, batched, *args):
        mapped = many if all(batched) else jax.vmap(one, [0 if b else None for b in batched])
        made = mapped(*args)
        return made, jax.tree.map(lambda _: True, made)

    return function


def members_conv(x: Array, w: Array, padding: Pairs, stride: tuple[int, int]) -> Array:
    """[M,N,H,W,C] by [M,kh,kw,C,F]: each network is a group."""

    def side_by_side(a: Array) -> Array:
        """The networks' channels: [M,...,C] to [...,M*C]; of a kernel, those that come out."""
        return jnp.moveaxis(a, 0, -2).reshape(*a.shape[1:-1], -1)

    y = merged_conv(side_by_side(x), side_by_side(w), padding, stride, len(x))
    return jnp.moveaxis(y.reshape(*y.shape[:3], len(x), -1), -2, 0)
