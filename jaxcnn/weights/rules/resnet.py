"""torchvision's names, and timm's where three convolutions make the stem: `conv1` is a sequence."""

import re

_STEM = {
    "stem_conv": "conv1",
    "stem_bn": "bn1",
    "stem_conv1": "conv1.0",
    "stem_bn1": "conv1.1",
    "stem_conv2": "conv1.3",
    "stem_bn2": "conv1.4",
    "stem_conv3": "conv1.6",
    "stem_bn3": "bn1",
}


def torch_name(model: str, path: str) -> str:
    """Maps 'stage1_block1/proj_conv' to 'layer1.0.downsample.0'."""
    match = re.fullmatch(r"stage(\d+)_block(\d+)/(.+)", path)
    if match is None:
        return _STEM.get(path, path)
    stage, block, layer = match[1], int(match[2]) - 1, match[3]
    if layer.startswith("proj_"):
        # In the "d" nets the average pooling is entry 0 of the shortcut's sequence.
        first = 1 if re.fullmatch(r"resnet\d+d", model) else 0
        layer = f"downsample.{first + (layer == 'proj_bn')}"
    return f"layer{stage}.{block}.{layer}".replace("/", ".")


def dense_layout(model: str, path: str) -> None:
    """The classifier is a plain linear layer."""
    return None
