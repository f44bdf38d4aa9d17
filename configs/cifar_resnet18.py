"""The wide ResNet-18 on CIFAR-10, the recipe of DeVries & Taylor 2017 (arXiv 1708.04552).

    python train.py --config=configs/cifar_resnet18.py                  # with cutout, from TFDS
    python train.py --config=configs/cifar_resnet18.py:standard         # without cutout
    python train.py --config=configs/cifar_resnet18.py:fast             # minutes on one GPU
    python train.py --config=configs/cifar_resnet18.py \\
        --config.data.source=files:cifar10 --config.data.dir=DIR        # the original files
    python train.py --config=configs/cifar_resnet18.py \\
        --config.model.dtype=bfloat16                                   # on a GPU or TPU
    python train.py --config=configs/cifar_resnet18.py:smoke            # five steps, narrow

The ImageNet ResNet-18, with 64 to 512 channels, but with a 3x3 stem and no pooling: 11,173,962
parameters. SGD with Nesterov momentum 0.9, batch size 128, weight decay 5e-4, 200 epochs, learning
rate 0.1 multiplied by 0.2 after 60, 120 and 160 epochs. Images are padded by 4 pixels, cropped and
flipped, and a square of 16 pixels is cut out.

`fast` is not a published recipe: bfloat16, batch size 256, 160 epochs, a learning rate of 0.2 after
five epochs of linear warm-up and then a cosine decay to 0, label smoothing 0.1, cutout.

Measured on one NVIDIA H200 with `fast`: a test error of 3.72 % (one seed) after 139 s from start to
finish with compiled programs in the cache; the first start compiles for another 99 s
(benchmarks/results/resnet18_cifar_fast_160_epochs.csv).

Published test error, mean of five runs: 3.99 %, without cutout 4.72 %.
"""

from jaxcnn.configs._common import choose, finish
from jaxcnn.configs.cifar_wrn import cifar10, nesterov, rate_in_steps

from jaxcnn.training import set_duration


def get_config(arg=None):
    """The configuration; `arg` is "cutout", "standard" or "fast", optionally with "smoke"."""
    variant, words = choose(arg, ("cutout", "standard", "fast"))
    config = cifar10("resnet18")
    config.model.options = {"small_images": True, "min_size": 8}
    if variant != "standard":
        config.data.augment = (*config.data.augment, ("cutout", 16))
    set_duration(config.train, "length", epochs=200.0)
    config.optimizer = nesterov(5e-4)
    config.schedule = rate_in_steps()
    if variant == "fast":
        config.model.dtype = "bfloat16"
        config.train.batch_size = 256
        set_duration(config.train, "length", epochs=160.0)
        config.loss.label_smoothing = 0.1
        config.schedule = {
            "name": "cosine",
            "learning_rate": 0.2,
            "warmup": "linear",
            "warmup_epochs": 5.0,
        }
        set_duration(config.eval, "every", percent=20.0)
        set_duration(config.checkpoint, "every", percent=50.0)
    return finish(config, words, width=8, blocks=(1, 1, 1, 1), stem=(8,))
