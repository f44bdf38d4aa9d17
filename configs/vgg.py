"""VGG networks on ImageNet, the recipe of Simonyan & Zisserman 2015 (arXiv 1409.1556), section 3.1.

    python train.py --config=configs/vgg.py                             # network D, VGG-16
    python train.py --config=configs/vgg.py:e                           # or a, b, c
    python train.py --config=configs/vgg.py:d_bn                        # with BatchNorm; or a, b, e
    python train.py --config=configs/vgg.py:d,staged \\
        --config.model.weights=vgg_a.safetensors                        # some layers from net A
    python train.py --config=configs/vgg.py:smoke                       # five steps, narrow

SGD with momentum 0.9, batch size 256, weight decay 5e-4 (of the kernels only, as in Caffe), dropout
0.5, 74 epochs (370,000 steps), and a learning rate of 0.01 divided by ten on a plateau, at most
three times, as in `alexnet.py`. Random crops of images whose shorter side is uniform in 256 to 512,
flips and the PCA-based color shift.

The paper initializes B to E with A's first four convolutions and last three layers (section 3.1).
`staged` does the same with the weights of a run of A (`jaxcnn export RUN vgg_a.safetensors`). The
paper does not say where the convolutions go; here each stays in its stage. He initialization makes
this unnecessary, as the paper found later for Glorot initialization, so the other variants use it.

The paper's networks with scales of 256 to 512 are fine-tuned from those of a fixed scale of 384,
which start from those of 256; here they are trained so from the start. Images are divided by a
standard deviation per channel, whereas the paper only subtracts the mean.

Published validation error of one network, multi-crop and dense, top-1 and top-5 in percent: 24.4
and 7.2 (D), 24.4 and 7.1 (E). Dense alone, at three scales:
`jaxcnn evaluate RUN --protocol dense3`.
"""

from jaxcnn.configs._common import choose, finish, imagenet
from jaxcnn.configs.alexnet import plateau

# Net A's first four convolutions, each in its stage, and its last three layers.
FIRST_AND_LAST = "block[12]/conv1|block3/conv[12]|fc[678]"


def get_config(arg=None):
    """The configuration; `arg` lists a network such as "d" or "d_bn", "staged" and "smoke"."""
    letters = ("d", "a", "b", "c", "e", "a_bn", "b_bn", "d_bn", "e_bn")
    letter, words = choose(arg, letters, ("staged",))
    config = imagenet(f"vgg_{letter}", batch_size=256, epochs=74, crop="scale_jitter")
    config.data.augment = (("flip", 0.5), ("lighting", 0.1))
    config.optimizer = {"name": "sgd", "momentum": 0.9, "weight_decay": 5e-4, "decay": "kernels"}
    config.schedule = plateau(0.01)
    if "staged" in words:
        config.model.weights_only = FIRST_AND_LAST
    return finish(config, words, side=224, fc_width=32, widths=(4, 8, 8, 8, 8))
