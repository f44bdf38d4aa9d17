"""The operations of every network, with an implementation per platform where one pays.

Every operation has a plain implementation in `jaxcnn.ops.reference`, which all platforms use
inside `with jaxcnn.ops.use("reference"):`. Elsewhere the implementation is chosen while a program
is lowered for a platform. A TPU gets XLA's own operations throughout.

| operation | platform | implementation | replaces | used for |
| --- | --- | --- | --- | --- |
| `conv`, gradients | CPU | `conv_cpu.pointwise_*`: one matrix product | XLA's transposed convolutions | 1x1 without padding |
| `conv`, gradients | CPU | `conv_cpu.folded_conv`: adjacent outputs of a row as channels | XLA's convolution | stride 1 and fewer than 16 channels; forward from 16 to 16 |
| `conv`, gradients | CPU | `conv_winograd`: F(2x2, 3x3) | XLA's convolution | 3x3, stride 1, at least 64 channels, no half precision |
| `conv`, gradients | CPU | `conv_cpu.block_conv`: a few groups as one convolution | XLA's grouped convolution | groups, from 1,024 output pixels on |
| `conv`, gradients | CPU | `conv_cpu.patch_conv`: one matrix product per group | XLA's grouped convolution | groups, fewer output pixels |
| `conv`, gradients | CPU | one network after the other | grouped convolutions | at most 32 networks under `vmap` |
| `conv`, gradients | GPU | `conv_gpu.packed_conv`: blocks of pixels as channels | cuDNN's, which pads 3 channels to 8 | at most 4 channels, stride above 1 |
| `conv`, gradients | GPU | `conv_gpu.merged_conv`: wider groups with zeros between | cuDNN's grouped convolution | groups, networks under `vmap` |
| `max_pool`, gradient | CPU | place of the maximum as a byte; the windows' places added up | select-and-scatter | all windows |
| `max_pool`, gradient | GPU | place of the maximum as a byte; each pixel reads its windows | scatter with atomic additions | all windows |
| `avg_pool` | CPU | one axis at a time | one reduction over windows | overlapping windows |
| `BatchNorm`, gradient | CPU | sums over rows of pixels | sums over three axes | no groups of examples |
| `BatchNormAct`, gradient | GPU | two passes over memory | three passes | all |
| `local_response_norm` | all | `r * sqrt(r)` of the reciprocal root | a power | exponent 3/4 |

`python benchmarks/ops_steps.py` takes one kind of implementation away at a time and measures whole
training steps on a CPU; `benchmarks/NOTES.md` has what was measured on a GPU: ResNet-50's step
35.5 to 33.9 ms by `packed_conv`, ResNeXt-50's 47.6 to 45.3 and DPN-92's 81.6 to 61.9 by
`merged_conv`, and 4 % fewer bytes per step by `max_pool`'s gradient.

Limits: `jax.shard_map` needs `check_vma=False`, since the primitives do not track over which mesh
axes a value varies. On a GPU, networks under `vmap` share wider groups, so a value that is not
finite in one network reaches its neighbors. Of equal maxima the first one gets the gradient; XLA's
own forward mode chooses by the tangents.
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
