"""timm's names of Inception-ResNet-v2, which are TF-Slim's; branches count from 0."""

import re

_ENTRY = {"1": "conv2d_1a", "2": "conv2d_2a", "3": "conv2d_2b", "4": "conv2d_3b", "5": "conv2d_4a"}
_MODULES = {"entry/mixed1": "mixed_5b", "reduction_a": "mixed_6a", "reduction_b": "mixed_7a"}
_STAGES = {"1": "repeat", "2": "repeat_1", "3": "repeat_2"}


def torch_name(model: str, path: str) -> str:
    """Maps 'stage1_block2/branch2_conv1/bn' to 'repeat.1.branch1.0.bn'.

    The other variants have no counterpart in timm and keep their names.
    """
    if model != "inception_resnet_v2":
        return path.replace("/", ".")
    if match := re.fullmatch(r"entry/conv(\d)/(\w+)", path):
        return f"{_ENTRY[match[1]]}.{match[2]}"
    match = re.fullmatch(r"(.+)/(?:branch(\d)_conv(\d)/(\w+)|expand)", path)
    if match is None:  # the auxiliary head, which timm does not have, keeps its name
        ends = {"fc": "classif", "last/conv": "conv2d_7b.conv", "last/bn": "conv2d_7b.bn"}
        return ends.get(path, path.replace("/", "."))
    owner, branch, conv, leaf = match.groups()
    module = _MODULES.get(owner) or _block_name(owner)
    if branch is None:
        return f"{module}.conv2d"
    # One convolution is no sequence; a pool before a convolution is part of one.
    if branch == "1" and module != "mixed_7a":
        position = ""
    else:
        after_pool = (module, branch) == ("mixed_5b", "4")
        position = f".{int(conv) - (not after_pool)}"
    return f"{module}.branch{int(branch) - 1}{position}.{leaf}"


def _block_name(owner: str) -> str:
    stage, block = owner.removeprefix("stage").split("_block")
    return "block8" if (stage, block) == ("3", "10") else f"{_STAGES[stage]}.{int(block) - 1}"


def dense_layout(model: str, path: str) -> None:
    """The classifier is plain."""
    return None
