"""Optimizers from plain configurations.

`optimizer`: {name: "sgd", weight_decay: 0.0, decay: "all", ...}

  name: "sgd", "rmsprop", "adam", "adamw", "lars", "lamb", "lion" or "muon"; what each computes and
  its own fields are in `rules`. Or the address of a function that returns an
  `optax.GradientTransformation`, such as "optax:nadam" or "my_optimizers.py:lion": the section's
  fields are its keyword arguments, `weight_decay` among them, all but `rates` and `clip_...`. If it
  has a parameter `learning_rate`, it is given the schedule; else the rate is its own affair.
  `decay` says which parameters the weight decay reaches: "all", "kernels" (no biases, no
  BatchNorm), or pairs (regular expression, multiplier). An expression is matched against the whole
  path of a parameter, such as "stage1_block1/conv1/kernel", and exactly one must match each.
  `rates`: pairs of the same kind, multipliers of the learning rate; 0 freezes.
  `clip_norm`: the gradient is shortened to this norm, taken over all parameters.
  `clip_adaptive`: each unit's gradient is shortened to this share of the norm of its weights (Brock
  et al. 2021, arXiv 2102.06171, section 4; there 0.01, and not in the classifier).
  Both are of the loss's gradient, before weight decay is added.

`schedule`: see `schedules`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import jax
import optax

from jaxcnn._checks import one_of, require
from jaxcnn._objects import check_call, is_address, load_object, parameters
from jaxcnn.training.optim import OWN_FIELDS
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
    """The optax transform and, for logging, the schedule: step to learning rate.

    The schedule is None where the optimizer has a learning rate of its own.

    Args:
      optimizer, schedule: see the module's text.
      total_steps: length of the run.
      steps_per_epoch: number of examples / batch size, not rounded.
      params: the parameters or their shapes, for the paths in `decay` and `rates`.
      batch_size: needed for durations in examples only.
      rate: taken instead of the schedule's own function of the step.

    Raises:
      ValueError: an unknown name or field, a value that cannot be, a parameter that the
        expressions of `decay` or `rates` do not cover exactly once, or a function of your own that
        cannot be called with the fields or returns something else.
    """
    name = optimizer.get("name", "sgd")
    own = load_object(name) if is_address(name) else None
    if own is None:
        one_of("optimizer.name", name, OPTIMIZERS)
    if own is not None and "learning_rate" not in parameters(own):
        rate, update = None, [_own_transform(name, own, optimizer, {}, params)]
    else:
        if rate is None:
            rate = make_schedule(schedule, total_steps, steps_per_epoch, batch_size=batch_size)
        plateau = [plateau_transform(schedule)] if schedule.get("name") == "plateau" else []
        if own is None:
            update = _rule(name, optimizer, params, rate, plateau)
        else:
            needed = {"learning_rate": rate}
            update = [_own_transform(name, own, optimizer, needed, params), *plateau]
    transforms = [*_clipping(optimizer), *update]
    if optimizer.get("rates"):
        shares = multipliers("optimizer.rates", optimizer["rates"], params)
        transforms.append(
            optax.stateless(
                lambda updates, _: jax.tree.map(lambda u, share: u * share, updates, shares)
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
    """The transforms of one of `RULES`, with its fields checked."""
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


def _own_transform(
    name: str, own: Any, optimizer: Config, needed: Config, params: Any
) -> optax.GradientTransformation:
    """What a function of the user's own returns, checked; `own` may be its result already."""
    what = f"optimizer {name!r}"
    options = {k: v for k, v in optimizer.items() if k not in OWN_FIELDS["optimizer"]}
    if isinstance(own, optax.GradientTransformation):
        if options:
            raise ValueError(f"{what} is no function: it takes no option {next(iter(options))!r}")
        made = own
    else:
        check_call(what, own, **needed, **options)
        made = own(**needed, **options)
    if not isinstance(made, optax.GradientTransformation):
        raise ValueError(
            f"{what} returned an object of type {type(made).__name__}; it must return an "
            "optax.GradientTransformation"
        )
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    updates, _ = jax.eval_shape(lambda p: made.update(p, made.init(p), p), shapes)
    found, right = (jax.tree.map(lambda leaf: leaf.shape, tree) for tree in (updates, shapes))
    if found != right:
        raise ValueError(f"{what} returned updates that do not have the shapes of the parameters")
    return made


def _clipping(optimizer: Config) -> list[optax.GradientTransformation]:
    known = {"clip_norm": optax.clip_by_global_norm, "clip_adaptive": optax.adaptive_grad_clip}
    found = []
    for field, make in known.items():
        value = optimizer.get(field)
        if value is not None:
            require(value > 0, f"optimizer.{field}", value, "above 0")
            found.append(make(value))
    return found


def _decay(optimizer: Config, params: Any) -> list[optax.GradientTransformation]:
    weight_decay = optimizer.get("weight_decay", 0.0)
    require(weight_decay >= 0, "optimizer.weight_decay", weight_decay, "0 or more")
    if not weight_decay:
        return []
    shares = decay_multipliers(optimizer.get("decay", "all"), params)
    return [_add_decay(weight_decay, shares)]


def decay_multipliers(decay: str | Sequence[tuple[str, float]], params: Any) -> Any:
    """Each parameter's multiplier of the weight decay, as a tree like `params`.

    Args:
      decay: "all", "kernels", or pairs (regular expression, multiplier); see the module's text.
      params: parameters or their shapes.

    Raises:
      ValueError: a parameter is matched by no expression or by several, or an expression is not
        valid or matches none.
    """
    if isinstance(decay, str):
        decay = DECAYS[one_of("optimizer.decay", decay, DECAYS)]
        return multipliers("optimizer.decay", decay, params, idle_allowed=True)
    return multipliers("optimizer.decay", decay, params)


def multipliers(
    what: str, pairs: Sequence[tuple[str, float]], params: Any, *, idle_allowed: bool = False
) -> Any:
    """Each parameter's number from pairs (regular expression, number), as a tree like `params`.

    Raises:
      ValueError: naming `what`, as `decay_multipliers`; with `idle_allowed` an expression may match
        none.
    """
    rules = tuple((pattern, float(share)) for pattern, share in pairs)
    try:
        compiled = [(re.compile(pattern), share) for pattern, share in rules]
    except re.error as error:
        raise ValueError(f"{what} has {error.pattern!r}, not valid: {error}") from error
    used = set()

    def share_of(path, _):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        hits = [(rule.pattern, share) for rule, share in compiled if rule.fullmatch(name)]
        if len(hits) != 1:
            patterns = [pattern for pattern, _ in (hits or rules)]
            fault = "several match" if hits else "none matches"
            raise ValueError(
                f"{what} must cover each parameter exactly once; {fault} {name!r}: "
                f"{', '.join(map(repr, patterns))}"
            )
        used.add(hits[0][0])
        return hits[0][1]

    shares = jax.tree_util.tree_map_with_path(share_of, params)
    idle = [pattern for pattern, _ in rules if pattern not in used]
    if idle and not idle_allowed:
        raise ValueError(f"{what} has {idle[0]!r}, which matches no parameter")
    return shares


def _add_decay(weight_decay: float, shares: Any) -> optax.GradientTransformation:
    def add(updates, params):
        return jax.tree.map(
            lambda u, p, share: u + weight_decay * share * p if share else u,
            updates,
            params,
            shares,
        )

    return optax.stateless(add)
