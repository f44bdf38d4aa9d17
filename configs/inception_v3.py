"""Inception-v3 on ImageNet, the recipe of Szegedy et al. 2016 (arXiv 1512.00567), section 8.

    python train.py --config=configs/inception_v3.py                    # the paper's recipe
    python train.py --config=configs/inception_v3.py:tpu                # the released TPU script
    python train.py --config=configs/inception_v3.py:smoke              # five steps

RMSProp as implemented in TensorFlow (decay 0.9, epsilon 1.0, momentum 0.9), learning rate 0.045
multiplied by 0.94 every two epochs, 100 epochs, gradient clipping at norm 2, label smoothing 0.1,
and a running average of the weights for evaluation (`ema_top1_error`). From the released code:
weight decay 4e-5 on kernels, auxiliary loss weight 0.4, averaging decay 0.9999. In the paper, 50
replicas with 32 images each work asynchronously; here they form one batch of 1,600.

`tpu`: batch size 1,024, a learning rate of 0.165 per 256 images, multiplied by 0.94 every three
epochs, seven epochs of warm-up, averaging decay 0.995, and BatchNorm momentum 0.996.

Published validation error, one crop: 21.2 % top-1, 5.6 % top-5.
"""

from jaxcnn.configs._common import choose, finish, imagenet


def get_config(arg=None):
    """The configuration; `arg` is "paper" or "tpu", optionally with "smoke"."""
    variant, words = choose(arg, ("paper", "tpu"))
    paper = variant == "paper"
    photos = {"size": 299, "tested": (299, 342)}  # a crop ratio of 87.5 %
    config = imagenet("inception_v3", batch_size=1600 if paper else 1024, epochs=100, **photos)
    config.model.options = {"bn_momentum": 0.9997 if paper else 0.996}
    config.loss.label_smoothing, config.loss.aux_weight = 0.1, 0.4
    config.train.ema_decay = 0.9999 if paper else 0.995
    config.optimizer = {
        "name": "rmsprop",
        "rho": 0.9,
        "eps": 1.0,
        "momentum": 0.9,
        "weight_decay": 4e-5,
        "decay": "kernels",
        "clip_norm": 2.0,
    }
    config.schedule = {
        "name": "exponential",
        "learning_rate": 0.045 if paper else 0.165 * 4,
        "factor": 0.94,
        "every_epochs": 2 if paper else 3,
        "staircase": True,
    }
    if not paper:
        config.schedule.warmup_epochs = 7
    return finish(config, words, side=80)
