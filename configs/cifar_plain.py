"""Plain networks on CIFAR-10: those of `cifar_resnet.py` without shortcuts, by the same recipe.

    python train.py --config=configs/cifar_plain.py                     # plain-20, through TFDS
    python train.py --config=configs/cifar_plain.py:56                  # or 32, 44, 110
    python train.py --config=configs/cifar_plain.py:56,split            # 45,000 / 5,000 images
    python train.py --config=configs/cifar_plain.py:smoke               # five steps

Deeper plain networks are worse, in training error too: the paper's reason for shortcuts (He et al.
2016, arXiv 1512.03385, Fig. 6 left). The paper has curves and no figures for them: about 9 % test
error (20) and 13 % (56) as read off, above 60 % (110). An independent reproduction gives means of
five runs of 9.78 +- 0.13 (20) and 12.95 +- 0.22 (56).
"""

from cifar_resnet import recipe

DEPTHS = (20, 32, 44, 56, 110)


def get_config(arg=None):
    """The configuration; `arg` is a list such as "56,split" of a depth, "split" and "smoke"."""
    return recipe("plain", DEPTHS, arg)
