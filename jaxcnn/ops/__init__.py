"""The operations of every network, with an implementation per platform where one pays.

Every operation has a plain implementation in `jaxcnn.ops.reference`, which all platforms use
inside `with jaxcnn.ops.use("reference"):`. Elsewhere the implementation is chosen while a program
is lowered for a platform. A TPU gets XLA's own operations, but for response normalization.

| operation | platform | implementation | replaces | used for | gain |
| --- | --- | --- | --- | --- | --- |
| `conv`, gradients | CPU | `conv_cpu.pointwise_*`: one matrix product | XLA's transposed convolutions | 1x1 without padding | ResNet-50 1.04, DPN-92 1.05 (a) |
| `conv`, gradients | CPU | `conv_cpu.folded_conv`: adjacent outputs of a row as channels | XLA's convolution | stride 1 and fewer than 16 channels | LeNet-5 1.66 |
| `conv`, gradients | CPU | `conv_winograd`: F(2x2, 3x3) | XLA's convolution | 3x3, stride 1, at least 64 channels, no half precision | VGG-11-BN 1.29, ResNet-18 1.17, GoogLeNet 1.10 |
| `conv`, gradients | CPU | `conv_cpu.block_conv`: a few groups as one convolution | XLA's grouped convolution | groups, from 1,024 output pixels on | AlexNet 2.68 |
| `conv`, gradients | CPU | `conv_cpu.patch_conv`: one matrix product per group | XLA's grouped convolution | groups, fewer output pixels | with the row above |
| `conv`, gradients | CPU | `conv_cpu.patch_conv`: one matrix product | XLA's plain loops | windows larger than the images or the outputs | ResNet-18 on 64 images of 64x64 7.6 (a) |
| `conv`, gradients | CPU | one network after the other | grouped convolutions | at most 32 networks under `vmap` | see `benchmarks/README.md` |
| `conv`, gradients | GPU | `conv_gpu.packed_conv`: blocks of pixels as channels | cuDNN's, which pads 3 channels to 8 | at most 4 channels, stride above 1 | ResNet-50 1.05 (b) |
| `conv`, gradients | GPU | `conv_gpu.merged_conv`: wider groups with zeros between | cuDNN's grouped convolution | groups, networks under `vmap` | ResNeXt-50 1.05, DPN-92 1.32 (b) |
| `max_pool`, gradient | CPU | place of the maximum as a byte; the windows' places added up, with stride 1 axis by axis, large images one by one | select-and-scatter | all windows | LeNet-5 1.46, GoogLeNet 1.34, VGG-11-BN 1.05 (c) |
| `max_pool`, gradient | GPU | place of the maximum as a byte; each pixel reads its windows | scatter with atomic additions | all windows | 4 % fewer bytes (b) |
| `avg_pool` | CPU | one axis at a time | one reduction over windows | overlapping windows | with the row of `max_pool` |
| `BatchNorm`, gradient | CPU | sums over rows of pixels | sums over three axes | no groups of examples | ResNet-20 1.17, VGG-11-BN 1.16, ResNet-18 1.12 |
| `BatchNormAct`, gradient | GPU | two passes over memory | three passes | all | see `benchmarks/NOTES.md` |
| `local_response_norm` | all | `r * sqrt(r)` of the reciprocal root | a power | exponent 3/4 | AlexNet 1.04 |
| `local_response_norm` | TPU | shifted channels, added up | a reduction over windows of channels | exponent 3/4 | less traffic (d) |

The gain is the time of a whole training step without the implementation over that with it, on a
CPU with AVX-512, by `python benchmarks/ops_steps.py` (`benchmarks/results/ops_steps.json`).
(a) In an earlier measurement, see `benchmarks/NOTES.md`. (b) On an H200, see there: ResNet-50's step
35.5 to 33.9 ms, ResNeXt-50's 47.6 to 45.3, DPN-92's 81.6 to 61.9. (c) Of all pooling; GoogLeNet and VGG-11-BN before large images were taken one by one.
(d) By XLA's count, see `benchmarks/NOTES.md`: never run on a TPU.
`jaxcnn.runtime.heap`, which is no operation, gains 1.11 on ResNet-20 (a).

Limits: arrays that are sharded over explicit mesh axes (`AxisType.Explicit`, the default of
`jax.make_mesh` in newer versions of JAX) get the plain implementations; with `AxisType.Auto`, and
within `jax.shard_map`, all are used. `jax.shard_map` needs `check_vma=False`, since the primitives
do not track over which mesh axes a value varies. On a GPU, networks under `vmap` share wider
groups, so a value that is not finite in one network reaches its neighbors. Of equal maxima the
first one gets the gradient; XLA's own forward mode chooses by the tangents.
"""

from jaxcnn.ops.conv import conv, conv_general_dilated
from jaxcnn.ops.dispatch import by_platform, use
from jaxcnn.ops.normalization import BatchNorm, BatchNormAct, local_response_norm
from jaxcnn.ops.pooling import adaptive_avg_pool, avg_pool, global_avg_pool, max_pool
from jaxcnn.ops.windows import padding_pairs, pair, pool_padding

__all__ = [
    "BatchNorm",
    "BatchNormAct",
    "adaptive_avg_pool",
    "avg_pool",
    "by_platform",
    "conv",
    "conv_general_dilated",
    "global_avg_pool",
    "local_response_norm",
    "max_pool",
    "padding_pairs",
    "pair",
    "pool_padding",
    "use",
]
