"""torchvision's names: inception3a.branch2.0, aux1.fc1."""

import re


def torch_name(model: str, path: str) -> str:
    """Maps 'inception3a/branch2_conv1/bn' to 'inception3a.branch2.0.bn'."""
    match = re.fullmatch(r"(inception\w\w)/branch(\d)_conv(\d)/(\w+)", path)
    if match is None:
        return path.replace("_head", "").replace("/", ".")
    module, branch, conv, leaf = match[1], int(match[2]), int(match[3]), match[4]
    # A branch of one convolution is no sequence; that of the pool begins with the pool.
    position = {1: "", 4: f".{conv}"}.get(branch, f".{conv - 1}")
    return f"{module}.branch{branch}{position}.{leaf}"


def dense_layout(model: str, path: str) -> tuple[int, int, int] | None:
    """The auxiliary heads flatten in (channel, height, width) order."""
    return (128, 4, 4) if path.endswith("_head/fc1") else None
