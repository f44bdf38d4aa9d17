"""Wide ResNet.

Zagoruyko, Komodakis 2016, "Wide residual networks" (arXiv 1605.07146), table 1.

WRN-d-k for CIFAR has depth d = 6n+4: three stages of n pre-activation basic blocks, k times as wide
as those of a ResNet. The paper's dropout (0.3) is the option `dropout`, which is off by default.
WRN-50-2-bottleneck for ImageNet is ResNet-50 with twice the channels inside the bottlenecks;
`wide_resnet101_2` is torchvision's.
"""

import functools

from jaxcnn._checks import require
from jaxcnn.models import resnet, resnet_v2
from jaxcnn.models.blocks import PreActBasicBlock

PAPER = "Zagoruyko, Komodakis 2016, Wide residual networks"
YEAR = 2016


def cifar(depth: int, widening: int) -> functools.partial[resnet_v2.ResNetV2]:
    """Returns a WRN-d-k for CIFAR.

    Args:
      depth: d = 6n+4 for n blocks per stage.
      widening: k.

    Raises:
      ValueError: the depth is not 6n+4.
    """
    require(depth >= 10 and depth % 6 == 4, "depth", depth, "6n+4, such as 16, 28 or 40")
    blocks = (depth - 4) // 6
    return resnet_v2.cifar(blocks, block=PreActBasicBlock, width=16 * widening, fan="in")


VARIANTS = {
    "wrn16_8_cifar": cifar(16, 8),
    "wrn28_10_cifar": cifar(28, 10),
    "wrn40_4_cifar": cifar(40, 4),
    "wrn40_10_cifar": cifar(40, 10),
    "wide_resnet50_2": resnet.imagenet(50, base_width=128),
    "wide_resnet101_2": resnet.imagenet(101, base_width=128),
}
