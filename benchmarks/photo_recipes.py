"""The recipes of `small_photos.py`, which older versions of the package can read as well."""

from jaxcnn.training.config import default_config, set_duration

# Networks that pool behind BatchNorm, with image sizes at which the first version of the package
# lost gradients there (`first_step.py`; at 64 it lost none).
NARROW = {
    "vgg_a_bn": (
        96,
        {"min_size": 96, "widths": (16, 32, 64, 128, 128), "fc_width": 128, "dropout": 0.0},
    ),
    "resnet18": (80, {"width": 32, "stem": (32,)}),
}


def get_config(arg=None):
    """The configuration; `arg` is "vgg_a_bn", "resnet18", "pretrain", "scratch" or "finetuned"."""
    recipe = arg or "resnet18"
    few = recipe in ("scratch", "finetuned")
    config = default_config()
    config.model.name = recipe if recipe in NARROW else "resnet18"
    size, config.model.options = NARROW.get(recipe, (64, {}))
    config.data.crop, config.data.augment = "inception", (("flip", 0.5),)
    config.data.image_size = config.data.eval_size = config.data.eval_resize = size
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
    epochs = 12.0 if few else 10.0 if recipe in NARROW else 20.0
    set_duration(config.train, "length", epochs=epochs)
    set_duration(config.eval, "every", epochs=1.0 if few else epochs / 10)
    config.eval.batch_size = 70 if few else 100
    return config
