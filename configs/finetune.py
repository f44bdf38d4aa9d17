"""Fine-tuning: a backbone trained on ImageNet and a new classifier, on a small dataset.

    python train.py --config=configs/finetune.py                        # Flowers-102 from TFDS
    python train.py --config=configs/finetune.py:frozen                 # only the classifier
    python train.py --config=configs/finetune.py \\
        --config.model.weights=PATH.safetensors --config.data.source=tfds:cifar10
    python train.py --config=configs/finetune.py:smoke                  # five steps, random weights

ResNet-50 with torchvision's weights, or another network (`model.name=vgg16
model.weights=vgg16.tv_in1k`) whose classifier is named `fc` or `fc8`. The classifier is new and
trains at the given learning rate. The backbone trains at a tenth of it or, with `frozen`, not at
all, although its BatchNorm statistics are still updated. SGD with momentum 0.9, batch size 64, 20
epochs, a learning rate of 0.02 with one epoch of warm-up and cosine decay; all of these are this
project's choice.

Images are 224 pixels wide. To train and evaluate at another size, set `data.image_size` and
`data.eval_size` to it, and `data.eval_resize` to none.

No test error is published for this recipe, and none has been measured.
"""

from jaxcnn.configs._common import choose, finish, imagenet


def get_config(arg=None):
    """The configuration; `arg` is "whole" or "frozen", optionally with "smoke"."""
    variant, words = choose(arg, ("whole", "frozen"))
    config = imagenet("resnet50", batch_size=64, epochs=20)
    config.model.weights = "resnet50.tv_in1k"
    config.data.source = "tfds:oxford_flowers102"
    backbone = 0.0 if variant == "frozen" else 0.1
    config.optimizer = {
        "name": "sgd",
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "decay": "kernels",
        "rates": ((r"fc8?/.*", 1.0), (r"(?!fc8?/).*", backbone)),  # fc8 of AlexNet, ZFNet and VGG
    }
    config.schedule = {"name": "cosine", "learning_rate": 0.02, "warmup_epochs": 1}
    return finish(config, words, width=16, blocks=(1, 1, 1, 1))
