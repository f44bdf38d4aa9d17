"""Localization: LeNet with a box head on generated shapes.

    python train.py --config=configs/localization.py            # one box for all classes, a minute
    python train.py --config=configs/localization.py:pcr        # one box per class
    python train.py --config=configs/localization.py:smoke      # five steps

The dataset is generated, so its boxes are exact: see `jaxcnn.data.readers.synthetic_boxes`. A
prediction is correct if the class is correct and the box has an intersection over union of at least
0.5 with the true one.

Measured with jax 0.10.1 on two shared CPU cores, seed 0, 512 test images, with the first and the
second command: 1.56 % and 4.49 % localization error (top-1):

    box head               class error   localization error, top-1    top-5   seconds
    scr (one for all)           0.00 %                       1.56 %   1.56 %       70
    pcr (one per class)         1.17 %                       4.49 %   3.32 %       98

Published, on ILSVRC (Simonyan & Zisserman 2015, arXiv 1409.1556, appendix A): VGG's top-5
localization error is 26.9 % on the validation set and 25.3 % on the test set, with one box per
class and merged boxes from several views and scales. Both the task and the protocol differ from
those of this recipe.
"""

from jaxcnn.configs._common import choose

from jaxcnn.training import default_config, set_duration, smoke


def get_config(arg=None):
    """The configuration; `arg` is "scr" or "pcr", optionally with "smoke"."""
    head, words = choose(arg, ("scr", "pcr"))
    config = default_config()
    config.model.name = "lenet5_modern"
    config.model.options = {"channels": 3, "box_head": head}
    config.data.source = "synthetic_boxes"
    config.data.augment = (("reflect_crop", 2), ("flip", 0.5))
    config.train.batch_size = 128
    set_duration(config.train, "length", epochs=30.0)
    config.loss = {"name": "cross_entropy", "box_weight": 10.0}
    config.optimizer = {"name": "adamw", "weight_decay": 1e-2}
    config.schedule = {"name": "cosine", "learning_rate": 4e-3, "warmup_percent": 5.0}
    set_duration(config.eval, "every", epochs=5.0)
    set_duration(config.checkpoint, "every", epochs=10.0)
    if "smoke" in words:
        smoke(config, source="synthetic_boxes")
    return config.lock()
