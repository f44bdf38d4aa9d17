"""Squeeze-and-excitation networks on ImageNet, Hu et al. 2018 (arXiv 1709.01507), section 6.1.

    python train.py --config=configs/senet.py                           # SE-ResNet-50
    python train.py --config=configs/senet.py:se_resnext50_32x4d        # or se_resnet101, 152, ...
    python train.py --config=configs/senet.py:smoke                     # five steps, narrow

SGD with momentum 0.9, batch size 1,024, learning rate 0.6 divided by ten every 30 of 100 epochs,
and flips. The paper states no weight decay; 1e-4 is the usual value.

Published validation error, one crop, SE-ResNet-50: 23.29 % top-1, 6.62 % top-5.
"""

from jaxcnn.configs._common import choose, finish, imagenet

NETWORKS = (
    *("se_resnet50", "se_resnet101", "se_resnet152"),
    *("se_resnext50_32x4d", "se_resnext101_32x4d"),
)


def get_config(arg=None):
    """The configuration; `arg` is the id of a network, optionally with "smoke"."""
    name, words = choose(arg, NETWORKS)
    config = imagenet(name, batch_size=1024, epochs=100)
    config.optimizer = {"name": "sgd", "momentum": 0.9, "weight_decay": 1e-4, "decay": "kernels"}
    config.schedule = {"name": "step", "learning_rate": 0.6, "boundaries_epochs": (30, 60, 90)}
    return finish(config, words, side=64, width=16, blocks=(1, 1, 1, 1))
