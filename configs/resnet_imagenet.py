"""Residual networks on ImageNet: He et al. 2016, and the large batches of Goyal et al. 2017.

    python train.py --config=configs/resnet_imagenet.py                 # the paper's ResNet-50
    python train.py --config=configs/resnet_imagenet.py:101             # or 18, 34, 152
    python train.py --config=configs/resnet_imagenet.py:goyal,batch8192 # or 256, 1024
    python train.py --config=configs/resnet_imagenet.py:smoke           # five steps, narrow

The paper (arXiv 1512.03385, section 3.4): SGD with momentum 0.9, batch size 256, weight decay 1e-4,
learning rate 0.1, random crops of images whose shorter side is uniform in 256 to 480, flips and the
PCA-based color shift. The paper divides the rate by ten on plateaus, over up to 600,000 steps; here
this happens after 30 and 60 of 90 epochs (450,000 steps), which its sequel (arXiv 1603.05027)
states for the same hyperparameters. Also different: images are normalized per channel, whereas the
paper subtracts the mean image; weight decay leaves biases and BatchNorm's parameters out, which the
paper does not say; BatchNorm's statistics are running averages, which the authors computed anew
after training; and ResNet-18 and 34 have shortcuts B, where the paper reports ResNet-18 with A
only.

`goyal` (arXiv 1706.02677): Inception-style crops, stride on the 3x3 convolution, Nesterov momentum,
a learning rate of 0.1 per 256 images with five epochs of warm-up from 0.1, divided by ten after 30,
60 and 80 of 90 epochs, no weight decay on BatchNorm's parameters, the last BatchNorm scale of every
block initialized to zero, and BatchNorm statistics over 32 images each, regardless of the number of
devices. The classifier has PyTorch's initialization instead of N(0, 0.01).

Published validation error, one crop, top-1 and top-5 in percent: 24.7 and 7.8 (50), 23.6 and 7.1
(101), 23.0 and 6.7 (152). Goyal et al., ResNet-50, top-1: 23.60 +- 0.12 (batch size 256), 23.53 +-
0.08 (1,024), 23.74 +- 0.09 (8,192).
"""

from jaxcnn.configs._common import WITHOUT_BATCH_NORM, choose, finish, imagenet

BATCHES = {"batch256": 256, "batch1024": 1024, "batch8192": 8192}


def get_config(arg=None):
    """The configuration; `arg` lists a depth, "goyal", a batch size and "smoke"."""
    depth, words = choose(arg, ("50", "101", "152", "18", "34"), ("goyal", *BATCHES))
    batches = sorted(words & set(BATCHES))
    if len(batches) > 1:
        raise ValueError(f"config argument {arg!r} names {' and '.join(batches)}; give one")
    if "goyal" in words:
        config = _goyal(depth, BATCHES[batches[0]] if batches else 256)
    else:
        if batches:
            raise ValueError(f"config argument {arg!r} has a batch; only goyal takes one")
        name = f"resnet{depth}" + ("_v1" if int(depth) >= 50 else "")
        config = imagenet(name, batch_size=256, epochs=90, crop="scale_jitter_480")
        config.data.augment = (("flip", 0.5), ("lighting", 0.1))
        config.optimizer = {
            "name": "sgd",
            "momentum": 0.9,
            "weight_decay": 1e-4,
            "decay": "kernels",
        }
        config.schedule = {"name": "step", "learning_rate": 0.1, "boundaries_epochs": (30, 60)}
    return finish(config, words, side=64, width=16, blocks=(1, 1, 1, 1))


def _goyal(depth, batch_size):
    config = imagenet(f"resnet{depth}", batch_size=batch_size, epochs=90)
    config.model.options = {"zero_gamma": True}
    config.train.bn_group = 32
    config.optimizer = {
        "name": "sgd",
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 1e-4,
        "decay": WITHOUT_BATCH_NORM,
    }
    config.schedule = {
        "name": "step",
        "learning_rate": 0.1 * batch_size / 256,
        "boundaries_epochs": (30, 60, 80),
        "warmup_epochs": 5,
        "warmup_from": 0.1,
    }
    return config
