"""ZFNet on ImageNet, the recipe of Zeiler & Fergus 2014 (arXiv 1311.2901), section 3.1.

    python train.py --config=configs/zfnet.py                           # 384, 384, 256 channels
    python train.py --config=configs/zfnet.py:512                       # 512, 1024, 512 channels
    python train.py --config=configs/zfnet.py:smoke                     # five steps, narrow

SGD with momentum 0.9, batch size 128, 70 epochs, dropout 0.5, and flips. The paper lowers the
learning rate of 0.01 by hand when the validation error plateaus; here this is done as in
`alexnet.py`. The paper states no weight decay; 5e-4 is AlexNet's, of the kernels only. Its
renormalization of filters whose RMS exceeds 0.1 is left out.

The paper takes ten fixed crops of the central 256 x 256 square; here any crop of it may be drawn.
Pixels are values from 0 to 255 minus the mean of each channel; the paper subtracts the mean image.

Published validation error, ten crops (`jaxcnn evaluate RUN --protocol 10crop`): 38.4 % top-1, 16.5
% top-5 (384), 37.5 % and 16.0 % (512).
"""

from jaxcnn.configs._common import choose, finish, imagenet
from jaxcnn.configs.alexnet import plateau


def get_config(arg=None):
    """The configuration; `arg` is "384" or "512", optionally with "smoke"."""
    maps, words = choose(arg, ("384", "512"))
    config = imagenet(f"zfnet_{maps}", batch_size=128, epochs=70, crop="fixed_square")
    config.optimizer = {"name": "sgd", "momentum": 0.9, "weight_decay": 5e-4, "decay": "kernels"}
    config.schedule = plateau(0.01)
    return finish(config, words, side=224, fc_width=32, widths=(8, 16, 16, 16, 16))
