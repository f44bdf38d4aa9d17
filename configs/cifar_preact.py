"""Pre-activation residual networks on CIFAR-10, He et al. 2016 (arXiv 1603.05027), appendix.

    python train.py --config=configs/cifar_preact.py                    # 110 layers, from TFDS
    python train.py --config=configs/cifar_preact.py:164                # or 1001
    python train.py --config=configs/cifar_preact.py \\
        --config.data.source=files:cifar10 --config.data.dir=DIR        # the original files
    python train.py --config=configs/cifar_preact.py:smoke              # five steps, shallow

The recipe of `cifar_resnet.py` (SGD with momentum 0.9, batch size 128, 64,000 steps, learning rate
0.1 divided by ten after 32,000 and 48,000 steps, weight decay 1e-4), with a rate of 0.01 for the
first 400 steps.

Published test error, median of five runs: 6.37 % (110), 5.46 % (164), 4.92 % (1001; 4.62 % with
batch size 64).
"""

from jaxcnn.configs._common import choose, finish
from jaxcnn.configs.cifar_wrn import cifar10

from jaxcnn.training import set_duration


def get_config(arg=None):
    """The configuration; `arg` is "110", "164" or "1001", optionally with "smoke"."""
    depth, words = choose(arg, ("110", "164", "1001"))
    config = cifar10(f"resnet{depth}_v2_cifar")
    set_duration(config.train, "length", steps=64_000)
    config.optimizer = {"name": "sgd", "momentum": 0.9, "weight_decay": 1e-4}
    config.schedule = {
        "name": "step",
        "learning_rate": 0.1,
        "boundaries_steps": (32_000, 48_000),
        "warmup": "constant",
        "warmup_from": 0.01,
        "warmup_steps": 400,
    }
    return finish(config, words, blocks=(1, 1, 1))
