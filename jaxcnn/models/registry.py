"""Registry of networks: building them by name, and their published facts.

A family file defines `PAPER` (citation), `YEAR`, `VARIANTS` (id -> functools.partial of its module)
and, for networks with common short names, `ALIASES` (alias -> id). `published.json` holds parameter
counts, multiply-adds and errors with their sources.

Custom networks are Linen modules with `__call__(images, train=...)`. `register` gives one a name;
an unregistered one is named by its address, "my_nets.py:MyNet" or "package.module:MyNet".
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
import numbers
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from jaxcnn import layers
from jaxcnn._checks import near, near_or_all, one_of, require
from jaxcnn._objects import is_address, load_object
from jaxcnn.models.blocks import BLOCKS, PreActBlock, ResidualBlock, ResidualNetwork
from jaxcnn.models.heads import with_box_head

_log = logging.getLogger(__name__)
_MOST_CLASSES = 10_000_000

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

# Former names of options, still accepted in configurations.
RENAMED_OPTIONS = {"initialiser": "initializer"}

# Channel mean and standard deviation of RGB in [0, 1] with which a network's images are normalized,
# unless the network or its weights define others.
_NORMALIZATION = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "mnist": ((0.1307,), (0.3081,)),
}


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """Facts about a network. For a custom network, unknown facts are None.

    Attributes:
      name: id of the network.
      family: name of its file in `jaxcnn.models`, or "custom".
      paper, year: citation of the family, and year of the variant.
      dataset, num_classes: the dataset and its number of classes.
      input_size: (height, width, channels) of the images for which the counts hold.
      min_size: smallest image height and width that the network accepts.
      params: number of trainable parameters, without auxiliary heads.
      params_with_aux: number of parameters with auxiliary heads; None if there are none.
      macs: multiply-adds of convolutions and dense layers for one image, without auxiliary heads.
      depth: convolutions and dense layers on the longest path from the images to the logits; gates
        of squeeze-and-excitation are not counted.
      top1_error, top5_error: published errors in percent, or None.
      protocol, source: how the errors were measured, and where they were published.
      other_results: further published errors, each with protocol and source.
      mean, std: channel mean and standard deviation of RGB in [0, 1].
      aliases: short names of the network.
      notes: further remarks.
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
    depth: int | None = None
    top1_error: float | None = None
    top5_error: float | None = None
    protocol: str | None = None
    source: str | None = None
    other_results: tuple[Mapping[str, Any], ...] = ()
    mean: tuple[float, ...] = _NORMALIZATION["imagenet"][0]
    std: tuple[float, ...] = _NORMALIZATION["imagenet"][1]
    aliases: tuple[str, ...] = ()
    notes: str | None = None

    @property
    def channels(self) -> int:
        """Channels of an image; 3 if the input size is not known."""
        return self.input_size[2] if self.input_size else 3

    def known_input_size(self) -> tuple[int, int, int]:
        """Returns `input_size`.

        Raises:
          ValueError: it is not known.
        """
        if self.input_size is None:
            raise ValueError(
                f"the input size of {self.name!r} is not known; give one (data.image_size in a "
                "configuration, --image-size in a command), or register the network with "
                "input_size=(height, width, channels)"
            )
        return self.input_size


class _Registered(NamedTuple):
    build: Callable[..., nn.Module]
    facts: dict[str, Any]


_registered: dict[str, _Registered] = {}
CUSTOM = "custom"  # the family of custom networks


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


def list_aliases() -> dict[str, str]:
    """Returns the aliases of all networks as {alias: id}, such as {"vgg16": "vgg_d"}."""
    return dict(_aliases())


@functools.cache
def _aliases() -> dict[str, str]:
    return {
        alias: name
        for module in _families().values()
        for alias, name in getattr(module, "ALIASES", {}).items()
    }


@functools.cache
def published() -> dict[str, dict[str, Any]]:
    """Returns the contents of `published.json` by id."""
    text = importlib.resources.files("jaxcnn.models").joinpath("published.json").read_text("utf-8")
    return json.loads(text)["variants"]


def register(name: str, module_class: Callable[..., nn.Module], **facts: Any) -> None:
    """Registers a custom network under a name, for `create_model` and all other uses of names.

    Args:
      name: new name; it must not be the id or alias of another network.
      module_class: a Linen module class, or a `functools.partial` of one. Its
        `__call__(images, train=...)` maps f32[N,H,W,C] to logits f32[N,num_classes], and it must
        have the field `num_classes`. Training sets the fields `dtype`, `axis_name` and `bn_group`
        if it has them.
      **facts: known fields of `ModelInfo`, such as `input_size=(224, 224, 3)` or `paper`.

    Raises:
      ValueError: the name is taken or contains a colon, a fact is not a field of `ModelInfo`, or
        `module_class` is not a Linen module class that can be called with `(images, train=False)`
        (or a partial of one, with keywords only).

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
        raise ValueError(
            f"{name!r} is already registered; jaxcnn.models.unregister({name!r}) removes it"
        )
    if name in _variants() or name in _aliases():
        raise ValueError(f"{name!r} is a network of jaxcnn; choose another name")
    if is_address(name):
        raise ValueError(f"the name of a network must not contain a colon, but is {name!r}")
    known = {f.name for f in dataclasses.fields(ModelInfo)} - {"name", "family", "aliases"}
    for fact in facts:
        if fact not in known:
            raise ValueError(f"unknown fact {fact!r} of {name!r}{near(fact, known)}")
    size = facts.get("input_size")
    if size is not None:
        valid = isinstance(size, (tuple, list)) and len(size) == 3
        valid = valid and all(isinstance(n, int) and n > 0 for n in size)
        require(valid, f"input_size of {name!r}", size, "(height, width, channels)")
    _check_module(name, module_class)
    _registered[name] = _Registered(module_class, facts)


def unregister(name: str) -> None:
    """Removes a registered network.

    Args:
      name: given to `register`.

    Raises:
      ValueError: no network is registered under this name.
    """
    if name not in _registered:
        raise ValueError(f"{name!r} is not registered{near(name, _registered)}")
    del _registered[name]


def list_models(pattern: str = "*") -> list[str]:
    """Lists the ids of networks, in the order of families and then of their tables.

    Registered networks come last.

    Args:
      pattern: shell pattern, such as "*resnet*". A pattern that matches an alias lists the id that
        it stands for.

    Returns:
      The ids that match.

      >>> list_models("vgg1?")
      ['vgg_a', 'vgg_b', 'vgg_d', 'vgg_e']
    """
    aliases = _aliases()
    by_alias = {name for alias, name in aliases.items() if fnmatch.fnmatchcase(alias, pattern)}
    names = [*_variants(), *_registered]
    return [n for n in names if n in by_alias or fnmatch.fnmatchcase(n, pattern)]


def resolve(name: str) -> str:
    """Returns the id of a network.

    Args:
      name: id or alias, which is resolved, or the address of a custom network, which is returned
        unchanged.

    Raises:
      ValueError: there is no such network; the message suggests similar names.

      >>> resolve("lenet5")
      'lenet5_modern'
      >>> resolve("resnet51")
      Traceback (most recent call last):
      ValueError: unknown model 'resnet51'; did you mean 'resnet50'...
      >>> resolve("zzz")
      Traceback (most recent call last):
      ValueError: unknown model 'zzz'; `jaxcnn list` shows all of them...
    """
    name = _aliases().get(name, name)
    if is_address(name):
        _check_module(name, load_object(name))
    elif name not in _variants() and name not in _registered:
        known = [*_variants(), *_registered, *_aliases()]
        if name.endswith(".py"):
            raise ValueError(f"{name!r} is a file; add the name of the class, as in '{name}:MyNet'")
        hint = "; `jaxcnn list` shows all of them, and your own are 'FILE.py:CLASS'"
        raise ValueError(f"unknown model {name!r}{near(name, known) or hint}")
    return name


def create_model(name: str, **options: Any) -> Any:
    """Creates a network: `create_model("resnet50", num_classes=10, dtype=jnp.bfloat16)`.

    Args:
      name: id or alias, see `list_models`; or the address of a custom Linen module class,
        "my_nets.py:MyNet" or "package.module:MyNet".
      **options: fields of the network's module, to override those of the variant; also `box_head`,
        "scr" or "pcr", for a head that locates the object, see `jaxcnn.models.heads`. The options
        `dtype`, `axis_name` and `bn_group=None` are ignored if a custom network has no such field.

    Returns:
      A Linen module: `model.init(key, images)`, `model.apply(variables, images)`.

    Raises:
      ValueError: the name, an option or the value of an option is unknown, or a number (of classes,
        a rate, a momentum) is outside its range.

      >>> create_model("resnet20_cifar", num_classes=100).num_classes
      100
    """
    cls, fixed = _parts(_builder(name))
    if issubclass(cls, ResidualNetwork):
        options = _with_block(cls, options)
    options = _with_current_names(cls, options)
    if options.get("box_head") is not None and issubclass(cls, layers.Network):
        cls = with_box_head(cls)
    return cls(**{**fixed, **_accepted(name, cls, options)})


def _with_block(cls: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, with names of block classes (used in configurations) replaced by the classes."""
    options = dict(options)
    base = PreActBlock if issubclass(cls.block, PreActBlock) else ResidualBlock
    if "block_type" in options:
        suffixes = {"basic": "BasicBlock", "bottleneck": "Bottleneck"}
        suffix = suffixes[one_of("block_type", options.pop("block_type"), suffixes)]
        options["block"] = f"PreAct{suffix}" if base is PreActBlock else suffix
        _warn_once(f"the option block_type is now block: write block={options['block']!r}")
    block: Any = options.get("block")
    fitting = {name: each for name, each in BLOCKS.items() if issubclass(each, base)}
    if isinstance(block, str):
        options["block"] = fitting[one_of("block", block, fitting)]
    elif block in BLOCKS.values():
        require(block in fitting.values(), "block", block.__name__, f"a {base.__name__}")
    return options


def _with_current_names(cls: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, with former names replaced by the current ones."""
    options, fields = dict(options), {f.name for f in dataclasses.fields(cls)}
    for former, name in RENAMED_OPTIONS.items():
        if former in options and former not in fields and name in fields:
            options.setdefault(name, options.pop(former))
            _warn_once(f"the option {former} is now {name}")
    return options


@functools.cache
def _warn_once(notice: str) -> None:
    _log.warning(notice)


def _accepted(name: str, cls: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that the class has fields for. Raises ValueError for unknown ones."""
    fields = {f.name for f in dataclasses.fields(cls) if f.name not in ("parent", "name")}
    # Training passes these to every network.
    optional = {name for name in ("box_head", "bn_group") if options.get(name) is None}
    optional |= {"dtype", "axis_name"}
    unknown = [option for option in options if option not in fields | optional]
    classes = options.get("num_classes", 0)
    good = isinstance(classes, (int, np.integer)) and not isinstance(classes, bool)
    good = good and 0 <= int(classes) <= _MOST_CLASSES
    require(good, "num_classes", classes, f"an integer from 0 to {_MOST_CLASSES:,}")
    momentum = options.get("bn_momentum", 0.9)
    good = isinstance(momentum, (int, float)) and 0 <= momentum <= 1
    require(good, "bn_momentum", momentum, "a number from 0 to 1, the fraction that a step keeps")
    for rate in ("dropout", "drop_path"):
        value = options.get(rate, 0.0)  # your own network may take a list
        good = not isinstance(value, numbers.Real) or 0 <= float(value) <= 1
        require(good, rate, value, "a probability from 0 to 1")
    try:
        np.dtype(options.get("dtype", np.float32))
    except TypeError:
        raise ValueError(
            f"dtype is {options['dtype']!r}; it must be a type such as 'bfloat16'"
        ) from None
    if "num_classes" in unknown:
        raise ValueError(
            f"model {name!r} has no field num_classes; {cls.__name__} needs `num_classes: int`, "
            "the width of its classifier"
        )
    if unknown:
        names = ", ".join(map(repr, unknown))
        what = "option" if len(unknown) == 1 else "options"
        hint = near_or_all(unknown[0], sorted(fields))
        raise ValueError(f"unknown {what} {names} of model {name!r}{hint}")
    return {option: value for option, value in options.items() if option in fields}


def _builder(name: str) -> Callable[..., nn.Module]:
    name = resolve(name)
    if is_address(name):
        return load_object(name)
    return _registered[name].build if name in _registered else _variants()[name][1]


def _parts(build: Any) -> tuple[Any, dict[str, Any]]:
    """The module class of a variant, and the fields that it sets."""
    return (build.func, build.keywords) if isinstance(build, functools.partial) else (build, {})


def _check_module(name: str, build: Any) -> None:
    """Raises ValueError unless `build` is a class of networks or a partial of one."""
    cls, _ = _parts(build)
    if not (inspect.isclass(cls) and issubclass(cls, nn.Module)) or cls is nn.Module:
        what = f"the class {cls.__name__}" if inspect.isclass(cls) else f"a {type(cls).__name__}"
        raise ValueError(f"{name!r} is {what}; a network is a subclass of flax.linen.Module")
    if isinstance(build, functools.partial) and build.args:
        raise ValueError(f"{name!r} is a partial with positional arguments; use keywords instead")
    calls = [vars(c)["__call__"] for c in cls.__mro__ if "__call__" in vars(c)]
    try:
        if not calls:
            raise TypeError("it has no __call__")
        inspect.signature(calls[0]).bind(None, None, train=False)
    except TypeError as error:
        raise ValueError(
            f"the network {name!r} cannot be called with (images, train=False): {error}"
        ) from error


def model_info(name: str) -> ModelInfo:
    """Looks up the published facts about a network.

    Args:
      name: id or alias, or the address of a custom network.

    Raises:
      ValueError: the name is unknown.

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
        depth=facts["depth"],
        top1_error=facts["top1_error"],
        top5_error=facts["top5_error"],
        protocol=facts["protocol"],
        source=facts["source"],
        other_results=tuple(facts.get("other_results", ())),
        mean=getattr(build(), "mean", mean),
        std=getattr(build(), "std", std),
        aliases=tuple(a for a, n in _aliases().items() if n == name),
        notes=facts.get("notes"),
    )


def _custom_info(name: str) -> ModelInfo:
    """Facts about a custom network: from its fields and from `register`."""
    cls, fixed = _parts(_builder(name))
    values: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(cls)} | fixed
    facts: dict[str, Any] = {
        field: values[field]
        for field in ("num_classes", "min_size", "mean", "std")
        if values.get(field, dataclasses.MISSING) is not dataclasses.MISSING
    }
    if name in _registered:
        facts |= _registered[name].facts
    return ModelInfo(name=name, family=CUSTOM, **facts)


def endpoints(
    model: nn.Module, variables: Mapping[str, Any], images: jax.Array
) -> dict[str, jax.Array]:
    """Computes the named intermediate activations of a network in evaluation mode.

    Args:
      model: a network of this package.
      variables: its variables.
      images: f32[N,H,W,C].

    Returns:
      {name: activation}, such as "stem", "stage1", "pre_logits" f32[N,C] and, for networks with
      auxiliary classifiers, "aux1" f32[N,num_classes].
    """
    _, state = model.apply(variables, images, train=False, mutable=["endpoints"])
    return dict(state.get("endpoints", {}))
