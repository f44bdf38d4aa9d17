"""timm's names: positions in one sequence of modules, branches that count from 0."""

import re

# Modules of `features` before the first block of a stage, and where the reductions are.
_BEFORE = {"1": 6, "2": 11, "3": 19}
_REDUCTIONS = {"reduction_a": 10, "reduction_b": 18}


def torch_name(model: str, path: str) -> str:
    """Maps 'stage1_block2/branch2_conv1/bn' to 'features.7.branch1.0.bn'."""
    head, _, rest = path.partition("/")
    if head == "fc":
        return "last_linear"
    if head == "entry":
        return _entry_name(rest)
    if head.startswith("stage"):
        stage, block = head.removeprefix("stage").split("_block")
        index = _BEFORE[stage] + int(block) - 1
    elif head in _REDUCTIONS:
        stage, index = head, _REDUCTIONS[head]
    else:
        return path.replace("/", ".")  # the auxiliary head, which timm does not have
    match = re.fullmatch(r"branch(\d)_(conv|mixed)(\d)(?:/branch(\d)_conv1)?/(\w+)", rest)
    assert match, path
    branch, kind, conv, side, leaf = match.groups()
    position = int(conv) - 1
    if stage == "3" and branch in "23":
        # No sequences here: branch1_0, branch1_1a, branch1_1b; the sides follow 1 or 3 layers.
        if kind == "mixed":
            position = 1 if branch == "2" else 3
        suffix = f"_{position}" + ("ab"[int(side) - 1] if side else "")
    elif branch == "4":
        suffix = f".{position + 1}"  # the pool comes first
    elif branch == "1" and stage != "reduction_b":
        suffix = ""  # one convolution is no sequence
    else:
        suffix = f".{position}"
    return f"features.{index}.branch{int(branch) - 1}{suffix}.{leaf}"


def _entry_name(path: str) -> str:
    if match := re.fullmatch(r"conv(\d)/(\w+)", path):
        return f"features.{int(match[1]) - 1}.{match[2]}"
    match = re.fullmatch(r"mixed(\d)/branch(\d)_conv(\d)/(\w+)", path)
    assert match, path
    mixed, branch, conv, leaf = match.groups()
    if mixed == "2":
        return f"features.4.branch{int(branch) - 1}.{int(conv) - 1}.{leaf}"
    return f"features.{int(mixed) + 2}.conv.{leaf}"  # beside a pool


def dense_layout(model: str, path: str) -> None:
    """The classifier is plain."""
    return None
