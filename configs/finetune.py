"""Fine-tuning: a trunk trained on ImageNet and a new classifier, on a small set.

    python train.py --config=configs/finetune.py                        # Flowers-102 through TFDS
    python train.py --config=configs/finetune.py:frozen                 # the classifier alone
    python train.py --config=configs/finetune.py \\
        --config.model.weights=PATH.safetensors --config.data.source=tfds:cifar10
    python train.py --config=configs/finetune.py:smoke                  # five steps, random trunk

ResNet-50 with torchvision's weights. The classifier is new and learns at the stated rate, the trunk
at a tenth of it, or, `frozen`, not at all, though BatchNorm goes on gathering its statistics. SGD
with momentum 0.9, batch 64, 20 epochs, rate 0.02 along a cosine after one epoch of warm-up: this
project's choice.

No test error is published for it, and none has been measured.
"""

from jaxcnn.configs._common import choose, finish, imagenet


def get_config(arg=None):
    """The configuration; `arg` is a list of "whole" or "frozen", and "smoke"."""
    form, words = choose(arg, ("whole", "frozen"))
    config = imagenet("resnet50", batch_size=64, epochs=20)
    config.model.weights = "resnet50.tv_in1k"
    config.data.source = "tfds:oxford_flowers102"
    trunk = 0.0 if form == "frozen" else 0.1
    config.optimizer = {
        "name": "sgd",
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "decay": "kernels",
        "rates": ((r"fc/.*", 1.0), (r"(?!fc/).*", trunk)),
    }
    config.schedule = {"name": "cosine", "learning_rate": 0.02, "warmup_epochs": 1}
    return finish(config, words, width=16, blocks=(1, 1, 1, 1))
