"""timm's names, which are the release's: conv2_1 .. conv5_3, c1x1_a, c3x3_b, c1x1_c."""

import re

_LAYERS = {
    "bn1": "c1x1_a.bn",
    "conv1": "c1x1_a.conv",
    "bn2": "c3x3_b.bn",
    "conv2": "c3x3_b.conv",
    "bn3": "c1x1_c.bn",
    "conv3": "c1x1_c.conv",
    "conv3_residual": "c1x1_c1",
    "conv3_dense": "c1x1_c2",
}
_ENDS = {
    "stem_conv": "features.conv1_1.conv",
    "stem_bn": "features.conv1_1.bn",
    "final_bn": "features.conv5_bn_ac.bn",
    "fc": "classifier",
}


def torch_name(model: str, path: str) -> str:
    """Maps 'stage1_block1/proj_conv' to 'features.conv2_1.c1x1_w_s1.conv'."""
    match = re.fullmatch(r"stage(\d)_block(\d+)/(\w+)", path)
    if match is None:
        return _ENDS[path]
    stage, block, layer = int(match[1]), match[2], match[3]
    if layer.startswith("proj_"):
        name = f"c1x1_w_s{1 if stage == 1 else 2}.{layer.removeprefix('proj_')}"
    else:
        name = _LAYERS[layer]
    return f"features.conv{stage + 1}_{block}.{name}"


def dense_layout(model: str, path: str) -> str | None:
    """The classifier is a 1x1 convolution."""
    return "conv1x1" if path == "fc" else None
