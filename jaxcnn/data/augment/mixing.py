"""Mixing pairs of examples on the device: mixup and CutMix.

Neighboring slots of the batch form pairs: 0 and 1, 2 and 3, and so on. The pairs are as random as
the order of the batch and do not depend on how the batch is sharded over devices. Everything else
depends on the key of the example alone.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array


def mix(
    keys: Array,
    images: Array,
    labels: Array,
    num_classes: int,
    *,
    mixup: float = 0.0,
    cutmix: float = 0.0,
) -> tuple[Array, Array]:
    """Mixes each example with its partner.

    Args:
      keys: random keys of the examples, [N].
      images: f32[N,H,W,C].
      labels: i32[N].
      num_classes: number of classes K.
      mixup: parameter a of mixup (Zhang et al. 2018, arXiv 1710.09412), or 0 to disable it. Images
        and targets are averaged with a weight drawn from Beta(a, a).
      cutmix: parameter a of CutMix (Yun et al. 2019, arXiv 1905.04899), or 0 to disable it. A
        rectangle of the image is replaced by that of the partner. The fraction of the area that
        remains is drawn from Beta(a, a), before the rectangle is clipped at the border, and the
        targets are averaged in proportion to the areas. If both are enabled, one of them is applied
        to each example, with equal probability.

    Returns:
      Mixed images f32[N,H,W,C] and soft targets f32[N,K].

    Raises:
      ValueError: N is odd, or `mixup` or `cutmix` is negative.
    """
    if min(mixup, cutmix) < 0:
        raise ValueError(f"mixup and cutmix are {mixup} and {cutmix}; they must be 0 or more")
    targets = jax.nn.one_hot(labels, num_classes)
    if not mixup and not cutmix:
        return images, targets
    if len(images) % 2:
        raise ValueError(
            f"{len(images)} examples cannot be mixed in pairs; the number must be even"
        )

    def one(key, image, other, target, other_target):
        choice_key, key = jax.random.split(key)
        candidates = []
        if mixup:
            weight = jax.random.beta(key, mixup, mixup)
            candidates.append((weight * image + (1 - weight) * other, weight))
        if cutmix:
            candidates.append(_cut(key, image, other, jax.random.beta(key, cutmix, cutmix)))
        mixed, weight = candidates[0]
        if len(candidates) == 2:
            use_second = jax.random.bernoulli(choice_key)
            mixed, weight = jax.tree.map(lambda a, b: jnp.where(use_second, b, a), *candidates)
        return mixed, weight * target + (1 - weight) * other_target

    return jax.vmap(one)(keys, images, _partner(images), targets, _partner(targets))


def _partner(x: Array) -> Array:
    """Swaps the elements of each pair."""
    return x.reshape(-1, 2, *x.shape[1:])[:, ::-1].reshape(x.shape)


def _cut(key: Array, image: Array, other: Array, fraction: Array) -> tuple[Array, Array]:
    """Pastes a rectangle of `other` into `image`. Returns the result and the fraction left."""
    height, width, _ = image.shape
    extent = jnp.sqrt(1 - fraction) * jnp.array([height, width])
    center = jax.random.uniform(jax.random.fold_in(key, 1), (2,)) * jnp.array([height, width])
    start, stop = (jnp.round(center + sign * extent / 2) for sign in (-1, 1))
    y, x = jnp.mgrid[:height, :width]
    inside = (y >= start[0]) & (y < stop[0]) & (x >= start[1]) & (x < stop[1])
    return jnp.where(inside[..., None], other, image), 1 - inside.mean()
