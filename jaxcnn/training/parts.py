"""What a run makes before its first step, so that runs that are trained as one can share it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from jaxcnn.runtime.stop import StopSignals
from jaxcnn.training import engine
from jaxcnn.training.build import Setup, make_setup
from jaxcnn.training.config import Recorded
from jaxcnn.training.state import TrainState, create_state


@dataclasses.dataclass(frozen=True)
class Ask:
    """Steps that a run wants made; who trains several runs makes them, and sends the result.

    `state`, `batch` and `key` are a step's arguments, `step` the steps made before, `count` the
    steps wanted.
    """

    state: TrainState
    batch: Any
    key: Any
    step: int
    count: int


def begin(setup: Setup, key: jax.Array) -> TrainState:
    """The state before the first step."""
    ema = bool(setup.ema_decay)
    return create_state(setup.model, setup.optimizer, key, setup.image_shape, ema=ema)


@dataclasses.dataclass(frozen=True)
class Parts:
    """How a run makes its parts; by default, for itself alone.

    `compile_train` makes a function that makes steps, or that returns an `Ask`. `alone` is False
    for a run that is trained with others.
    """

    make_setup: Callable[[Recorded], Setup] = make_setup
    begin: Callable[[Setup, jax.Array], TrainState] = begin
    compile_train: Callable[..., tuple[Callable, dict[str, Any]]] = engine.compile_train
    make_evaluate: Callable[[Setup], Callable] = engine.make_evaluate
    stop: Callable[[], contextlib.AbstractContextManager[StopSignals]] = StopSignals
    alone: bool = True
