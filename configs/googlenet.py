"""GoogLeNet on ImageNet, after Szegedy et al. 2015 (arXiv 1409.4842), section 6.

    python train.py --config=configs/googlenet.py                       # the paper's schedule
    python train.py --config=configs/googlenet.py:quick                 # Caffe's "quick" solver
    python train.py --config=configs/googlenet.py:smoke                 # five steps

SGD with momentum 0.9, a learning rate lowered by 4 % every 8 epochs, auxiliary classifiers weighted
by 0.3, and a running average of the weights for evaluation (`ema_top5_error`). The paper gives
neither batch size, learning rate, weight decay nor length: 32, 0.01 and 2e-4 are those of Caffe's
solver (which trains biases at twice the rate), and 120 epochs are this project's choice. `quick`
lowers the rate as (1 - progress)^0.5 over 60 epochs; Caffe cropped images that it had warped to 256
x 256 pixels, while both recipes here take Inception's crops, and neither has the paper's
photometric distortions.

Published validation error, one crop: 10.07 % top-5 (paper); 31.3 % top-1, 11.1 % top-5 (quick).
"""

from jaxcnn.configs._common import choose, finish, imagenet


def get_config(arg=None):
    """The configuration; `arg` is "paper" or "quick", optionally with "smoke"."""
    solver, words = choose(arg, ("paper", "quick"))
    config = imagenet("googlenet", batch_size=32, epochs=120 if solver == "paper" else 60)
    config.loss.aux_weight = 0.3
    config.optimizer = {"name": "sgd", "momentum": 0.9, "weight_decay": 2e-4, "decay": "kernels"}
    if solver == "paper":
        config.train.ema_decay = 0.9999
        config.schedule = {
            "name": "exponential",
            "learning_rate": 0.01,
            "factor": 0.96,
            "every_epochs": 8,
            "staircase": True,
        }
    else:
        config.schedule = {"name": "polynomial", "learning_rate": 0.01, "power": 0.5}
    return finish(config, words, side=64)
