"""Inception-v3 on ImageNet, the recipe of Szegedy et al. 2016 (arXiv 1512.00567), section 8.

    python train.py --config=configs/inception_v3.py                    # the paper's
    python train.py --config=configs/inception_v3.py:tpu                # the released TPU script's
    python train.py --config=configs/inception_v3.py:smoke              # five steps

RMSProp as TensorFlow computes it (decay 0.9, epsilon 1.0, momentum 0.9), rate 0.045 times 0.94
every two epochs, 100 epochs, gradients clipped at norm 2, label smoothing 0.1, and for testing a
running average of the weights (`ema_top1_error`). From the released code: weight decay 4e-5 on
kernels, auxiliary loss 0.4, average 0.9999. The paper's 50 replicas take 32 images each and work
asynchronously; here they are one batch of 1,600.

`tpu`: batch 1,024 at 0.165 per 256 images, times 0.94 every three epochs, warm-up of seven epochs,
average 0.995, and 0.996 of BatchNorm's old statistics kept.

Published validation error, one crop: 21.2 % top-1, 5.6 % top-5.
"""

from jaxcnn.configs._common import choose, finish, imagenet


def get_config(arg=None):
    """The configuration; `arg` is a list of "paper" or "tpu", and "smoke"."""
    form, words = choose(arg, ("paper", "tpu"))
    paper = form == "paper"
    photos = {"size": 299, "tested": (299, 342)}  # the central 87.5 %
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
