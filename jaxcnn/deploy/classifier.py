"""What the server computes: image files to probabilities and Grad-CAM pictures."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxcnn.analysis import explain
from jaxcnn.analysis.receptive_field import receptive_fields
from jaxcnn.data.decode import BadImage, image_size
from jaxcnn.evaluation.evaluate import Entry
from jaxcnn.evaluation.predict import Prediction, decode_image, default_names, preprocess

# Photos of today's cameras are smaller. Decoded, the largest takes 150 MB.
MAX_PIXELS = 50_000_000
MAX_RATIO = 50  # of the sides, since the shorter one is resized to that of the network
_SCANS = 100  # of a JPEG, each of which is a pass over all pixels; encoders write about ten
_SCAN = re.compile(rb"\xff\xda\x00[\x08\x0a\x0c\x0e]")  # a header, of one to four components
_STEP = 4  # between the batch sizes that are compiled


class Classifier:
    """A network that is compiled for batches of a few sizes, to which others are padded.

    Creating one compiles everything.

    Args:
      entry: the network.
      largest: size of the largest batch.

    Attributes:
      entry: the network.
      names: of its classes.
      endpoint: name of its last feature maps; None if it has none.
    """

    def __init__(self, entry: Entry, largest: int):
        self.entry = entry
        self.names = entry.class_names or default_names(entry.classes)
        preprocessing, model = entry.preprocessing, entry.make()
        self._shape = (preprocessing.size, preprocessing.size, len(preprocessing.mean))
        self._sizes = batch_sizes(largest)
        self.endpoint = _last_maps(model, self._shape)

        @jax.jit
        def probabilities(variables: Any, images: jax.Array) -> jax.Array:
            logits: Any = model.apply(variables, images, train=False)
            return jax.nn.softmax(logits, -1)

        @jax.jit
        def evidence(variables: Any, images: jax.Array, classes: jax.Array) -> jax.Array:
            return explain.grad_cam(model, variables, images, self.endpoint or "", classes)

        self._compiled, self._evidence = probabilities, evidence
        blank = np.zeros(self._shape, np.float32)
        for size in self._sizes:
            self.probabilities([blank] * size)
        if self.endpoint:
            self.explain(blank, 0)

    def read(self, data: bytes) -> np.ndarray:
        """Decodes and preprocesses an image file.

        Args:
          data: content of the file.

        Returns:
          f32[size,size,C].

        Raises:
          BadImage: it cannot be decoded, the image is too large or too narrow, or it is a JPEG of
            very many scans.
        """
        height, width = image_size(data)
        if height * width > MAX_PIXELS:
            raise BadImage(f"is {width} x {height}; at most {MAX_PIXELS:,} pixels are decoded")
        if max(height, width) > MAX_RATIO * min(height, width):
            raise BadImage(f"is {width} x {height}; a side is at most {MAX_RATIO} times the other")
        if data[:2] == b"\xff\xd8" and len(_SCAN.findall(data)) > _SCANS:
            raise BadImage(f"has more than {_SCANS} scans")
        preprocessing = self.entry.preprocessing
        return preprocess(decode_image(data, len(preprocessing.mean)), preprocessing)

    def probabilities(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Computes class probabilities.

        Args:
          images: f32[size,size,C], at most as many as the largest batch.

        Returns:
          f32[N,K].
        """
        size = next(size for size in self._sizes if size >= len(images))
        batch = np.zeros((size, *self._shape), np.float32)
        batch[: len(images)] = images
        return np.asarray(self._compiled(self.entry.variables, batch))[: len(images)]

    def top(self, row: np.ndarray, count: int) -> list[Prediction]:
        """Returns the most probable classes, given the probabilities f32[K] of an image."""
        order = np.argsort(-row, kind="stable")[:count]
        return [Prediction(int(i), self.names[i], float(row[i])) for i in order]

    def explain(self, image: np.ndarray, index: int) -> np.ndarray:
        """Computes Grad-CAM of a class.

        Args:
          image: f32[size,size,C].
          index: of the class.

        Returns:
          f32[h,w], as large as the last feature maps.
        """
        return np.asarray(self._evidence(self.entry.variables, image[None], jnp.array([index])))[0]

    def draw(self, image: np.ndarray, cam: np.ndarray) -> bytes:
        """Draws Grad-CAM over an image.

        Args:
          image: f32[size,size,C].
          cam: of `explain`.

        Returns:
          A PNG file of size x size pixels.
        """
        return _draw(self._pixels(image), cam)

    def _pixels(self, image: np.ndarray) -> np.ndarray:
        """An image before its normalization, f32[size,size,3] in 0 to 1."""
        preprocessing = self.entry.preprocessing
        pixels = np.clip(image * np.array(preprocessing.std) + np.array(preprocessing.mean), 0, 1)
        return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


def batch_sizes(largest: int) -> list[int]:
    """Returns the batch sizes that are compiled: 1, 4, 16, ... and the largest."""
    sizes = [1]
    while sizes[-1] * _STEP < largest:
        sizes.append(sizes[-1] * _STEP)
    return sorted({*sizes, largest})


def _last_maps(model: Any, shape: tuple[int, int, int]) -> str | None:
    try:
        names = list(receptive_fields(model, shape))
    except ValueError:  # a network of the user's without endpoints
        return None
    return names[-1] if names else None


def _draw(pixels: np.ndarray, cam: np.ndarray) -> bytes:
    from matplotlib import colormaps

    height, width = pixels.shape[:2]
    heat = Image.fromarray(cam / max(float(cam.max()), 1e-12))
    heat = heat.resize((width, height), Image.Resampling.BILINEAR)
    colors = colormaps["jet"](np.asarray(heat))[..., :3]
    blended = np.uint8(255 * (0.55 * pixels + 0.45 * colors) + 0.5)
    file = io.BytesIO()
    Image.fromarray(blended).save(file, "PNG")
    return file.getvalue()
