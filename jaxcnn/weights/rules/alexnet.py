"""torchvision's names for `alexnet_owt`; Caffe's (conv1 .. fc8) for the others."""

_FEATURES = {f"conv{i}/conv": f"features.{n}" for i, n in enumerate((0, 3, 6, 8, 10), 1)}
_CLASSIFIER = {"fc6": "classifier.1", "fc7": "classifier.4", "fc8": "classifier.6"}


def torch_name(model: str, path: str) -> str:
    """Maps 'conv2/conv' to 'features.3', or to 'conv2'."""
    if model.startswith("alexnet_owt"):
        return (_FEATURES | _CLASSIFIER)[path]
    return path.removesuffix("/conv")


def dense_layout(model: str, path: str) -> tuple[int, int, int] | None:
    """fc6 follows a flattening in (channel, height, width) order."""
    return (256, 6, 6) if path == "fc6" else None
