"""ResNet-18 on Imagenette, ten easy classes of ImageNet, from scratch.

    python train.py --config=configs/imagenette.py                      # 9,469 and 3,925 images
    python train.py --config=configs/imagenette.py:resnet50
    python train.py --config=configs/imagenette.py:smoke                # five steps, narrow

This project's own recipe: SGD with Nesterov momentum 0.9, batch size 64, a one-cycle schedule with
a peak learning rate of 0.1 over 40 epochs, weight decay 5e-4 on kernels, label smoothing 0.1, the
last BatchNorm scale of every block initialized to zero, and flips.

No test error is published for this recipe, and none has been measured.
"""

from jaxcnn.configs._common import choose, finish, imagenet


def get_config(arg=None):
    """The configuration; `arg` is "resnet18" or "resnet50", optionally with "smoke"."""
    name, words = choose(arg, ("resnet18", "resnet50"))
    config = imagenet(name, batch_size=64, epochs=40)
    config.data.source = "tfds:imagenette/160px-v2"
    config.model.options = {"zero_gamma": True}
    config.loss.label_smoothing = 0.1
    config.optimizer = {
        "name": "sgd",
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 5e-4,
        "decay": "kernels",
    }
    config.schedule = {"name": "one_cycle", "learning_rate": 0.1}
    return finish(config, words, side=64, width=16, blocks=(1, 1, 1, 1))
