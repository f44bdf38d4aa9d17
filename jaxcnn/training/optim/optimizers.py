"""Makes optimizers from plain configurations.

`optimizer`: {name: "sgd", weight_decay: 0.0, decay: "all", ...}

  name: "sgd", "rmsprop", "adam", "adamw", "lars", "lamb", "lion" or "muon"; see `rules` for the
  update rules and their fields. Or the address of a function that returns an
  `optax.GradientTransformation`, such as "optax:nadam" or "my_optimizers.py:lion". All fields of
  the section except `rates` and `clip_...` are its keyword arguments, `weight_decay` included. A
  function with a parameter `learning_rate` receives the schedule; any other sets its rate itself.
  `decay`: the parameters that weight decay applies to: "all", "kernels" (no biases, no BatchNorm),
  or pairs (regular expression, multiplier). Exactly one expression must match the whole path of
  each parameter, such as "stage1_block1/conv1/kernel".
  `rates`: pairs of the same kind, multipliers of the learning rate; 0 freezes a parameter.
  `clip_norm`: clips the gradient to this global norm.
  `clip_adaptive`: clips the gradient of each unit to this fraction of the norm of its weights
  (Brock et al. 2021, arXiv 2102.06171, section 4, which uses 0.01). Here it covers all parameters;
  the paper excludes the classifier.
  Both clip the gradient of the loss, before weight decay is added.

`schedule`: see `schedules`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import jax
import optax

from jaxcnn._checks import one_of, require
from jaxcnn._objects import check_call, is_address, load_object, mistakes_in_call, parameters
from jaxcnn.training.optim import RESERVED_FIELDS
from jaxcnn.training.optim.rules import RULES
from jaxcnn.training.optim.schedules import (
    Config,
    Schedule,
    check_fields,
    make_schedule,
    plateau_transform,
)

OPTIMIZERS = tuple(RULES)
DECAYS = {
    "all": ((".*", 1.0),),
    "kernels": ((r"(.*/)?kernel", 1.0), (r"(?!(.*/)?kernel$).*", 0.0)),
}
COMMON_FIELDS = ("name", "weight_decay", "decay", "rates", "clip_norm", "clip_adaptive")


def make_optimizer(
    optimizer: Config,
    schedule: Config,
    total_steps: int,
    steps_per_epoch: float,
    params: Any,
    *,
    batch_size: int | None = None,
    rate: Schedule | None = None,
) -> tuple[optax.GradientTransformation, Schedule | None]:
    """Makes the optimizer and its learning-rate schedule.

    Args:
      optimizer: see the module docstring.
      schedule: see `schedules`.
      total_steps: length of the run.
      steps_per_epoch: number of examples / batch size, not rounded.
      params: the parameters or their shapes, for the paths in `decay` and `rates`.
      batch_size: needed for durations in examples only.
      rate: learning rate as a function of the step; replaces that of `schedule`.

    Returns:
      (optax transform, learning rate as a function of the step). The second is for logging, and
      None if the optimizer sets its rate itself.

    Raises:
      ValueError: a name or field is unknown, a value is invalid, the expressions of `decay` or
        `rates` do not match every parameter exactly once, or a custom function does not accept
        the fields or does not return a suitable transform.
    """
    name = optimizer.get("name", "sgd")
    custom = load_object(name) if is_address(name) else None
    if custom is None:
        one_of("optimizer.name", name, OPTIMIZERS)
    if custom is not None and "learning_rate" not in parameters(custom):
        rate, update = None, [_custom_transform(name, custom, optimizer, {}, params)]
    else:
        if rate is None:
            rate = make_schedule(schedule, total_steps, steps_per_epoch, batch_size=batch_size)
        plateau = [plateau_transform(schedule)] if schedule.get("name") == "plateau" else []
        if custom is None:
            update = _rule(name, optimizer, params, rate, plateau)
        else:
            arguments = {"learning_rate": rate}
            update = [_custom_transform(name, custom, optimizer, arguments, params), *plateau]
    transforms = [*_clipping(optimizer), *update]
    if optimizer.get("rates"):
        factors = multipliers("optimizer.rates", optimizer["rates"], params)
        transforms.append(
            optax.stateless(
                lambda updates, _: jax.tree.map(lambda u, factor: u * factor, updates, factors)
            )
        )
    return optax.chain(*transforms), rate


def _rule(
    name: str,
    optimizer: Config,
    params: Any,
    rate: Schedule,
    plateau: list[optax.GradientTransformation],
) -> list[optax.GradientTransformation]:
    """Makes the transforms of one of `RULES`, and checks its fields."""
    rule, defaults = RULES[name]
    check_fields("optimizer", optimizer, (*COMMON_FIELDS, *defaults))
    options = {field: optimizer.get(field, default) for field, default in defaults.items()}
    for field in ("momentum", "b1", "b2", "rho"):
        if field in options:
            require(0 <= options[field] < 1, f"optimizer.{field}", options[field], "in [0, 1)")
    for field in ("eps", "trust"):
        if field in options:
            require(options[field] > 0, f"optimizer.{field}", options[field], "above 0")
    scale = optax.scale_by_learning_rate(rate)
    if plateau:
        scale = optax.chain(scale, *plateau)
    return rule(_decay(optimizer, params), scale, **options)


def _custom_transform(
    name: str, custom: Any, optimizer: Config, arguments: Config, params: Any
) -> optax.GradientTransformation:
    """Makes and checks the transform of a custom function; `custom` may be a transform already."""
    what = f"optimizer {name!r}"
    options = {k: v for k, v in optimizer.items() if k not in RESERVED_FIELDS["optimizer"]}
    if isinstance(custom, optax.GradientTransformation):
        if options:
            raise ValueError(
                f"{what} is not a function, so it takes no option {next(iter(options))!r}"
            )
        transform = custom
    else:
        check_call(what, custom, **arguments, **options)
        with mistakes_in_call(what, custom):
            transform = custom(**arguments, **options)
    if not isinstance(transform, optax.GradientTransformation):
        raise ValueError(
            f"{what} returned an object of type {type(transform).__name__}; it must return an "
            "optax.GradientTransformation"
        )
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    with mistakes_in_call(what, custom if callable(custom) else transform.update):
        updates, _ = jax.eval_shape(lambda p: transform.update(p, transform.init(p), p), shapes)
    actual, expected = (jax.tree.map(lambda leaf: leaf.shape, tree) for tree in (updates, shapes))
    if actual != expected:
        raise ValueError(f"{what} returned updates that do not have the shapes of the parameters")
    return transform


def _clipping(optimizer: Config) -> list[optax.GradientTransformation]:
    makers = {"clip_norm": optax.clip_by_global_norm, "clip_adaptive": optax.adaptive_grad_clip}
    transforms = []
    for field, make in makers.items():
        value = optimizer.get(field)
        if value is not None:
            require(value > 0, f"optimizer.{field}", value, "above 0")
            transforms.append(make(value))
    return transforms


def _decay(optimizer: Config, params: Any) -> list[optax.GradientTransformation]:
    weight_decay = optimizer.get("weight_decay", 0.0)
    require(weight_decay >= 0, "optimizer.weight_decay", weight_decay, "0 or more")
    if not weight_decay:
        return []
    factors = decay_multipliers(optimizer.get("decay", "all"), params)
    return [_add_decay(weight_decay, factors)]


def decay_multipliers(decay: str | Sequence[tuple[str, float]], params: Any) -> Any:
    """Returns the weight-decay multiplier of each parameter.

    Args:
      decay: "all", "kernels", or pairs (regular expression, multiplier); see the module docstring.
      params: parameters or their shapes.

    Returns:
      A tree like `params`.

    Raises:
      ValueError: no expression or several match a parameter, or an expression is invalid or
        matches no parameter.
    """
    if isinstance(decay, str):
        decay = DECAYS[one_of("optimizer.decay", decay, DECAYS)]
        return multipliers("optimizer.decay", decay, params, idle_allowed=True)
    return multipliers("optimizer.decay", decay, params)


def multipliers(
    what: str, pairs: Sequence[tuple[str, float]], params: Any, *, idle_allowed: bool = False
) -> Any:
    """Assigns a number to each parameter by its path.

    Args:
      what: name of the field, for messages.
      pairs: pairs (regular expression, number).
      params: parameters or their shapes.
      idle_allowed: whether an expression may match no parameter.

    Returns:
      A tree like `params`.

    Raises:
      ValueError: as `decay_multipliers`.
    """
    rules = tuple((pattern, float(factor)) for pattern, factor in pairs)
    try:
        compiled = [(re.compile(pattern), factor) for pattern, factor in rules]
    except re.error as error:
        raise ValueError(f"{what} has {error.pattern!r}, not valid: {error}") from error
    used = set()

    def lookup(path, _):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        hits = [(rule.pattern, factor) for rule, factor in compiled if rule.fullmatch(name)]
        if len(hits) != 1:
            patterns = [pattern for pattern, _ in (hits or rules)]
            fault = "several match" if hits else "none matches"
            raise ValueError(
                f"{what} must cover each parameter exactly once; {fault} {name!r}: "
                f"{', '.join(map(repr, patterns))}"
            )
        used.add(hits[0][0])
        return hits[0][1]

    factors = jax.tree_util.tree_map_with_path(lookup, params)
    idle = [pattern for pattern, _ in rules if pattern not in used]
    if idle and not idle_allowed:
        raise ValueError(f"{what} has {idle[0]!r}, which matches no parameter")
    return factors


def _add_decay(weight_decay: float, factors: Any) -> optax.GradientTransformation:
    def add(updates, params):
        return jax.tree.map(
            lambda u, p, factor: u + weight_decay * factor * p if factor else u,
            updates,
            params,
            factors,
        )

    return optax.stateless(add)
