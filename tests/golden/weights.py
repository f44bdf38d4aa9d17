"""Weights (Torch layout) and images of the golden files, made again from their names alone.

A golden file holds what torchvision or timm computed with these weights on these images. The rule:
each tensor is drawn by `numpy.random.RandomState(crc32(key))`, whose streams NumPy has frozen.
"""

import json
import math
import re
import zlib
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
# Convolutions inside residual branches get a small gain, so that many blocks neither explode nor
# drown.
_IN_BRANCH = re.compile(r"(layer\d|blocks|conv\d_)\.?\d+\.(conv|c\dx\d_[abc])|rep\.")


def load(name):
    """(arrays, meta) of a golden file, such as "resnet18" or "train/resnet18"."""
    arrays = np.load(HERE / f"{name}.npz")
    return arrays, json.loads(str(arrays["meta"]))


def tensor(key, shape):
    """One entry of a state dict, f32 (num_batches_tracked: i64)."""
    leaf, generator = key.rsplit(".", 1)[-1], _generator(key)
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if leaf == "running_var" or (leaf == "weight" and len(shape) == 1):
        return generator.uniform(0.5, 1.5, shape).astype(np.float32)
    if leaf in ("bias", "running_mean"):
        return (0.1 * generator.standard_normal(shape)).astype(np.float32)
    if leaf != "weight":
        raise ValueError(f"no rule for {key!r}")
    gain = 1.7
    if len(shape) == 4 and shape[1] == 1:
        gain = 1.0
    elif _IN_BRANCH.search(key):
        gain = 0.5
    std = math.sqrt(gain / math.prod(shape[1:]))
    out = np.empty(shape, np.float32)
    for row in out:  # one stream, row by row to spare memory
        row[...] = std * generator.standard_normal(row.shape)
    return out


def state_dict(meta):
    """{key: array} of a golden file's network."""
    return {key: tensor(key, tuple(shape)) for key, shape in meta["state_dict"]}


def images(meta):
    """f32[2,S,S,3] of a golden file."""
    return drawn_images(meta["model"], meta["input_size"])


def drawn_images(name, size):
    """f32[2,S,S,3]: a mosaic of 4x4 flat cells with noise."""
    generator = _generator("input:" + name)
    noise = generator.standard_normal((2, 3, size, size))
    mosaic = generator.standard_normal((2, 3, 4, 4))
    cell = np.arange(size) * 4 // size
    nchw = (mosaic[:, :, cell][:, :, :, cell] + 0.5 * noise).astype(np.float32)
    return nchw.transpose(0, 2, 3, 1)


def _generator(text):
    return np.random.RandomState(zlib.crc32(text.encode()))
