"""Shared by the recipes: arguments, ImageNet, and the five-step variant."""

from jaxcnn.training import default_config, set_duration, smoke

# Weight decay for kernels and the classifier's biases, but not for BatchNorm's scales and biases.
WITHOUT_BATCH_NORM = (
    (r"(.*/)?kernel|fc/bias", 1.0),
    (r"(?!((.*/)?kernel|fc/bias)$).*", 0.0),
)


def choose(arg, variants, flags=()):
    """Splits an argument such as "50,goyal" into (variant, set of words).

    The default variant is the first one.
    """
    known = (*variants, *flags, "smoke")
    words = [word for word in (arg or "").split(",") if word]
    for word in words:
        if word not in known:
            raise ValueError(
                f"config argument {word!r} is unknown; it must be one of {', '.join(known)}"
            )
    chosen = [word for word in words if word in variants]
    if len(chosen) > 1:
        raise ValueError(f"config argument {arg!r} names {' and '.join(chosen)}; give one")
    return (chosen or list(variants))[0], set(words)


def imagenet(name, *, batch_size, epochs, crop="inception", size=224, tested=(224, 256)):
    """A configuration for a network on ImageNet: 1,281,167 training and 50,000 validation images.

    Training uses crops of `size` pixels. `tested` is (size of the central crop, length to which the
    shorter side is resized before it) in evaluation.
    """
    config = default_config()
    config.model.name = name
    config.data.source = "tfds:imagenet2012"
    config.data.crop, config.data.image_size = crop, size
    config.data.eval_size, config.data.eval_resize = tested
    config.data.augment = (("flip", 0.5),)
    config.train.batch_size = batch_size
    set_duration(config.train, "length", epochs=float(epochs))
    config.eval.batch_size = 200
    config.log.every_steps = 100
    return config


def finish(config, words, *, side=32, **options):
    """The locked configuration; with "smoke", five steps of four synthetic images of this size.

    `options` are fields of the network in the smoke variant; a narrow network compiles in seconds.
    """
    if "smoke" in words:
        source = "synthetic" if side == 32 else f"synthetic:{side}"
        smoke(config, source=source, batch_size=4, evaluated=8)
        config.model.options = {**config.model.options, **options}
    return config.lock()
