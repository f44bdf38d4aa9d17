"""ResNet-50 on ImageNet with modern recipes: "ResNet strikes back" and torchvision's second one.

    python train.py --config=configs/resnet_modern.py                   # A3, 100 epochs
    python train.py --config=configs/resnet_modern.py:a1                # 600 epochs; a2: 300
    python train.py --config=configs/resnet_modern.py:torchvision       # 600 epochs
    python train.py --config=configs/resnet_modern.py:smoke             # five steps, narrow

A1 to A3 (Wightman, Touvron, Jegou 2021, arXiv 2110.00476, table 2): LAMB, batch size 2,048, five
epochs of warm-up and cosine decay, binary cross-entropy, mixup and CutMix, RandAugment and, in A1
and A2, stochastic depth. In a mixed image, classes whose smoothed target is above 0.2 count as
present (timm's threshold), and the gradient is clipped to a norm of 1 (the default of timm's LAMB).
`torchvision`: SGD, batch size 1,024, learning rate 0.5, label smoothing 0.1, mixup 0.2 and CutMix
1.0, TrivialAugment, random erasing 0.1, a running average of the weights (`ema_top1_error`;
torchvision updates it every 32 steps, over about the same period), and no weight decay on
BatchNorm's parameters. Repeated augmentation, which A1, A2 and torchvision's recipe use, is left
out. The originals draw the pairs and proportions for mixing per batch; here they are drawn per
example. Evaluation resizes bilinearly, timm's bicubically. Random erasing is that of its paper,
with random pixels over 2 to 40 % of the image; torchvision erases 2 to 33 % with the mean color.
TrivialAugment takes the nearest pixel and fills with the mean color; torchvision's recipe
interpolates bilinearly and fills with black.

Published validation error, top-1 in percent: 19.6 (A1), 20.2 (A2), 21.9 (A3, trained at 160, tested
at 224); 19.14 (torchvision, trained at 176, tested at 224).
"""

from jaxcnn.configs._common import WITHOUT_BATCH_NORM, choose, finish, imagenet

# epochs, pixels, learning rate, weight decay, label smoothing, mixup, RandAugment, stochastic depth
STRIKES_BACK = {
    "a3": (100, 160, 8e-3, 0.02, 0.0, 0.1, 6, 0.0),
    "a2": (300, 224, 5e-3, 0.02, 0.0, 0.1, 7, 0.05),
    "a1": (600, 224, 5e-3, 0.01, 0.1, 0.2, 7, 0.05),
}


def get_config(arg=None):
    """The configuration; `arg` is "a1", "a2", "a3" or "torchvision", optionally with "smoke"."""
    recipe, words = choose(arg, (*STRIKES_BACK, "torchvision"))
    config = _torchvision() if recipe == "torchvision" else _strikes_back(*STRIKES_BACK[recipe])
    config.data.cutmix = 1.0
    return finish(config, words, width=16, blocks=(1, 1, 1, 1))


def _strikes_back(epochs, size, rate, weight_decay, smoothing, mixup, magnitude, drop_path):
    photos = {"size": size, "tested": (224, 235)}  # a crop ratio of 95 %
    config = imagenet("resnet50", batch_size=2048, epochs=epochs, **photos)
    config.model.options = {"drop_path": drop_path}
    config.data.augment = (("flip", 0.5), ("randaugment", (2, magnitude, 0.5)))
    config.data.mixup = mixup
    config.loss = {
        "name": "binary_cross_entropy",
        "label_smoothing": smoothing,
        "threshold": 0.2,
    }
    config.optimizer = {
        "name": "lamb",
        "weight_decay": weight_decay,
        "decay": "kernels",
        "clip_norm": 1.0,
    }
    config.schedule = {"name": "cosine", "learning_rate": rate, "warmup_epochs": 5}
    return config


def _torchvision():
    photos = {"size": 176, "tested": (224, 232)}
    config = imagenet("resnet50", batch_size=1024, epochs=600, **photos)
    config.data.augment = (("flip", 0.5), ("trivial_augment", 31), ("random_erasing", 0.1))
    config.data.mixup = 0.2
    config.loss.label_smoothing = 0.1
    config.train.ema_decay = 0.99997
    config.optimizer = {
        "name": "sgd",
        "momentum": 0.9,
        "weight_decay": 2e-5,
        "decay": WITHOUT_BATCH_NORM,
    }
    config.schedule = {"name": "cosine", "learning_rate": 0.5, "warmup_epochs": 5}
    return config
