"""ResNeXt.

Xie, Girshick, Dollar, Tu, He 2016, "Aggregated residual transformations for deep neural networks"
(arXiv 1611.05431), table 1 and section 5.3.

The 3x3 convolution of a bottleneck has C groups (the "cardinality"; figure 3c of the paper):
ResNeXt C x d has C groups of d channels in stage 1. `resnext101_32x8d` is torchvision's. ResNeXt-29
for CIFAR is the authors' release, with ReLU after the addition; `_v2` is its pre-activation
variant, which the paper used according to the notes of the release.
"""

import functools

from jaxcnn.models import resnet, resnet_v2

PAPER = (
    "Xie, Girshick, Dollar, Tu, He 2016, Aggregated residual transformations for deep neural "
    "networks"
)
YEAR = 2016


def cifar(groups: int, base_width: int) -> functools.partial[resnet.ResNet]:
    """Returns a ResNeXt-29 for CIFAR: three stages of three blocks.

    Args:
      groups: cardinality C.
      base_width: channels d of a group in stage 1.
    """
    return functools.partial(
        resnet.ResNet,
        num_classes=10,
        min_size=8,
        blocks=(3, 3, 3),
        groups=groups,
        base_width=base_width,
        small_images=True,
    )


VARIANTS = {
    "resnext50_32x4d": resnet.imagenet(50, groups=32, base_width=4),
    "resnext101_32x4d": resnet.imagenet(101, groups=32, base_width=4),
    "resnext101_64x4d": resnet.imagenet(101, groups=64, base_width=4),
    "resnext101_32x8d": resnet.imagenet(101, groups=32, base_width=8),
    "resnext29_8x64d_cifar": cifar(8, 64),
    "resnext29_16x64d_cifar": cifar(16, 64),
    "resnext29_8x64d_v2_cifar": resnet_v2.cifar(3, width=64, stem=64, groups=8),
}
