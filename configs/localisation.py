"""Where an object is as well as what: LeNet with a box head on drawn shapes.

python train.py --config=configs/localisation.py                  # 30 epochs
python train.py --config=configs/localisation.py:pcr              # a box for each class
python train.py --config=configs/localisation.py:smoke            # five steps
"""

from _common import choose

from jaxcnn.training.config import default_config, set_duration, smoke


def get_config(arg=None):
    """The configuration; `arg` is "scr" or "pcr", "smoke" makes it a run of five steps."""
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
