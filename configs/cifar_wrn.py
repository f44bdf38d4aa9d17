"""Wide residual networks on CIFAR-10, the recipe of Zagoruyko & Komodakis 2016 (arXiv 1605.07146).

    python train.py --config=configs/cifar_wrn.py                       # WRN-28-10, data from TFDS
    python train.py --config=configs/cifar_wrn.py:40_4                  # or 16_8
    python train.py --config=configs/cifar_wrn.py:dropout               # dropout 0.3 in the blocks
    python train.py --config=configs/cifar_wrn.py \\
        --config.data.source=files:cifar10 --config.data.dir=DIR        # the original files
    python train.py --config=configs/cifar_wrn.py:smoke                 # five steps, narrow

SGD with Nesterov momentum 0.9, batch size 128, weight decay 5e-4, 200 epochs, learning rate 0.1
multiplied by 0.2 after 60, 120 and 160 epochs; images are padded by 4 pixels with their own
reflection, cropped and flipped.

Published test error, WRN-28-10: 4.00 %, with dropout 3.89 %.
"""

from jaxcnn.configs._common import choose, finish

from jaxcnn.training import default_config, set_duration


def get_config(arg=None):
    """The configuration; `arg` lists "28_10", "40_4" or "16_8", "dropout" and "smoke"."""
    size, words = choose(arg, ("28_10", "40_4", "16_8"), ("dropout",))
    config = cifar10(f"wrn{size}_cifar")
    config.data.augment = (("reflect_crop", 4), ("flip", 0.5))
    if "dropout" in words:
        config.model.options = {"dropout": 0.3}
    set_duration(config.train, "length", epochs=200.0)
    config.optimizer = nesterov(5e-4)
    config.schedule = rate_in_steps()
    return finish(config, words, width=32, blocks=(1, 1, 1))


def cifar10(name):
    """A configuration for a network on CIFAR-10 with batch size 128."""
    config = default_config()
    config.model.name = name
    config.data.source = "tfds:cifar10"
    config.data.augment = (("pad_crop", 4), ("flip", 0.5))
    config.eval.batch_size = 1000
    set_duration(config.checkpoint, "every", epochs=5.0)
    config.log.every_steps = 100
    return config


def nesterov(weight_decay):
    """SGD with Nesterov momentum and weight decay on all parameters, as in the authors' code."""
    return {"name": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": weight_decay}


def rate_in_steps():
    """A learning rate of 0.1, multiplied by 0.2 after 60, 120 and 160 epochs."""
    return {
        "name": "step",
        "learning_rate": 0.1,
        "factor": 0.2,
        "boundaries_epochs": (60, 120, 160),
    }
