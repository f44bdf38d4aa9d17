"""Finds a network by its id: the `VARIANTS` table of each family file, and the published facts.

A family file has `PAPER` (citation), `YEAR`, `VARIANTS` (id -> functools.partial of its module)
and, where the field has short names, `ALIASES` (alias -> id). `published.json` holds parameter
counts, multiply-adds and errors with their sources.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import importlib
import importlib.resources
import json
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import flax.linen as nn
import jax

from jaxcnn._checks import near

FAMILIES = (
    "lenet",
    "alexnet",
    "zfnet",
    "vgg",
    "googlenet",
    "bn_inception",
    "inception_v3",
    "inception_v4",
    "inception_resnet",
    "resnet",
    "resnet_v2",
    "wide_resnet",
    "resnext",
    "senet",
    "dpn",
)

# Channel mean and standard deviation of RGB in [0, 1] that a network's images are normalised with
# unless its weights say otherwise.
_NORMALISATION = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "mnist": ((0.1307,), (0.3081,)),
}


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """Facts of one network.

    Attributes:
      name: id, a key of `published.json` unless noted there.
      family: name of the file in `jaxcnn.models`.
      paper, year: citation of the family, and year of the variant
      dataset, num_classes: what the counts and errors are for.
      input_size: (height, width, channels) that counts are for.
      min_size: smallest height and width that the network takes.
      params: trainable parameters, auxiliary heads excluded.
      params_with_aux: the same with auxiliary heads; None where there are none.
      macs: multiply-adds of convolutions and dense layers, one image, auxiliary heads excluded.
      top1_error, top5_error: published errors in percent, or None.
      protocol, source: how the errors were measured, and by whom.
      other_results: further published errors, each with protocol and source.
      mean, std: normalisation of RGB in [0, 1].
      aliases: short names that resolve to this id.
      notes: what else has to be known.
    """

    name: str
    family: str
    paper: str
    year: int
    dataset: str
    num_classes: int
    input_size: tuple[int, int, int]
    min_size: int
    params: int
    params_with_aux: int | None
    macs: int
    top1_error: float | None
    top5_error: float | None
    protocol: str | None
    source: str | None
    other_results: tuple[Mapping[str, Any], ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    aliases: tuple[str, ...]
    notes: str | None


@functools.cache
def _families() -> dict[str, ModuleType]:
    return {name: importlib.import_module(f"jaxcnn.models.{name}") for name in FAMILIES}


@functools.cache
def _variants() -> dict[str, tuple[str, Callable[..., nn.Module]]]:
    return {
        name: (family, build)
        for family, module in _families().items()
        for name, build in module.VARIANTS.items()
    }


@functools.cache
def list_aliases() -> dict[str, str]:
    """{alias: id}, for example {'vgg16': 'vgg_d'}."""
    return {
        alias: name
        for module in _families().values()
        for alias, name in getattr(module, "ALIASES", {}).items()
    }


@functools.cache
def published() -> dict[str, dict[str, Any]]:
    """The figures of `published.json` by id."""
    text = importlib.resources.files("jaxcnn.models").joinpath("published.json").read_text("utf-8")
    return json.loads(text)["variants"]


def list_models(pattern: str = "*") -> list[str]:
    """Ids that match a shell pattern, by family and then in the order of its table.

    A pattern that matches an alias lists the id behind it.

      >>> list_models("vgg1?")
      ['vgg_a', 'vgg_b', 'vgg_d', 'vgg_e']
    """
    aliases = list_aliases()
    by_alias = {name for alias, name in aliases.items() if fnmatch.fnmatchcase(alias, pattern)}
    return [n for n in _variants() if n in by_alias or fnmatch.fnmatchcase(n, pattern)]


def resolve(name: str) -> str:
    """The id behind a name or alias. Raises ValueError with near matches if there is none.

    >>> resolve("lenet5")
    'lenet5_modern'
    >>> resolve("resnet51")
    Traceback (most recent call last):
    ValueError: unknown model 'resnet51'; did you mean 'resnet50'...
    >>> resolve("zzz")
    Traceback (most recent call last):
    ValueError: unknown model 'zzz'; `jaxcnn list` shows all of them
    """
    name = list_aliases().get(name, name)
    if name not in _variants():
        hint = near(name, [*_variants(), *list_aliases()]) or "; `jaxcnn list` shows all of them"
        raise ValueError(f"unknown model {name!r}{hint}")
    return name


def create_model(name: str, **options: Any) -> Any:
    """Builds a network: `create_model("resnet50", num_classes=10, dtype=jnp.bfloat16)`.

    Args:
      name: id or alias; `list_models()` names them.
      **options: fields of the network's module that differ from the variant's.

    Returns:
      A flax.linen Module: `model.init(key, images)`, `model.apply(variables, images)`.

    Raises:
      ValueError: the name or an option is unknown.

      >>> create_model("resnet20_cifar", num_classes=100).num_classes
      100
    """
    build = _variants()[resolve(name)][1]
    cls: Any = build.func if isinstance(build, functools.partial) else build
    fields = {f.name for f in dataclasses.fields(cls) if f.name not in ("parent", "name")}
    for option in options:
        if option not in fields:
            raise ValueError(f"unknown option {option!r} of model {name!r}{near(option, fields)}")
    return build(**options)


def model_info(name: str) -> ModelInfo:
    """Facts of a network by id or alias. Raises ValueError if the name is unknown.

    >>> info = model_info("vgg16")
    >>> info.name, info.params, info.top5_error
    ('vgg_d', 138357544, 8.1)
    """
    name = resolve(name)
    family, build = _variants()[name]
    module = _families()[family]
    facts = published()[name]
    mean, std = _NORMALISATION[facts["dataset"]]
    return ModelInfo(
        name=name,
        family=family,
        paper=module.PAPER,
        year=getattr(module, "YEARS", {}).get(name, module.YEAR),
        dataset=facts["dataset"],
        num_classes=facts["num_classes"],
        input_size=tuple(facts["input_size"]),
        min_size=build().min_size,
        params=facts["params"],
        params_with_aux=facts.get("params_with_aux"),
        macs=facts["macs"],
        top1_error=facts["top1_error"],
        top5_error=facts["top5_error"],
        protocol=facts["protocol"],
        source=facts["source"],
        other_results=tuple(facts.get("other_results", ())),
        mean=getattr(build(), "mean", mean),
        std=getattr(build(), "std", std),
        aliases=tuple(a for a, n in list_aliases().items() if n == name),
        notes=facts.get("notes"),
    )


def endpoints(model: nn.Module, variables: Mapping, images: jax.Array) -> dict[str, jax.Array]:
    """Named activations in evaluation mode: stem, stage1.., pre_logits, aux1, aux2, ...

    Args:
      model: a network of this package.
      variables: its variables.
      images: f32[N,H,W,C].
    """
    _, state = model.apply(variables, images, train=False, mutable=["endpoints"])
    return dict(state["endpoints"])
