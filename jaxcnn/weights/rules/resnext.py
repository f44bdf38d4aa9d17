"""torchvision's names, those of ResNet; for the pre-activated CIFAR net timm's of `resnetv2_*`."""

from jaxcnn.weights.rules import resnet, resnet_v2


def torch_name(model: str, path: str) -> str:
    """Maps 'stage1_block1/conv2' to 'layer1.0.conv2'."""
    return (resnet_v2 if "_v2" in model else resnet).torch_name(model, path)


def dense_layout(model: str, path: str) -> str | None:
    """The classifier is a plain linear layer, in the pre-activated net a 1x1 convolution."""
    return (resnet_v2 if "_v2" in model else resnet).dense_layout(model, path)
