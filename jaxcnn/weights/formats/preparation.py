"""The preprocessing of images for the weights of other frameworks."""

from __future__ import annotations

import numpy as np

from jaxcnn._checks import one_of
from jaxcnn.data.preprocessing import HALF, IMAGENET, Normalization, Preprocessing
from jaxcnn.models import registry
from jaxcnn.weights.formats.graph import Node

# BGR means of pixels in [0,255] over ImageNet's training images: of VGG's release and Keras, and of
# the releases of GoogLeNet and SENet. AlexNet and the authors' ResNet subtract an image, whose mean
# this is, too.
_BGR_MEAN = (103.939, 116.779, 123.68)
CAFFE_MEAN = (104.0, 117.0, 123.0)

# The same for RGB, as TF-Slim's VGG and ResNet-v1 have it.
_RGB_MEAN = (123.68, 116.78, 103.94)

# Mean and standard deviation of RGB for pixels in [0,1]. The words are Keras', and three more.
IMAGES: dict[str, Normalization] = {
    "caffe": (tuple(m / 255 for m in _BGR_MEAN[::-1]), (1 / 255,) * 3),
    "tf": HALF,
    "torch": IMAGENET,
    "mean": (tuple(m / 255 for m in _RGB_MEAN), (1 / 255,) * 3),
    "unit": ((0.0,) * 3, (1.0,) * 3),
    "raw": ((0.0,) * 3, (1 / 255,) * 3),
}
BGR = ("caffe",)  # their first kernels read blue first
SAME_FOR_ALL = ("unit", "raw")  # channels, of which there may be another number than 3


def preprocessing(
    images: str,
    size: int,
    mean: tuple[float, ...] | None = None,
    scale: float = 1.0,
    channels: int = 3,
) -> Preprocessing:
    """Returns the preprocessing for an input normalization.

    The crop is 0.875, as of 224 pixels from 256, except for images of at most 64 pixels.

    Args:
      images: a key of `IMAGES`.
      size: height and width.
      mean: of "caffe": BGR means of pixels in [0,255], one for all or one each.
      scale: of "caffe": the factor after their subtraction.
      channels: of the images.

    Raises:
      ValueError: `images` is unknown.
    """
    center, spread = IMAGES[one_of("images", images, IMAGES)]
    if images in BGR and mean:
        center = tuple(float(m) / 255 for m in np.broadcast_to(mean[::-1], 3))
    if images in BGR:
        spread = tuple(s / scale for s in spread)
    if images in SAME_FOR_ALL:
        center, spread = center[:1] * channels, spread[:1] * channels
    return Preprocessing(size, 0.875 if size > 64 else 1.0, "bilinear", center, spread)


def usual(format: str, family: str, first: Node | None = None) -> str:
    """Returns the usual input normalization of a framework's networks, a key of `IMAGES`.

    Args:
      format: name of the framework.
      family: of the network.
      first: the normalization with which the file begins, see `takes_pixels`.
    """
    if first is not None and format != "Caffe" and takes_pixels(first):
        mean, std = _statistics(first)
        return "raw" if max(np.abs(mean).max(), std.max()) > 2 else "unit"
    if format == "Caffe" or (format == "Keras" and family in ("vgg", "resnet")):
        return "caffe"
    if format == "TF-Slim" and family in ("vgg", "resnet"):
        return "mean"
    of_tensorflow = format in ("Keras", "TF-Slim") or "inception" in family
    return "tf" if of_tensorflow else "torch"


def takes_pixels(first: Node | None) -> bool:
    """Whether the normalization with which a file begins takes images as they are.

    So does one with fixed numbers, for pixels in [0,1] or in [0,255], and one with learned
    statistics whose mean is that of pixels in [0,255].

    Args:
      first: the normalization, if there is one.
    """
    if first is None:
        return False
    return bool(first.facts.get("affine")) or np.abs(_statistics(first)[0]).max() > 10


def gray(model: str, size: int, channels: int) -> Preprocessing:
    """Returns the network's own preprocessing at another size, for images that are not RGB.

    Args:
      model: id of the network.
      size: height and width.
      channels: of the images.
    """
    info = registry.model_info(model)
    return Preprocessing(size, 1.0, "bilinear", info.mean[:channels], info.std[:channels])


def described(prepare: Preprocessing) -> str:
    """Returns the normalization as a text, in units of pixels in [0,255]."""
    mean, std = (
        ", ".join(f"{255 * value:.4g}" for value in values)
        for values in (prepare.mean, prepare.std)
    )
    return f"RGB in [0,255] minus ({mean}), divided by ({std})"


def with_first_layer(prepare: Preprocessing, node: Node, bgr: bool = False) -> Preprocessing:
    """Returns a preprocessing with a normalization by which a file begins.

    Args:
      prepare: of what the file normalizes.
      node: the normalization.
      bgr: whether its channels are blue, green, red.

    Raises:
      ValueError: the normalization changes the sign of a channel or has a factor of 0.
    """
    of_file = _statistics(node)
    if not (np.all(of_file[1] > 0) and np.isfinite(of_file).all()):
        raise ValueError(f"layer {node.name!r} multiplies images by numbers that are not above 0")
    center, spread = (values[::-1] if bgr else values for values in of_file)
    mean = np.asarray(prepare.mean) + center * np.asarray(prepare.std)
    std = np.asarray(prepare.std) * spread
    return Preprocessing(
        prepare.size, prepare.crop, prepare.interpolation, tuple(mean.tolist()), tuple(std.tolist())
    )


def _statistics(node: Node) -> tuple[np.ndarray, np.ndarray]:
    """The mean that a normalization subtracts and the standard deviation that it divides by."""
    arrays = {name: np.asarray(a, np.float64) for name, a in node.arrays.items()}
    with np.errstate(divide="ignore", invalid="ignore"):
        std = np.sqrt(arrays["var"] + node.epsilon) / arrays.get("scale", 1.0)
        mean = arrays["mean"] - arrays.get("bias", 0.0) * std
    shape = arrays["mean"].shape
    return np.broadcast_to(mean, shape), np.broadcast_to(std, shape)
