"""Mixing pairs of examples, on the device: mixup and CutMix.

An example's partner is its neighbor, slots 0 and 1, 2 and 3, and so on, which is as random as the
order of the batch and does not depend on how the batch is split among devices. All else follows
from the example's own key.
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
    """Mixed images f32[N,H,W,C] and soft targets f32[N,num_classes].

    Args:
      keys: one per example, [N].
      images: f32[N,H,W,C].
      labels: i32[N].
      num_classes: K.
      mixup: a of mixup's Beta(a, a) (Zhang et al. 2018, arXiv 1710.09412): images and targets are
        averaged with shares drawn from it. 0 for none.
      cutmix: a of CutMix's Beta(a, a) (Yun et al. 2019, arXiv 1905.04899): a rectangle of the drawn
        share of the area comes from the partner, and with it that share of the target. 0 for none.
        With both, each example has one of them, with equal probability.

    Raises:
      ValueError: N is odd, or a number is negative.
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
        which, key = jax.random.split(key)
        found = []
        if mixup:
            share = jax.random.beta(key, mixup, mixup)
            found.append((share * image + (1 - share) * other, share))
        if cutmix:
            found.append(_cut(key, image, other, jax.random.beta(key, cutmix, cutmix)))
        picked, share = found[0]
        if len(found) == 2:
            use_second = jax.random.bernoulli(which)
            picked, share = jax.tree.map(lambda a, b: jnp.where(use_second, b, a), *found)
        return picked, share * target + (1 - share) * other_target

    return jax.vmap(one)(keys, images, _neighbor(images), targets, _neighbor(targets))


def _neighbor(x: Array) -> Array:
    return x.reshape(-1, 2, *x.shape[1:])[:, ::-1].reshape(x.shape)


def _cut(key: Array, image: Array, other: Array, share: Array) -> tuple[Array, Array]:
    """The image with a rectangle of the other, and the share of its own pixels that are left."""
    height, width, _ = image.shape
    extent = jnp.sqrt(1 - share) * jnp.array([height, width])
    center = jax.random.uniform(jax.random.fold_in(key, 1), (2,)) * jnp.array([height, width])
    start, stop = (jnp.round(center + way * extent / 2) for way in (-1, 1))
    y, x = jnp.mgrid[:height, :width]
    inside = (y >= start[0]) & (y < stop[0]) & (x >= start[1]) & (x < stop[1])
    return jnp.where(inside[..., None], other, image), 1 - inside.mean()
