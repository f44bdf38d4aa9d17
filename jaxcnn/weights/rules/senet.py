"""timm's names: of `seresnet*` for the `_v1_5` nets, of `legacy_se*` for the others.

Both are those of ResNet; the legacy ones differ in the stem, the gates and the classifier.
"""

from jaxcnn.weights.rules import resnet


def torch_name(model: str, path: str) -> str:
    """Maps 'stage1_block1/se/fc1' to 'layer1.0.se_module.fc1' (legacy) or 'layer1.0.se.fc1'."""
    if not model.endswith("_v1_5"):
        if path == "fc":
            return "last_linear"
        if path.startswith("stem_"):
            name = path.removeprefix("stem_")
            return f"layer0.{name}" if name[-1].isdigit() else f"layer0.{name}1"
        path = path.replace("/se/", "/se_module/")
    return resnet.torch_name(model, path)


def dense_layout(model: str, path: str) -> str | None:
    """The gates' dense layers are 1x1 convolutions."""
    return "conv1x1" if "/se/" in path else None
