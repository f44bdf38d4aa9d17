"""torchvision's names: positions in one sequence of convolutions, norms, ReLUs and pools."""

import re

from jaxcnn.models import vgg

_CLASSIFIER = {"fc6": "classifier.0", "fc7": "classifier.3", "fc8": "classifier.6"}


def torch_name(model: str, path: str) -> str:
    """Maps 'block2/conv1' to 'features.5', with BatchNorm to 'features.7'."""
    match = re.fullmatch(r"block(\d)/(conv|bn)(\d)", path)
    if match is None:
        return _CLASSIFIER.get(path, path.replace("/", "."))
    block, kind, index = int(match[1]), match[2], int(match[3])
    options = vgg.VARIANTS[model].keywords
    layers_per_conv = 3 if options.get("batch_norm") else 2
    before = sum(options["convs"][: block - 1]) * layers_per_conv + block - 1
    return f"features.{before + (index - 1) * layers_per_conv + (kind == 'bn')}"


def dense_layout(model: str, path: str) -> tuple[int, int, int] | None:
    """fc6 follows a flattening in (channel, height, width) order."""
    return (512, 7, 7) if path == "fc6" else None
