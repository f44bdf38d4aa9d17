"""Optimizers and learning-rate schedules from plain configurations.

`optimizer`: {name: "sgd", momentum: 0.9, nesterov: False, weight_decay: 0.0, decay: "all"}

  `decay` says which parameters the weight decay reaches: "all", "kernels" (no biases, no
  BatchNorm), or pairs (regular expression, multiplier). An expression is matched against the whole
  path of a parameter, such as "stage1_block1/conv1/kernel", and exactly one must match each.
  Decay is coupled: it is added to the gradient before the momentum, as in the papers.

`schedule`: see `schedules`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import jax
import optax

from jaxcnn.training.schedules import (
    Config,
    Schedule,
    check_fields,
    make_schedule,
    one_of,
    plateau_transform,
    require,
)

OPTIMIZERS = ("sgd",)
DECAYS = {
    "all": ((".*", 1.0),),
    "kernels": ((r"(.*/)?kernel", 1.0), (r"(?!(.*/)?kernel$).*", 0.0)),
}
_OPTIMIZER_FIELDS = ("name", "momentum", "nesterov", "weight_decay", "decay")


def make_optimizer(
    optimizer: Config,
    schedule: Config,
    total_steps: int,
    steps_per_epoch: float,
    params: Any,
    *,
    batch_size: int | None = None,
) -> tuple[optax.GradientTransformation, Schedule]:
    """The optax transform and, for logging, the schedule: step to learning rate.

    Args:
      optimizer, schedule: see the module's text.
      total_steps: length of the run.
      steps_per_epoch: number of examples / batch size, not rounded.
      params: the parameters or their shapes, for the decay's paths.
      batch_size: needed for durations in examples only.

    Raises:
      ValueError: an unknown name or field, a value that cannot be, or a parameter that the decay's
        expressions do not cover exactly once.
    """
    check_fields("optimizer", optimizer, _OPTIMIZER_FIELDS)
    one_of("optimizer.name", optimizer.get("name", "sgd"), OPTIMIZERS)
    momentum = optimizer.get("momentum", 0.9)
    require(0 <= momentum < 1, "optimizer.momentum", momentum, "in [0, 1)")
    weight_decay = optimizer.get("weight_decay", 0.0)
    require(weight_decay >= 0, "optimizer.weight_decay", weight_decay, "0 or more")
    rate = make_schedule(schedule, total_steps, steps_per_epoch, batch_size=batch_size)
    transforms = []
    if weight_decay:
        shares = decay_multipliers(optimizer.get("decay", "all"), params)
        transforms.append(_add_decay(weight_decay, shares))
    if momentum:
        transforms.append(optax.trace(momentum, nesterov=optimizer.get("nesterov", False)))
    transforms.append(optax.scale_by_learning_rate(rate))
    if schedule.get("name") == "plateau":
        transforms.append(plateau_transform(schedule))
    return optax.chain(*transforms), rate


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
        rules = DECAYS[one_of("optimizer.decay", decay, DECAYS)]
    else:
        rules = tuple((pattern, float(share)) for pattern, share in decay)
    try:
        compiled = [(re.compile(pattern), share) for pattern, share in rules]
    except re.error as error:
        raise ValueError(f"optimizer.decay has {error.pattern!r}, not valid: {error}") from error
    used = set()

    def share_of(path, _):
        name = parameter_path(path)
        hits = [(rule.pattern, share) for rule, share in compiled if rule.fullmatch(name)]
        if len(hits) != 1:
            patterns = [pattern for pattern, _ in (hits or rules)]
            what = "several match" if hits else "none matches"
            raise ValueError(
                f"optimizer.decay must cover each parameter exactly once; {what} {name!r}: "
                f"{', '.join(map(repr, patterns))}"
            )
        used.add(hits[0][0])
        return hits[0][1]

    shares = jax.tree_util.tree_map_with_path(share_of, params)
    idle = [pattern for pattern, _ in rules if pattern not in used]
    if idle and not isinstance(decay, str):
        raise ValueError(f"optimizer.decay has {idle[0]!r}, which matches no parameter")
    return shares


def parameter_path(path: Sequence[Any]) -> str:
    """A path of `jax.tree_util` as "stage1_block1/conv1/kernel"."""
    return "/".join(str(getattr(key, "key", getattr(key, "name", key))) for key in path)


def _add_decay(weight_decay: float, shares: Any) -> optax.GradientTransformation:
    def add(updates, params):
        return jax.tree.map(
            lambda u, p, share: u + weight_decay * share * p if share else u,
            updates,
            params,
            shares,
        )

    return optax.stateless(add)
