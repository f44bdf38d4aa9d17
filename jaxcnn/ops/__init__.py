"""The operations of every network, with an implementation per platform where one pays."""

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
