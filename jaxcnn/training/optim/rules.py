"""The update rule of each optimizer, as a list of optax transforms that follow gradient clipping.

A rule receives the weight decay (an empty list, or a list of one transform that adds it), the
multiplication by minus the learning rate, and the fields of the optimizer with defaults in `RULES`.

  sgd: adds decay to the gradient, then momentum, then the rate, as PyTorch does. The papers and
    Caffe apply the rate before the momentum, which differs for some steps after the rate changes.
  rmsprop: the variant of TensorFlow and Szegedy et al. 2016 (arXiv 1512.00567): the mean square is
    initialized with 1, `eps` is inside the root, and the rate is applied before the momentum.
  adam: Kingma & Ba 2015; adds decay to the gradient.
  adamw: Loshchilov & Hutter 2019; adds decay to the update.
  lars: You et al. 2017 (arXiv 1708.03888): scales the gradient, with decay added, to `trust` times
    the norm of the parameter; then the rate, then momentum.
  lamb: You et al. 2020 (arXiv 1904.00962): scales the update of Adam, with decay added, to the norm
    of the parameter.
  lion: Chen et al. 2023 (arXiv 2302.06675); adds decay to the update.
  muon: orthogonalizes the momentum of kernels, as matrices [all inputs, outputs] (Jordan et al.
    2024), and scales it by 0.2 sqrt(longer side), so that learning rates and decays of AdamW apply
    (Liu et al. 2025, arXiv 2502.16982). AdamW updates all other parameters.

LARS and LAMB scale only parameters with several axes, not biases or BatchNorm parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

Transform: TypeAlias = optax.GradientTransformation
Decay: TypeAlias = list[Transform]


def _sgd(decay: Decay, rate: Transform, *, momentum: float, nesterov: bool) -> Decay:
    return [*decay, *_momentum(momentum, nesterov), rate]


def _rmsprop(decay: Decay, rate: Transform, *, rho: float, eps: float, momentum: float) -> Decay:
    mean_square = optax.scale_by_rms(rho, eps, initial_scale=1.0, eps_in_sqrt=True)
    return [*decay, mean_square, rate, *_momentum(momentum, False)]


def _adam(decay: Decay, rate: Transform, *, b1: float, b2: float, eps: float) -> Decay:
    return [*decay, optax.scale_by_adam(b1, b2, eps), rate]


def _adamw(decay: Decay, rate: Transform, *, b1: float, b2: float, eps: float) -> Decay:
    return [optax.scale_by_adam(b1, b2, eps), *decay, rate]


def _lars(decay: Decay, rate: Transform, *, trust: float, momentum: float, nesterov: bool) -> Decay:
    ratio = optax.scale_by_trust_ratio(trust_coefficient=trust)
    return [*decay, optax.masked(ratio, _several_axes), rate, *_momentum(momentum, nesterov)]


def _lamb(decay: Decay, rate: Transform, *, b1: float, b2: float, eps: float) -> Decay:
    ratio = optax.masked(optax.scale_by_trust_ratio(), _several_axes)
    return [optax.scale_by_adam(b1, b2, eps), *decay, ratio, rate]


def _lion(decay: Decay, rate: Transform, *, b1: float, b2: float) -> Decay:
    return [optax.scale_by_lion(b1, b2), *decay, rate]


def _muon(
    decay: Decay, rate: Transform, *, momentum: float, b1: float, b2: float, eps: float
) -> Decay:
    orthogonal = optax.chain(
        optax.trace(momentum, nesterov=True),
        optax.stateless(lambda updates, _: jax.tree.map(_orthogonal, updates)),
    )
    adam = optax.masked(optax.scale_by_adam(b1, b2, eps), _one_axis)
    return [optax.masked(orthogonal, _several_axes), adam, *decay, rate]


_ADAM = {"b1": 0.9, "b2": 0.999, "eps": 1e-8}
# {name: (rule, defaults of its fields)}.
RULES: dict[str, tuple[Callable[..., Decay], dict[str, Any]]] = {
    "sgd": (_sgd, {"momentum": 0.9, "nesterov": False}),
    "rmsprop": (_rmsprop, {"rho": 0.9, "eps": 1.0, "momentum": 0.9}),
    "adam": (_adam, _ADAM),
    "adamw": (_adamw, _ADAM),
    "lars": (_lars, {"trust": 0.001, "momentum": 0.9, "nesterov": False}),
    "lamb": (_lamb, _ADAM | {"eps": 1e-6}),
    "lion": (_lion, {"b1": 0.9, "b2": 0.99}),
    "muon": (_muon, {"momentum": 0.95} | _ADAM),
}


def _momentum(momentum: float, nesterov: bool) -> Decay:
    return [optax.trace(momentum, nesterov=nesterov)] if momentum else []


def _several_axes(params: Any) -> Any:
    return jax.tree.map(lambda p: p.ndim > 1, params)


def _one_axis(params: Any) -> Any:
    return jax.tree.map(lambda p: p.ndim <= 1, params)


def _orthogonal(update: jax.Array) -> jax.Array:
    """Approximates the nearest orthogonal matrix, scaled, with the constants of Jordan et al."""
    # optax.contrib supports only trees of matrices, and differs between versions.
    x = update.reshape(-1, update.shape[-1])
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x /= jnp.linalg.norm(x) + 1e-8
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    x = x.T if tall else x
    return 0.2 * math.sqrt(max(x.shape)) * x.reshape(update.shape)
