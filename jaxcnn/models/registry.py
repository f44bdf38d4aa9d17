"""Networks by name: the `VARIANTS` table of each family file, published facts, and networks of
one's own.

A family file has `PAPER` (citation), `YEAR`, `VARIANTS` (id -> functools.partial of its module)
and, where the field has short names, `ALIASES` (alias -> id). `published.json` holds parameter
counts, multiply-adds and errors with their sources.

A network of one's own is any Linen module with `__call__(images, train=...)`. It has a name once
it is registered; without that, its address is its name: "my_nets.py:MyNet" or
"package.module:MyNet".
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import importlib
import importlib.resources
import inspect
import json
import logging
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from jaxcnn import layers
from jaxcnn._checks import near, one_of
from jaxcnn._objects import is_address, load_object
from jaxcnn.models.blocks import BLOCKS, PreActBlock, ResidualNetwork
from jaxcnn.models.heads import with_box_head

_log = logging.getLogger(__name__)

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

# Channel mean and standard deviation of RGB in [0, 1] by which a network's images are normalized
# unless its weights say otherwise.
_NORMALIZATION = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "mnist": ((0.1307,), (0.3081,)),
}


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """Facts of one network. Of a network of one's own, those that are not known are None.

    Attributes:
      name: id, a key of `published.json` unless noted there.
      family: name of the file in `jaxcnn.models`, or "custom".
      paper, year: citation of the family, and year of the variant.
      dataset, num_classes: what the counts and errors are for.
      input_size: (height, width, channels) that counts are for.
      min_size: smallest height and width that the network takes.
      params: trainable parameters, auxiliary heads excluded.
      params_with_aux: the same with auxiliary heads; None where there are none.
      macs: multiply-adds of convolutions and dense layers, one image, auxiliary heads excluded.
      top1_error, top5_error: published errors in percent, or None.
      protocol, source: how the errors were measured, and by whom.
      other_results: further published errors, each with protocol and source.
      mean, std: normalization of RGB in [0, 1].
      aliases: short names that resolve to this id.
      notes: what else is worth knowing.
    """

    name: str
    family: str
    paper: str | None = None
    year: int | None = None
    dataset: str | None = None
    num_classes: int | None = None
    input_size: tuple[int, int, int] | None = None
    min_size: int | None = None
    params: int | None = None
    params_with_aux: int | None = None
    macs: int | None = None
    top1_error: float | None = None
    top5_error: float | None = None
    protocol: str | None = None
    source: str | None = None
    other_results: tuple[Mapping[str, Any], ...] = ()
    mean: tuple[float, ...] = _NORMALIZATION["imagenet"][0]
    std: tuple[float, ...] = _NORMALIZATION["imagenet"][1]
    aliases: tuple[str, ...] = ()
    notes: str | None = None

    def known_input_size(self) -> tuple[int, int, int]:
        """(height, width, channels). Raises ValueError if it is not known."""
        if self.input_size is None:
            raise ValueError(
                f"the input size of {self.name!r} is not known; give one, or register the network "
                "with input_size=(height, width, channels)"
            )
        return self.input_size


class _Registered(NamedTuple):
    build: Callable[..., nn.Module]
    facts: dict[str, Any]


_registered: dict[str, _Registered] = {}
CUSTOM = "custom"  # the family of networks of one's own


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


def register(name: str, module_class: Callable[..., nn.Module], **facts: Any) -> None:
    """Gives a network of your own a name, for `create_model` and everything that takes a name.

    Args:
      name: not the id or alias of another network.
      module_class: a Linen module class with `__call__(images, train=...)`, f32[N,H,W,C] to logits
        f32[N,num_classes], or a `functools.partial` of one. If it has a field `dtype`, `axis_name`
        or `bn_group`, training sets it; the field `num_classes` is needed.
      **facts: fields of `ModelInfo` that are known, such as `input_size=(224, 224, 3)` or `paper`.

    Raises:
      ValueError: the name is taken, a fact is no field of `ModelInfo`, or this is no class of
        `flax.linen.Module`.

      >>> class MyNet(nn.Module):
      ...     num_classes: int = 10
      ...     @nn.compact
      ...     def __call__(self, images, *, train=False):
      ...         return nn.Dense(self.num_classes)(images.mean((1, 2)))
      >>> register("mynet", MyNet, input_size=(32, 32, 3))
      >>> create_model("mynet", num_classes=3).num_classes
      3
      >>> unregister("mynet")
    """
    if name in _registered:
        raise ValueError(f"{name!r} is registered; jaxcnn.models.unregister({name!r}) frees it")
    if name in _variants() or name in list_aliases():
        raise ValueError(f"{name!r} is a network of jaxcnn; give yours another name")
    if is_address(name):
        raise ValueError(f"{name!r} is no name for a network: it contains a colon")
    known = {f.name for f in dataclasses.fields(ModelInfo)} - {"name", "family", "aliases"}
    for fact in facts:
        if fact not in known:
            raise ValueError(f"unknown fact {fact!r} of {name!r}{near(fact, known)}")
    _check_module(name, module_class)
    _registered[name] = _Registered(module_class, facts)


def unregister(name: str) -> None:
    """Frees a name that `register` gave. Raises ValueError if there is none."""
    if name not in _registered:
        raise ValueError(f"{name!r} is not registered{near(name, _registered)}")
    del _registered[name]


def list_models(pattern: str = "*") -> list[str]:
    """Ids that match a shell pattern, by family and then in the order of its table.

    A pattern that matches an alias lists the id behind it. Registered networks come last.

      >>> list_models("vgg1?")
      ['vgg_a', 'vgg_b', 'vgg_d', 'vgg_e']
    """
    aliases = list_aliases()
    by_alias = {name for alias, name in aliases.items() if fnmatch.fnmatchcase(alias, pattern)}
    names = [*_variants(), *_registered]
    return [n for n in names if n in by_alias or fnmatch.fnmatchcase(n, pattern)]


def resolve(name: str) -> str:
    """The id behind a name or alias; the address of a network of one's own stays as it is.

    Raises:
      ValueError: there is no such network; near matches are named.

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
    if is_address(name):
        _check_module(name, load_object(name))
    elif name not in _variants() and name not in _registered:
        known = [*_variants(), *_registered, *list_aliases()]
        raise ValueError(
            f"unknown model {name!r}{near(name, known) or '; `jaxcnn list` shows all of them'}"
        )
    return name


def create_model(name: str, **options: Any) -> Any:
    """Builds a network: `create_model("resnet50", num_classes=10, dtype=jnp.bfloat16)`.

    Args:
      name: id or alias; `list_models()` names them. Or the address of a Linen module class of your
        own, "my_nets.py:MyNet" or "package.module:MyNet".
      **options: fields of the network's module that differ from the variant's; also `box_head`,
        "scr" or "pcr", for a head that locates the object, see `jaxcnn.models.heads`. A network of
        your own may do without the fields `dtype`, `axis_name` and `bn_group`, which are then left
        out.

    Returns:
      A flax.linen Module: `model.init(key, images)`, `model.apply(variables, images)`.

    Raises:
      ValueError: the name or an option is unknown.

      >>> create_model("resnet20_cifar", num_classes=100).num_classes
      100
    """
    cls, fixed = _parts(_builder(name))
    if issubclass(cls, ResidualNetwork):
        options = _with_block(cls, options)
    if options.get("box_head") is not None and issubclass(cls, layers.Network):
        cls = with_box_head(cls)
    return cls(**{**fixed, **_accepted(name, cls, options)})


def _with_block(cls: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with the class of the blocks where they have its name, as configurations do."""
    options = dict(options)
    if "block_type" in options:
        suffixes = {"basic": "BasicBlock", "bottleneck": "Bottleneck"}
        suffix = suffixes[one_of("block_type", options.pop("block_type"), suffixes)]
        options["block"] = f"PreAct{suffix}" if issubclass(cls.block, PreActBlock) else suffix
        _say_once(f"the option block_type is now block: write block={options['block']!r}")
    if isinstance(options.get("block"), str):
        options["block"] = BLOCKS[one_of("block", options["block"], BLOCKS)]
    return options


@functools.cache
def _say_once(notice: str) -> None:
    _log.warning(notice)


def _accepted(name: str, cls: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that the class has fields for. Raises ValueError for one that is needed."""
    fields = {f.name for f in dataclasses.fields(cls) if f.name not in ("parent", "name")}
    # None is the same as no box head and no groups; training sets the others where it can.
    optional = {name for name in ("box_head", "bn_group") if options.get(name) is None}
    optional |= {"dtype", "axis_name"}
    unknown = [option for option in options if option not in fields | optional]
    if "num_classes" in unknown:
        raise ValueError(
            f"model {name!r} has no field num_classes; {cls.__name__} needs `num_classes: int`, "
            "the width of its classifier"
        )
    if unknown:
        names = ", ".join(map(repr, unknown))
        what = "option" if len(unknown) == 1 else "options"
        raise ValueError(f"unknown {what} {names} of model {name!r}{near(unknown[0], fields)}")
    return {option: value for option, value in options.items() if option in fields}


def _builder(name: str) -> Callable[..., nn.Module]:
    name = resolve(name)
    if is_address(name):
        return load_object(name)
    return _registered[name].build if name in _registered else _variants()[name][1]


def _parts(build: Any) -> tuple[Any, dict[str, Any]]:
    """The module class of a variant, and the fields that the variant sets."""
    return (build.func, build.keywords) if isinstance(build, functools.partial) else (build, {})


def _check_module(name: str, build: Any) -> None:
    """Raises ValueError for anything but a module class, with or without options."""
    cls, _ = _parts(build)
    if not (inspect.isclass(cls) and issubclass(cls, nn.Module)):
        what = f"the class {cls.__name__}" if inspect.isclass(cls) else f"a {type(cls).__name__}"
        raise ValueError(f"{name!r} is {what}; a network is a subclass of flax.linen.Module")
    if isinstance(build, functools.partial) and build.args:
        raise ValueError(f"{name!r} is a partial with positional arguments; give them by name")


def model_info(name: str) -> ModelInfo:
    """Facts of a network by id or alias. Raises ValueError if the name is unknown.

    >>> info = model_info("vgg16")
    >>> info.name, info.params, info.top5_error
    ('vgg_d', 138357544, 8.1)
    """
    name = resolve(name)
    if name not in _variants():
        return _custom_info(name)
    family, build = _variants()[name]
    module = _families()[family]
    facts = published()[name]
    mean, std = _NORMALIZATION[facts["dataset"]]
    return ModelInfo(
        name=name,
        family=family,
        paper=module.PAPER,
        year=getattr(module, "YEARS", {}).get(name, module.YEAR),
        dataset=facts["dataset"],
        num_classes=facts["num_classes"],
        input_size=tuple(facts["input_size"]),
        min_size=getattr(build(), "min_size"),  # noqa: B009  every network here has it
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


def _custom_info(name: str) -> ModelInfo:
    """What the fields of a network of one's own and `register` tell."""
    cls, fixed = _parts(_builder(name))
    own: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(cls)} | fixed
    facts: dict[str, Any] = {
        field: own[field]
        for field in ("num_classes", "min_size", "mean", "std")
        if own.get(field, dataclasses.MISSING) is not dataclasses.MISSING
    }
    if name in _registered:
        facts |= _registered[name].facts
    return ModelInfo(name=name, family=CUSTOM, **facts)


def endpoints(model: nn.Module, variables: Mapping, images: jax.Array) -> dict[str, jax.Array]:
    """Named activations in evaluation mode: stem, stage1.., pre_logits, aux1, aux2, ...

    Args:
      model: a network of this package.
      variables: its variables.
      images: f32[N,H,W,C].
    """
    _, state = model.apply(variables, images, train=False, mutable=["endpoints"])
    return dict(state.get("endpoints", {}))
