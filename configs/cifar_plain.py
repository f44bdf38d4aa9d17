"""Plain networks on CIFAR-10: the networks of `cifar_resnet.py` without shortcuts, with its recipe.

    python train.py --config=configs/cifar_plain.py                     # plain-20, data from TFDS
    python train.py --config=configs/cifar_plain.py:56                  # or 32, 44, 110
    python train.py --config=configs/cifar_plain.py:56,split            # 45,000 / 5,000 images
    python train.py --config=configs/cifar_plain.py:smoke               # five steps

Deeper plain networks are worse, even in training error; this observation motivated shortcuts (He et
al. 2016, arXiv 1512.03385, Fig. 6 left).

Expected test error, read off the paper's curves: about 9 % (20) and 13 % (56), above 60 % (110). An
independent reproduction reports means over five runs of 9.78 +- 0.13 (20) and 12.95 +- 0.22 (56).

Measured on two busy CPU cores with jax 0.10.1, in a run shortened to four epochs as in
`cifar_resnet.py`: plain-20 has 35.85 % test error (3,585 of 10,000 wrong) and 37.11 % training
error in its last epoch, compared with 25.80 % and 25.71 % for ResNet-20:

    python train.py --config=configs/cifar_plain.py --config.data.source=files:cifar10 \\
        --config.data.dir=DIR --config.train.length_epochs=4 \\
        "--config.schedule.boundaries_steps=(782,1173)"
"""

from jaxcnn.configs.cifar_resnet import recipe

DEPTHS = (20, 32, 44, 56, 110)


def get_config(arg=None):
    """The configuration; `arg` lists a depth, "split" and "smoke", such as "56,split"."""
    return recipe("plain", DEPTHS, arg)
