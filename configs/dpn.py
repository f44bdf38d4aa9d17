"""Dual path networks on ImageNet, after Chen et al. 2017 (arXiv 1707.01629), section 4.1.

    python train.py --config=configs/dpn.py                             # DPN-92
    python train.py --config=configs/dpn.py:dpn98                       # or dpn131
    python train.py --config=configs/dpn.py:smoke                       # five steps, shallow

SGD on 40 GPUs with 32 images each (24 for DPN-131), learning rate sqrt(0.1), or 0.4 for DPN-98,
divided by ten at several epochs; flips, but not the paper's shifts of hue, saturation and
lightness. Images are resized bilinearly (bicubic in the release), and BatchNorm's statistics are
not computed anew after training. The paper does not give those epochs, the momentum, the weight
decay or the length; 30, 60 and 80 of 90 epochs, 0.9 and 1e-4 are this project's choice.

Published validation error, one crop, DPN-92: 20.73 % top-1, 5.37 % top-5.
"""

from jaxcnn.configs._common import choose, finish, imagenet


def get_config(arg=None):
    """The configuration; `arg` is "dpn92", "dpn98" or "dpn131", optionally with "smoke"."""
    name, words = choose(arg, ("dpn92", "dpn98", "dpn131"))
    config = imagenet(name, batch_size=40 * (24 if name == "dpn131" else 32), epochs=90)
    config.optimizer = {"name": "sgd", "momentum": 0.9, "weight_decay": 1e-4, "decay": "kernels"}
    config.schedule = {
        "name": "step",
        "learning_rate": 0.4 if name == "dpn98" else 0.1**0.5,
        "boundaries_epochs": (30, 60, 80),
    }
    return finish(config, words, blocks=(1, 1, 1, 1))
