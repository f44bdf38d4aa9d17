"""timm's names of `resnetv2_*`.

timm has no stem with BatchNorm (`stem_norm=True`), which the CIFAR networks have here: `stem_bn`
keeps its name.
"""

import re

_ENDS = {"stem_conv": "stem.conv", "final_bn": "norm", "fc": "head.fc"}


def torch_name(model: str, path: str) -> str:
    """Maps 'stage1_block1/bn1' to 'stages.0.blocks.0.norm1'."""
    match = re.fullmatch(r"stage(\d+)_block(\d+)/(\w+)", path)
    if match is None:
        return _ENDS.get(path, path)
    layer = "downsample.conv" if match[3] == "proj_conv" else match[3].replace("bn", "norm")
    return f"stages.{int(match[1]) - 1}.blocks.{int(match[2]) - 1}.{layer}"


def dense_layout(model: str, path: str) -> str | None:
    """The classifier is a 1x1 convolution."""
    return "conv1x1" if path == "fc" else None
