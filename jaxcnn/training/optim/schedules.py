"""Makes learning-rate schedules from plain configurations, and converts durations to steps.

`schedule`: {name: "step", learning_rate: 0.1, ...}

  constant: the learning rate.
  step: multiplies the rate by `factor` (0.1) at each of
    `boundaries_steps|_epochs|_examples|_percent`.
  exponential: decays the rate by `factor` (0.1) over each interval of
    `every_steps|_epochs|_examples|_percent`, continuously, or with `staircase` (False) at its end.
  cosine: from the end of the warm-up down to `final` (0.0) times the rate at the end of the run.
  polynomial: the same range, as (1 - progress) to the `power` (1.0).
  one_cycle: from `start` (0.04) times the rate up to it in `rise_steps|_epochs|_examples|_percent`
    (30 percent), then down to `final` (0.0) times the rate; both along half a cosine (Smith & Topin
    2019, arXiv 1708.07120).
  plateau: multiplies the rate by `factor` (0.1) if the validation error has not improved by the
    relative `rtol` (1e-4) in `patience` (10) evaluations, then ignores `cooldown` (0) evaluations;
    the rate never falls below `min_scale` (0.0) times its initial value.
  "my_schedules.py:rise", "package.module:rise", "optax:linear_schedule": a custom function, or one
    of another library, that returns a function from step to learning rate. Its keyword arguments
    are the fields of the section, and `total_steps` and `steps_per_epoch` if it takes them.

All but `one_cycle` and custom functions support a warm-up of
`warmup_steps|_epochs|_examples|_percent`: "linear" `warmup` from `warmup_from` (0.0) to the rate
(with "exponential" and "step", to the rate that it has decayed to by then), or "constant" `warmup`
at `warmup_from`, which must be above 0 then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from jaxcnn._checks import near_or_all, one_of, require, shown
from jaxcnn._objects import check_call, is_address, load_object, mistakes_in_call, parameters

Config = Mapping[str, Any]
Schedule = Callable[[Any], jax.Array]

SCHEDULES = ("constant", "step", "exponential", "cosine", "polynomial", "one_cycle", "plateau")
WARMUPS = ("linear", "constant")
UNITS = ("steps", "epochs", "examples", "percent")
SCHEDULE_FIELDS = (
    *("name", "learning_rate", "factor", "final", "patience", "rtol", "cooldown", "min_scale"),
    *("warmup", "warmup_from", "staircase", "power", "start"),
    *(f"{n}_{unit}" for n in ("boundaries", "every", "rise", "warmup") for unit in UNITS),
)


def make_schedule(
    schedule: Config,
    total_steps: int,
    steps_per_epoch: float,
    *,
    batch_size: int | None = None,
) -> Schedule:
    """Makes the function from step to learning rate, without the factor of a plateau schedule.

    Args:
      schedule: see the module docstring.
      total_steps: length of the run.
      steps_per_epoch: number of examples / batch size, not rounded.
      batch_size: needed for durations in examples only.

    Returns:
      Function from step i32[] to learning rate f32[].

    Raises:
      ValueError: a name or field is unknown, a value is invalid, or a custom function does not
        accept the fields or does not return a schedule.
    """
    if is_address(schedule.get("name", "")):
        return _custom_schedule(schedule, total_steps, steps_per_epoch)
    check_fields("schedule", schedule, SCHEDULE_FIELDS)
    name = one_of("schedule.name", schedule.get("name", "constant"), SCHEDULES)
    peak = schedule.get("learning_rate")
    if peak is None:
        raise ValueError("schedule.learning_rate is missing")
    require(peak > 0, "schedule.learning_rate", peak, "above 0")

    def steps_of(field, default):
        return duration(
            schedule,
            field,
            steps_per_epoch=steps_per_epoch,
            batch_size=batch_size,
            total_steps=total_steps,
            default=default,
        )

    warmup_steps = steps_of("warmup", 0)
    require(0 <= warmup_steps <= total_steps, "warm-up in steps", warmup_steps, "within the run")
    if name == "step":
        main = _step(schedule, peak, _boundaries(steps_of), total_steps)
    elif name == "exponential":
        main = _exponential(schedule, peak, steps_of("every", None))
    elif name in ("cosine", "polynomial"):
        main = _down(schedule, peak, warmup_steps, total_steps)
    elif name == "one_cycle":
        main = _one_cycle(schedule, peak, steps_of("rise", round(0.3 * total_steps)), total_steps)
    else:
        main = optax.constant_schedule(peak)
    if name == "plateau":
        plateau_transform(schedule)
    if not warmup_steps:
        return lambda step: main(_as_float(step))
    kind = one_of("schedule.warmup", schedule.get("warmup", "linear"), WARMUPS)
    start = schedule.get("warmup_from", 0.0)
    require(0 <= start <= peak, "schedule.warmup_from", start, f"in [0, learning_rate = {peak}]")
    require(
        start > 0 or kind == "linear", "schedule.warmup_from", start, "above 0 with warmup=constant"
    )
    require(name != "one_cycle", "warm-up in steps", warmup_steps, "0 with one_cycle, which rises")
    end = peak
    if name == "exponential":  # decays from the first step on
        done = warmup_steps / steps_of("every", None)
        end *= _factor(schedule) ** (math.floor(done) if schedule.get("staircase") else done)
    if name == "step":  # the warm-up may end after a boundary
        end *= _factor(schedule) ** sum(b <= warmup_steps for b in _boundaries(steps_of))
    slope = (end - start) / warmup_steps if kind == "linear" else 0.0

    def warmed(step):
        step = _as_float(step)
        return jnp.where(step < warmup_steps, start + slope * step, main(step))

    return warmed


def _as_float(step: Any) -> jax.Array:
    """Converts a step, since optax's schedules of an int fail with strict dtype promotion."""
    return jnp.asarray(step, float)


def _custom_schedule(schedule: Config, total_steps: int, steps_per_epoch: float) -> Schedule:
    """Makes and checks the schedule of a custom function."""
    what, function = f"schedule {schedule['name']!r}", load_object(schedule["name"])
    facts = {"total_steps": total_steps, "steps_per_epoch": steps_per_epoch}
    options = {name: facts[name] for name in parameters(function) if name in facts}
    options |= {field: value for field, value in schedule.items() if field != "name"}
    check_call(what, function, **options)
    with mistakes_in_call(what, function):
        rate = function(**options)
    if not callable(rate):
        raise ValueError(f"{what} returned {shown(rate)}; it must return a function of the step")
    with mistakes_in_call(what, function):
        out: Any = jax.eval_shape(rate, jax.ShapeDtypeStruct((), jnp.int32))
    if getattr(out, "shape", None) != ():
        raise ValueError(f"{what} returned {shown(out)} for a step; the rate must be one number")
    return rate


def _boundaries(steps_of: Callable[[str, Any], Any]) -> tuple[int, ...]:
    """The steps at which the schedule "step" falls."""
    boundaries = steps_of("boundaries", None)
    if boundaries is None:
        raise ValueError("schedule 'step' needs boundaries_steps, _epochs, _examples or _percent")
    return (boundaries,) if isinstance(boundaries, int) else tuple(boundaries)


def _step(schedule: Config, peak: float, boundaries: tuple[int, ...], total_steps: int) -> Schedule:
    factor = _factor(schedule)
    require(
        list(boundaries) == sorted(set(boundaries)) and all(b > 0 for b in boundaries),
        "schedule boundaries in steps",
        boundaries,
        "positive and ascending",
    )
    require(
        all(b <= total_steps for b in boundaries),
        "schedule boundaries in steps",
        boundaries,
        f"within the run of {total_steps:,} steps; give them as boundaries_percent, for example",
    )
    return optax.piecewise_constant_schedule(peak, dict.fromkeys(boundaries, factor))


def _exponential(schedule: Config, peak: float, every: int | None) -> Schedule:
    factor = _factor(schedule)
    if every is None:
        raise ValueError("schedule 'exponential' needs every_steps, _epochs, _examples or _percent")
    require(every >= 1, "schedule every, in steps", every, "1 or more")
    if not schedule.get("staircase", False):
        return optax.exponential_decay(peak, every, factor)
    # In integers: XLA divides by a constant inexactly, and some rates would fall a step late.
    return lambda step: peak * factor ** _as_float(step.astype(jnp.int32) // every)


def _down(schedule: Config, peak: float, begin: int, total_steps: int) -> Schedule:
    """Decays from step `begin` to the end of the run, along a cosine or a polynomial."""
    final = _fraction(schedule, "final", 0.0)
    steps = max(1, total_steps - begin)
    if schedule.get("name") == "cosine":
        down = optax.cosine_decay_schedule(peak, steps, final)
    else:
        power = schedule.get("power", 1.0)
        require(power > 0, "schedule.power", power, "above 0")
        down = optax.polynomial_schedule(peak, final * peak, power, steps)
    return lambda step: down(step - begin)


def _one_cycle(schedule: Config, peak: float, rise: int, total_steps: int) -> Schedule:
    start, final = _fraction(schedule, "start", 0.04), _fraction(schedule, "final", 0.0)
    require(0 < rise < total_steps, "schedule rise, in steps", rise, "within the run")
    # optax.cosine_onecycle_schedule rounds differently, and cannot start from 0.
    down = optax.cosine_decay_schedule(peak, total_steps - rise, final)

    def rate(step):
        up = 0.5 * (1 - jnp.cos(jnp.pi * step / rise))
        return jnp.where(step < rise, peak * (start + (1 - start) * up), down(step - rise))

    return rate


def _factor(schedule: Config) -> float:
    factor = schedule.get("factor", 0.1)
    require(0 < factor < 1, "schedule.factor", factor, "in (0, 1)")
    return factor


def _fraction(schedule: Config, field: str, default: float) -> float:
    fraction = schedule.get(field, default)
    require(0 <= fraction <= 1, f"schedule.{field}", fraction, "in [0, 1]")
    return fraction


def duration(
    config: Config,
    name: str,
    *,
    steps_per_epoch: float,
    batch_size: int | None = None,
    total_steps: int | None = None,
    default: Any = None,
) -> Any:
    """Converts the field `{name}_steps`, `_epochs`, `_examples` or `_percent` to steps.

    Args:
      config: the section with the field; None counts as absent.
      name: such as "warmup".
      steps_per_epoch: number of examples / batch size, not rounded.
      batch_size: needed for `_examples`.
      total_steps: needed for `_percent`, which refers to the run.
      default: the result if none of the fields is set.

    Returns:
      An int, rounded to the nearest step, or a tuple of ints if the field is a sequence.

    Raises:
      ValueError: several of the fields are set, the value is negative or not a number, or an
        argument that the unit needs is None.
    """
    fields = {u: f"{name}_{u}" for u in UNITS if config.get(f"{name}_{u}") is not None}
    if not fields:
        return default
    if len(fields) > 1:
        raise ValueError(f"{' and '.join(fields.values())} are set; set one of them")
    ((unit, field),) = fields.items()
    value = config[field]
    factors = {
        "steps": 1,
        "epochs": steps_per_epoch,
        "examples": batch_size and 1 / batch_size,
        "percent": total_steps and total_steps / 100,
    }
    factor = factors[unit]
    if factor is None:
        needs = "batch size" if unit == "examples" else "length of the run"
        raise ValueError(f"{field} is set, but the {needs} is not known here")

    def steps(v):
        number = isinstance(v, (int, float)) and not isinstance(v, bool)
        require(number and math.isfinite(v) and v >= 0, field, v, "a number, 0 or more")
        require(unit != "percent" or v <= 100, field, v, "100 at most")
        return round(v * factor)

    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(steps(v) for v in value)
    return steps(value)


def observe(schedule: Config, opt_state: Any, value: Any) -> Any:
    """Passes the result of an evaluation to a plateau schedule.

    This is a pure function.

    Args:
      schedule: the section of the configuration.
      opt_state: the optimizer state.
      value: the observed error, f32[].

    Returns:
      The new optimizer state; for any other schedule, `opt_state`.
    """
    if schedule.get("name") != "plateau":
        return opt_state
    plateau = _reduce_on_plateau(schedule)
    return jax.tree.map(
        lambda s: plateau.update((), s, value=value)[1] if _is_plateau(s) else s,
        opt_state,
        is_leaf=_is_plateau,
    )


def learning_rate(rate: Schedule, opt_state: Any, step: Any) -> Any:
    """Returns the learning rate of a step, f32[], including the factor of a plateau schedule."""
    for state in jax.tree.leaves(opt_state, is_leaf=_is_plateau):
        if _is_plateau(state):
            return rate(step) * state.scale
    return rate(step)


def _is_plateau(state: Any) -> bool:
    return isinstance(state, contrib.ReduceLROnPlateauState)


def _reduce_on_plateau(schedule: Config) -> optax.GradientTransformationExtraArgs:
    factor, patience = _factor(schedule), schedule.get("patience", 10)
    rtol, cooldown = schedule.get("rtol", 1e-4), schedule.get("cooldown", 0)
    min_scale = schedule.get("min_scale", 0.0)
    require(patience >= 1, "schedule.patience", patience, "1 or more")
    require(0 < rtol < 1, "schedule.rtol", rtol, "in (0, 1)")
    require(cooldown >= 0, "schedule.cooldown", cooldown, "0 or more")
    require(0 <= min_scale < 1, "schedule.min_scale", min_scale, "in [0, 1)")
    return contrib.reduce_on_plateau(factor, patience, rtol, 0.0, cooldown, 1, min_scale)


def plateau_transform(schedule: Config) -> optax.GradientTransformationExtraArgs:
    """Makes optax's `reduce_on_plateau`, except that an update without `value` only scales."""
    plateau = _reduce_on_plateau(schedule)

    def update(updates, state, params=None, *, value=None, **extra):
        if value is not None:
            return plateau.update(updates, state, params, value=value)
        return jax.tree.map(lambda u: state.scale * u, updates), state

    return optax.GradientTransformationExtraArgs(plateau.init, update)


def check_fields(where: str, config: Config, known: Sequence[str]) -> None:
    """Raises ValueError for a field that is not in `known`."""
    for field in config:
        if field not in known:
            raise ValueError(f"unknown field {where}.{field}{near_or_all(field, known)}")
