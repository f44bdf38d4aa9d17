"""torchvision's names: Conv2d_1a_3x3, Mixed_5b.branch5x5_1, AuxLogits.conv0."""

import re

_ENTRY = {"1": "1a_3x3", "2": "2a_3x3", "3": "2b_3x3", "4": "3b_1x1", "5": "4a_3x3"}

# A branch of several convolutions numbers them: its name ends in "_".
_BRANCHES = {
    "5": ("1x1", "5x5_", "3x3dbl_", "_pool"),
    "6a": ("3x3", "3x3dbl_"),
    "6": ("1x1", "7x7_", "7x7dbl_", "_pool"),
    "7a": ("3x3_", "7x7x3_"),
    "7": ("1x1", "3x3_", "3x3dbl_", "_pool"),
}
_AUX = {"conv1": "conv0", "conv2": "conv1", "fc": "fc"}


def torch_name(model: str, path: str) -> str:
    """Maps 'mixed_7b/branch2_mixed1/branch1_conv1/bn' to 'Mixed_7b.branch3x3_2a.bn'."""
    head, _, rest = path.partition("/")
    if head == "entry":
        conv, _, leaf = rest.removeprefix("conv").partition("/")
        return f"Conv2d_{_ENTRY[conv]}.{leaf}"
    if head == "aux1_head":
        layer, *leaves = rest.split("/")
        return ".".join(("AuxLogits", _AUX[layer], *leaves))
    if head == "fc":
        return head
    grid = head.removeprefix("mixed_")
    names = _BRANCHES[grid if grid in _BRANCHES else grid[0]]
    match = re.fullmatch(r"branch(\d)_(conv|mixed)(\d)(?:/branch(\d)_conv1)?/(\w+)", rest)
    assert match, path
    branch = names[int(match[1]) - 1]
    if branch.endswith("_"):
        if match[2] == "conv":
            branch += match[3]
        else:  # 1x3 and 3x1 side by side follow one convolution (branch 2) or two (branch 3)
            branch += match[1] + " ab"[int(match[4])]
    return f"Mixed_{grid}.branch{branch}.{match[5]}"


def dense_layout(model: str, path: str) -> None:
    """The classifiers are plain."""
    return None
