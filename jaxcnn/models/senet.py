"""SENet.

Hu, Shen, Albanie, Sun, Wu 2017, "Squeeze-and-excitation networks" (arXiv 1709.01507), table 1 and
the appendix on SENet-154.

Each residual branch ends in a gate per channel, computed from the channels' global averages by two
dense layers with reduction 16 and biases, as in the released networks (`se_bias=False` leaves the
biases out, as in the paper's ablations). The stem's pooling rounds up. The stride of a bottleneck
is on its first 1x1 convolution in SE-ResNets, and on the 3x3 convolution in SE-ResNeXts and
SENet-154. `se_resnet50_v1_5`, `101` and `152` are the common variant based on `resnet50` ...:
stride on the 3x3 convolution, pooling padded by 1. `se_resnet18` and `34` are timm's and not in the
paper; their branches end in a ReLU before the gate.

SE-BN-Inception and SE-VGG are in the files of their base networks.
"""

import functools
from typing import Any

from jaxcnn.models import resnet

PAPER = "Hu, Shen, Albanie, Sun, Wu 2017, Squeeze-and-excitation networks"
YEAR = 2017


def senet(depth: int, **options: Any) -> functools.partial[resnet.ResNet]:
    """Returns a ResNet with squeeze-and-excitation and a stem pooling that rounds up.

    Args:
      depth: a key of `jaxcnn.models.blocks.DEPTHS`.
      **options: fields of `ResNet`.
    """
    return resnet.imagenet(depth, **{"se_reduction": 16, "ceil_pool": True, **options})


_RESNEXT = {"groups": 32, "base_width": 4}

VARIANTS = {
    "se_resnet18": senet(18, branch_relu=True),
    "se_resnet34": senet(34, branch_relu=True),
    **{f"se_resnet{n}": senet(n, stride_on="1x1") for n in (50, 101, 152)},
    **{f"se_resnet{n}_v1_5": senet(n, ceil_pool=False) for n in (50, 101, 152)},
    "se_resnext50_32x4d": senet(50, **_RESNEXT),
    "se_resnext101_32x4d": senet(101, **_RESNEXT),
    "senet154": senet(
        152,
        groups=64,
        base_width=4,
        stem=(64, 64, 128),
        proj_kernel=3,
        halve_first=True,
        dropout=0.2,
    ),
}
