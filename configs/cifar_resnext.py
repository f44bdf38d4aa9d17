"""ResNeXt-29 on CIFAR-10, the recipe of Xie et al. 2017 (arXiv 1611.05431), section 5.3.

    python train.py --config=configs/cifar_resnext.py                   # 8x64d, data from TFDS
    python train.py --config=configs/cifar_resnext.py:16x64d
    python train.py --config=configs/cifar_resnext.py \\
        --config.data.source=files:cifar10 --config.data.dir=DIR        # the original files
    python train.py --config=configs/cifar_resnext.py:smoke             # five steps, narrow

SGD with Nesterov momentum 0.9, batch size 128, weight decay 5e-4, 300 epochs, learning rate 0.1
divided by ten after 49 and 74 percent of them; images are padded by 4 pixels, cropped and flipped.

This is the recipe and the network of the authors' release. The paper's own runs had pre-activation
blocks and a batch size of 256; of them it reports:

Published test error: 3.65 % (8x64d), 3.58 % (16x64d).
"""

from jaxcnn.configs._common import choose, finish
from jaxcnn.configs.cifar_wrn import cifar10, nesterov

from jaxcnn.training import set_duration


def get_config(arg=None):
    """The configuration; `arg` is "8x64d" or "16x64d", optionally with "smoke"."""
    size, words = choose(arg, ("8x64d", "16x64d"))
    config = cifar10(f"resnext29_{size}_cifar")
    set_duration(config.train, "length", epochs=300.0)
    config.optimizer = nesterov(5e-4)
    config.schedule = {"name": "step", "learning_rate": 0.1, "boundaries_percent": (49, 74)}
    return finish(config, words, base_width=8, blocks=(1, 1, 1))
