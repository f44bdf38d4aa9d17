"""The built-in studies, which `jaxcnn ablate NAME` runs.

The full version of a study is a recipe on CIFAR-10; the small version trains on the 1,797
handwritten digits, which need no download. In Python `STUDIES[name]()` returns the `Study`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxcnn._checks import near_or_all
from jaxcnn._objects import mistakes_in
from jaxcnn.studies.study import Run, Study
from jaxcnn.training.config.files import load_function

# He et al. 2015, section 4.2.
_RATE = {"name": "step", "learning_rate": 0.1, "boundaries_percent": (50, 75)}
_WARMUP = {  # for 110 layers
    "schedule.warmup": "constant",
    "schedule.warmup_from": 0.01,
    "schedule.warmup_steps": 400,
}
_CIFAR = {
    "data.source": "tfds:cifar10",
    "data.augment": (("pad_crop", 4), ("flip", 0.5)),
    "train.batch_size": 128,
    "train.length_steps": 64_000,
    "optimizer": {"name": "sgd", "momentum": 0.9, "weight_decay": 1e-4, "decay": "all"},
    "schedule": _RATE,
    "eval.batch_size": 1000,
    "log.every_steps": 50,
}
_DIGITS = {
    "data.source": "digits",
    "model.options.channels": 1,
    "data.augment": (("pad_crop", 2),),
    "train.batch_size": 32,
    "train.length_steps": 1500,
    "eval.batch_size": 120,
}
_SMALL_RATE = {**_RATE, "learning_rate": 0.01}


def _options(**options: Any) -> dict[str, Any]:
    """Overrides of the network's fields."""
    return {f"model.options.{name}": value for name, value in options.items()}


def _vgg(**options: Any) -> dict[str, Any]:
    """A VGG network for 32x32 images, with a quarter of the usual channels."""
    return _options(min_size=32, widths=(16, 32, 64, 128, 128), fc_width=128, **options)


def residual_vs_plain() -> Study:
    """He et al. 2015, Fig. 6: in plain networks, more depth increases even the training error."""
    published = {20: 8.75, 32: 7.51, 44: 7.17, 56: 6.97, 110: 6.43}
    ranks = {20: 0, 56: 1, 32: 2, 44: 3, 110: 4}
    runs = []
    for family, panel in (("plain", "plain"), ("resnet", "residual")):
        for depth, rank in ranks.items():
            overrides: dict[str, Any] = {"model.name": f"{family}{depth}_cifar"}
            if depth == 110:
                overrides |= _WARMUP
            error = published[depth] if family == "resnet" else None
            runs.append(Run(f"{family}-{depth}", overrides, panel, published=error, rank=rank))
    runs.sort(key=lambda run: (run.panel, int(run.label.split("-")[1])))
    return Study(
        title="Plain (left) and residual networks (right)",
        base=_CIFAR,
        small=_DIGITS | {"train.length_steps": 800, "schedule": {**_RATE, "learning_rate": 0.02}},
        runs=runs,
        seeds=5,
        source="He, Zhang, Ren, Sun 2015 (arXiv 1512.03385), table 6; plain networks: curves only",
    )


def shortcuts() -> Study:
    """He et al. 2015, table 3: zeros (A), projections where shapes change (B) or always (C)."""
    runs = [
        Run(
            f"ResNet-{depth} {kind}",
            {"model.name": f"resnet{depth}_cifar", **_options(shortcut=kind)},
            rank=rank,
        )
        for depth, rank in ((20, 0), (56, 1))
        for kind in "ABC"
    ]
    source = "He, Zhang, Ren, Sun 2015, table 3 (there for ResNet-34 on ImageNet)"
    return Study("Shortcut options", _CIFAR, runs, small=_DIGITS, source=source)


def batch_norm() -> Study:
    """Ioffe and Szegedy 2015: batch normalization speeds up training and allows higher rates."""
    runs = [
        Run(
            f"{label}, rate {rate}",
            {**_vgg(batch_norm=norm), "schedule": {**_SMALL_RATE, "learning_rate": rate}},
        )
        for norm, label in ((False, "without"), (True, "with"))
        for rate in (0.01, 0.1)
    ]
    base = _CIFAR | {"model.name": "vgg_a"}
    source = "Ioffe, Szegedy 2015 (arXiv 1502.03167), Fig. 2"
    return Study("VGG-A with and without batch normalization", base, runs, _DIGITS, source=source)


def depth_vs_width() -> Study:
    """Zagoruyko and Komodakis 2016: at similar cost, width is as good as depth."""
    nets = ((1, 2), (4, 1)), ((1, 4), (4, 2))  # (blocks per stage n, width k); the cost is n k^2
    runs = [
        Run(
            f"WRN-{6 * n + 4}-{k}",
            _options(blocks=(n, n, n), width=16 * k),
            panel=panel,
            x=6 * n + 4,
            rank=rank,
        )
        for rank, (panel, group) in enumerate(zip(("cost of WRN-28-1", "cost of WRN-28-2"), nets))
        for n, k in group
    ]
    schedule = {"name": "step", "learning_rate": 0.1, "boundaries_percent": (30, 60, 80)}
    base = _CIFAR | {"model.name": "wrn16_8_cifar", "schedule": {**schedule, "factor": 0.2}}
    source = "Zagoruyko, Komodakis 2016 (arXiv 1605.07146), table 2"
    return Study("Depth against width", base, runs, _DIGITS, x="depth", source=source)


def vgg_depth() -> Study:
    """Simonyan and Zisserman 2014, table 3: networks A to E."""
    depths = {"a": 11, "b": 13, "c": 16, "d": 16, "e": 19}
    runs = [
        Run(f"VGG-{net.upper()}", {"model.name": f"vgg_{net}_bn"}, x=depth, rank=rank)
        for rank, (net, depth) in enumerate(depths.items())
    ]
    base = _CIFAR | _vgg()
    source = "Simonyan, Zisserman 2014 (arXiv 1409.1556), table 3 (there on ImageNet, without BN)"
    return Study("VGG A to E", base, runs, _DIGITS, x="depth", source=source)


def kernels() -> Study:
    """Simonyan and Zisserman 2014, section 4: two 3x3 convolutions against one 5x5 convolution.

    Both see 5x5 pixels. With C input and output channels, the two have 18 C^2 weights, the one has
    25 C^2.
    """
    runs = [
        Run("two 3x3 (net B)", _vgg(batch_norm=True, convs=(2,) * 5)),
        Run("one 5x5", _vgg(batch_norm=True, convs=(1,) * 5, kernel=5)),
        Run("one 3x3", _vgg(batch_norm=True, convs=(1,) * 5)),
    ]
    source = "Simonyan, Zisserman 2014, section 4: 7 % more top-1 error with 5x5"
    base = _CIFAR | {"model.name": "vgg_b"}
    return Study("Two 3x3 convolutions against one 5x5", base, runs, _DIGITS, source=source)


def inception_modules() -> Study:
    """Szegedy et al. 2014, Fig. 2: Inception modules with and without 1x1 reductions."""
    runs = [
        Run("with 1x1 reductions", {"model.name": "googlenet"}),
        Run("naive", {"model.name": "googlenet_naive"}),
    ]
    base = _CIFAR | _options(aux_heads=False, dropout=0.0) | {"schedule": _SMALL_RATE}
    source = "Szegedy et al. 2014 (arXiv 1409.4842), Fig. 2: an argument of cost, not of error"
    title = "Inception modules with and without 1x1 reductions"
    return Study(title, base, runs, _DIGITS, source=source)


def squeeze_excitation() -> Study:
    """Hu et al. 2017, table 10: squeeze-and-excitation with several reduction ratios, or none."""
    runs = [Run("without", _options(se_reduction=0))]
    runs += [Run(f"r = {r}", _options(se_reduction=r), x=r) for r in (2, 4, 8, 16)]
    base = _CIFAR | {"model.name": "resnet20_cifar"}
    source = "Hu, Shen, Albanie, Sun, Wu 2017 (arXiv 1709.01507), table 10 (there for SE-ResNet-50)"
    title = "Squeeze-and-excitation and its reduction ratio"
    return Study(title, base, runs, _DIGITS, x="reduction ratio", source=source)


def cardinality() -> Study:
    """Xie et al. 2016, table 3: cardinality (number of groups) at equal cost."""
    runs = [
        Run(f"{groups}x{width}d", _resnext(groups, width), x=groups, rank=rank)
        for rank, (groups, width) in enumerate(((1, 32), (8, 7), (4, 12), (2, 20)))
    ]
    runs.sort(key=lambda run: run.x or 0)
    base = _CIFAR | {"model.name": "resnext29_8x64d_cifar"}
    source = "Xie, Girshick, Dollár, Tu, He 2016 (arXiv 1611.05431), table 3 (there on ImageNet)"
    return Study("Cardinality", base, runs, _DIGITS, x="cardinality", source=source)


def _resnext(groups: int, width: int) -> dict[str, Any]:
    return _options(blocks=(2, 2, 2), width=32, groups=groups, base_width=2 * width)


def relu_vs_tanh() -> Study:
    """Krizhevsky et al. 2012, Fig. 1: ReLU reaches 25 % training error six times faster."""
    runs = [Run(act, _options(act=act)) for act in ("relu", "tanh")]
    base = _CIFAR | {"model.name": "lenet5", "schedule": _SMALL_RATE}
    source = "Krizhevsky, Sutskever, Hinton 2012, Fig. 1 (there a four-layer network)"
    return Study("ReLU against tanh", base, runs, _DIGITS, source=source)


def response_norm() -> Study:
    """Simonyan and Zisserman 2014, table 3: networks A and A-LRN."""
    runs = [
        Run(label, _vgg(lrn=lrn), published=error)
        for label, lrn, error in (("without LRN (A)", None, 29.6), ("with LRN", "paper", 29.7))
    ]
    base = _CIFAR | {"model.name": "vgg_a", "schedule": _SMALL_RATE}
    source = "Simonyan, Zisserman 2014, table 3: the published errors are ImageNet's"
    return Study("Local response normalization", base, runs, _DIGITS, source=source)


def dropout() -> Study:
    """Krizhevsky et al. 2012, section 4.2: without dropout the network overfits."""
    runs = [Run(f"dropout {p}", _vgg(dropout=p), x=p) for p in (0.0, 0.25, 0.5)]
    base = _CIFAR | {"model.name": "vgg_a", "schedule": _SMALL_RATE}
    source = "Krizhevsky, Sutskever, Hinton 2012, section 4.2"
    return Study("Dropout", base, runs, _DIGITS, x="dropout", source=source)


def aux_heads() -> Study:
    """Szegedy et al. 2014, section 5: auxiliary classifiers with weight 0.3."""
    runs = [
        Run(label, {"loss": {"name": "cross_entropy", "aux_weight": weight}})
        for label, weight in (("without", 0.0), ("with auxiliary heads", 0.3))
    ]
    base = _CIFAR | {"model.name": "googlenet_bn", "schedule": _SMALL_RATE}
    source = "Szegedy et al. 2014, section 5; about 0.5 % by Szegedy et al. 2015 (arXiv 1512.00567)"
    return Study("Auxiliary heads of GoogLeNet", base, runs, _DIGITS, source=source)


def residual_scaling() -> Study:
    """Szegedy et al. 2016, section 3.3: wide residual Inception networks need scaled residuals.

    No built-in dataset has images of at least 75 pixels, the smallest input of the network. The
    small version therefore uses synthetic images, and shows only whether training is stable.
    """
    runs = [
        Run(f"scale {scale}", _options(scales=(scale,) * 3, blocks=(2, 2, 2)))
        for scale in (0.1, 0.3, 1.0)
    ]
    base = _CIFAR | {
        "model.name": "inception_resnet_v2",
        "data.source": "tfds:imagenette",
        "data.image_size": 299,
        "data.augment": (("flip", 0.5),),
        "train.batch_size": 32,
    }
    small = {
        "data.source": "synthetic:75",
        "data.image_size": None,
        "data.augment": (),
        "train.batch_size": 8,
        "train.length_steps": 100,
        "eval.batch_size": 64,
    }
    source = "Szegedy, Ioffe, Vanhoucke, Alemi 2016 (arXiv 1602.07261), section 3.3"
    return Study("Residual scaling in Inception-ResNet", base, runs, small, source=source)


STUDIES: dict[str, Callable[[], Study]] = {
    study.__name__: study
    for study in (
        *(residual_vs_plain, shortcuts, batch_norm, depth_vs_width, vgg_depth, kernels),
        *(inception_modules, squeeze_excitation, cardinality, relu_vs_tanh, response_norm),
        *(dropout, aux_heads, residual_scaling),
    )
}


def load_study(name: str) -> Study:
    """Loads a study.

    Args:
      name: of a built-in study, or the path of a file "path/to/file.py" that defines `get_study()`.

    Raises:
      ValueError: there is no such study or file, it has no runs, or two runs have the same label.
    """
    if name in STUDIES:
        study = STUDIES[name]()
    elif name.endswith(".py"):
        study = _from_file(Path(name))
    else:
        raise ValueError(f"unknown study {name!r}{near_or_all(name, STUDIES)}")
    labels = [run.label for run in study.runs]
    twice = {label for label in labels if labels.count(label) > 1}
    if twice or not labels:
        raise ValueError(
            f"study {name!r} has {'two runs ' + repr(min(twice)) if twice else 'no runs'}"
        )
    return study


def _from_file(path: Path) -> Study:
    if not path.is_file():
        raise ValueError(f"no study file {str(path)!r}")
    get_study = load_function(path, "get_study")
    with mistakes_in(path):
        study = get_study()
    if not isinstance(study, Study):
        raise ValueError(f"get_study() of {path} does not return a jaxcnn.studies.Study")
    for run in study.runs:
        if not isinstance(run, Run):
            kind = type(run).__name__
            raise ValueError(f"a run of the study in {path} is a {kind}, not a jaxcnn.studies.Run")
    return study
