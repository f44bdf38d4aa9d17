"""Turns batches of indices into the inputs of the network, on the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn._objects import is_address
from jaxcnn.data import boxes
from jaxcnn.data.augment import mixing, pipeline
from jaxcnn.data.sets import Dataset, ImageFileDataset

Array = jax.Array
Batch = Mapping[str, Array]
Preprocess = Callable[[Batch, Array | None], Batch]

# Folded into the key of an example for mixing; no augmentation step uses this number.
_MIXING = 1 << 16


def gather(batch: Batch, keys: Array | None = None) -> dict[str, Array]:
    """Gathers the examples of a batch from the resident set if the batch has indices.

    Args:
      batch: with "image" and "label", or "index" i32[N] and the resident set.
      keys: unused; makes this function a `Preprocess`.

    Returns:
      {"image": u8[N,H,W,C], "label": i32[N]}, and "box" f32[N,M,4] if the set has boxes.
    """
    del keys
    if "index" not in batch:
        return {name: batch[name] for name in ("image", "label", "box") if name in batch}
    index, resident = batch["index"], {"image": "images", "label": "labels", "box": "boxes"}
    return {name: batch[entry][index] for name, entry in resident.items() if entry in batch}


def make_preprocess(
    dataset: Dataset | ImageFileDataset,
    steps: Sequence[tuple[str, Any]],
    *,
    mixup: float = 0.0,
    cutmix: float = 0.0,
) -> Preprocess:
    """Makes `preprocess(batch, keys) -> {"image": f32[N,H,W,C], "label": i32[N]}`.

    With keys (in training) it augments and normalizes the images; with None it only normalizes. If
    training mixes examples, the result has a "target" f32[N,K], and "label" is the label before
    mixing. If the set has boxes, it has "box" f32[N,M,4], in training cropped to the visible part.

    Args:
      dataset: provides the mean and standard deviation for normalization.
      steps: pairs of name and amount, see `jaxcnn.data.augment.pipeline.make_prepare`; a name may
        be the address of a custom function.
      mixup: see `jaxcnn.data.augment.mixing.mix`.
      cutmix: likewise.

    Returns:
      The function.

    Raises:
      ValueError: an augmentation is unknown, or an amount is invalid.
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


def check_custom_steps(
    preprocess: Preprocess, steps: Sequence[tuple[str, Any]], image_shape: tuple[int, ...]
) -> None:
    """Traces custom augmentations, before a run writes anything.

    Args:
      preprocess: of `make_preprocess`.
      steps: the augmentations, pairs of name and amount.
      image_shape: (1, H, W, C).

    Raises:
      ValueError: a custom augmentation does not return an image of the same shape.
    """
    if any(is_address(name) for name, _ in steps):
        image, label = (jnp.zeros(shape, t) for shape, t in ((image_shape, "uint8"), (1, "int32")))
        jax.eval_shape(preprocess, {"image": image, "label": label}, jax.random.key(0)[None])
