"""The recipes of `small_photos.py`, which older versions of the package can read as well."""

from jaxcnn.training.config import default_config, set_duration

NARROW = {"min_size": 64, "widths": (16, 32, 64, 128, 128), "fc_width": 128, "dropout": 0.0}


def get_config(arg=None):
    """The configuration; `arg` is "resnet18", "vgg_a_bn", "scratch" or "finetuned"."""
    recipe = arg or "resnet18"
    few = recipe in ("scratch", "finetuned")
    config = default_config()
    config.model.name = "resnet18" if few else recipe
    if recipe == "vgg_a_bn":
        config.model.options = NARROW
    config.data.crop, config.data.augment = "inception", (("flip", 0.5),)
    config.data.image_size = config.data.eval_size = config.data.eval_resize = 64
    config.optimizer = {
        "name": "sgd",
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 5e-4,
        "decay": "kernels",
    }
    if recipe == "finetuned":
        config.optimizer.rates = ((r"fc/.*", 1.0), (r"(?!fc/).*", 0.1))
    config.schedule = {"name": "one_cycle", "learning_rate": 0.02 if few else 0.1}
    config.train.batch_size = 32 if few else 64
    set_duration(config.train, "length", epochs=30.0 if few else 20.0)
    set_duration(config.eval, "every", epochs=1.0 if few else 2.0)
    config.eval.batch_size = 70 if few else 100
    return config
