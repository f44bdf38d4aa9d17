"""From a batch of indices to what the network takes, on the device: the `preprocess` of a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn._objects import is_address
from jaxcnn.data import boxes
from jaxcnn.data.augment import mixing, pipeline
from jaxcnn.data.sets import Dataset, EncodedSet

Array = jax.Array
Batch = Mapping[str, Array]
Preprocess = Callable[[Batch, Array | None], Batch]

# An example's mixing has a key that no augmentation step has.
_MIXING = 1 << 16


def gather(batch: Batch, keys: Array | None = None) -> dict[str, Array]:
    """{"image", "label", "box"} of a batch, from the resident set where it holds indices.

    Without "box" where the set has no boxes.
    """
    del keys
    if "index" not in batch:
        return {name: batch[name] for name in ("image", "label", "box") if name in batch}
    index, sets = batch["index"], {"image": "images", "label": "labels", "box": "boxes"}
    return {name: batch[whole][index] for name, whole in sets.items() if whole in batch}


def make_preprocess(
    dataset: Dataset | EncodedSet,
    steps: Sequence[tuple[str, Any]],
    *,
    mixup: float = 0.0,
    cutmix: float = 0.0,
) -> Preprocess:
    """Makes `preprocess(batch, keys) -> {"image": f32[N,H,W,C], "label": i32[N]}`.

    With keys, in training, images are augmented and normalized, without only normalized. Where
    training mixes examples there is a "target" f32[N,K] too, and a label is the example's own. The
    boxes of a set that has them come as "box" f32[N,M,4], in training as far as they are visible.

    Args:
      dataset: whose mean and standard deviation the images are normalized with.
      steps: pairs of name and amount, see `jaxcnn.data.augment.pipeline.make_prepare`; a name may
        be the address of a function of the user's own.
      mixup, cutmix: see `jaxcnn.data.augment.mixing.mix`.

    Raises:
      ValueError: an augmentation is unknown, or an amount impossible.
    """
    for pair in steps:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise ValueError(
                f"config.data.augment has {pair!r}; it must be pairs of name and amount, such as "
                "('pad_crop', 4)"
            )
    for name, value in (("mixup", mixup), ("cutmix", cutmix)):
        if value < 0:
            raise ValueError(f"config.data.{name} is {value}; it must be 0 or more")
    images = pipeline.make_prepare(steps, dataset.mean, dataset.std)
    if isinstance(dataset, Dataset):
        pipeline.check_padding(steps, min(dataset.images.shape[1:3]))
    move = None
    if dataset.has_boxes:
        move = boxes.make_move(steps)
        if mixup or cutmix:
            raise ValueError("config.data.mixup and cutmix must be 0 when boxes are learned")
    classes = dataset.num_classes

    def preprocess(batch: Mapping[str, jax.Array], keys: jax.Array | None = None):
        ready = gather(batch)
        image, label = images(ready["image"], keys), ready["label"]
        if move is not None and "box" in ready:
            box = ready["box"]
            if keys is not None:
                box = move(keys, box, image.shape[1:3])
            return {"image": image, "label": label, "box": box}
        if keys is None or not (mixup or cutmix):
            return {"image": image, "label": label}
        keys = jax.vmap(lambda key: jax.random.fold_in(key, _MIXING))(keys)
        image, target = mixing.mix(keys, image, label, classes, mixup=mixup, cutmix=cutmix)
        return {"image": image, "label": label, "target": target}

    return preprocess


def check_own_steps(
    preprocess: Preprocess, steps: Sequence[tuple[str, Any]], image_shape: tuple[int, ...]
) -> None:
    """Traces augmentations of the user's own, [1,H,W,C], before a run writes anything.

    Raises:
      ValueError: one of them returns something else than an image of the same shape.
    """
    if any(is_address(name) for name, _ in steps):
        image, label = (jnp.zeros(shape, t) for shape, t in ((image_shape, "uint8"), (1, "int32")))
        jax.eval_shape(preprocess, {"image": image, "label": label}, jax.random.key(0)[None])
