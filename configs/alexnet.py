"""AlexNet on ImageNet, the recipe of Krizhevsky, Sutskever, Hinton 2012, section 5.

    python train.py --config=configs/alexnet.py                         # the two-GPU network
    python train.py --config=configs/alexnet.py:fixed                   # fixed learning-rate steps
    python train.py --config=configs/alexnet.py:smoke                   # five steps, narrow

SGD with momentum 0.9, batch size 128, weight decay 5e-4 (of the kernels only, as in Caffe's
replication), dropout 0.5, about 90 epochs. The paper divides the learning rate of 0.01 by ten when
the validation error stops improving; here this means that the best error has not improved for five
epochs, and it happens at most three times. `fixed` divides the rate after 30, 60 and 80 epochs
instead, which is this project's choice. The crops are 227 pixels wide (the size for which the
layers' arithmetic works out), taken from the central 256 x 256 square, with flips and the PCA-based
color shift (standard deviation 0.1). Pixels are values from 0 to 255, as in the paper, minus the
mean of each channel instead of the mean image: the network's initial values and its response
normalization are meant for that range. The initialization is Caffe's;
`model.options.initializer=paper` selects the paper's N(0, 0.01) with biases of 1.

Published validation error, ten crops (`jaxcnn evaluate RUN --protocol 10crop`): 40.7 % top-1, 18.2
% top-5.
"""

from jaxcnn.configs._common import choose, finish, imagenet


def get_config(arg=None):
    """The configuration; `arg` is "plateau" or "fixed", optionally with "smoke"."""
    rule, words = choose(arg, ("plateau", "fixed"))
    photos = {"crop": "fixed_square", "size": 227, "tested": (227, 256)}
    config = imagenet("alexnet_2gpu", batch_size=128, epochs=90, **photos)
    config.data.augment = (("flip", 0.5), ("lighting", 0.1))
    config.optimizer = {"name": "sgd", "momentum": 0.9, "weight_decay": 5e-4, "decay": "kernels"}
    if rule == "plateau":
        config.schedule = plateau(0.01)
    else:
        config.schedule = {"name": "step", "learning_rate": 0.01, "boundaries_epochs": (30, 60, 80)}
    return finish(config, words, side=227, fc_width=32, widths=(8, 16, 16, 16, 16))


def plateau(learning_rate):
    """Divides the rate by ten after five evaluations without improvement, at most three times."""
    return {
        "name": "plateau",
        "learning_rate": learning_rate,
        "factor": 0.1,
        "patience": 5,
        "min_scale": 1e-3,
    }
