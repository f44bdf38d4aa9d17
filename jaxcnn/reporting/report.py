"""`Report`: what `jaxcnn.training.train` yields, and all who show a run read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Report:
    """One thing that happened in a run.

    Fields:
      kind: "start", "notice", "compiled", "first_step", "step", "train", "eval", "checkpoint",
        "stopped", "end".
      step: updates made so far.
      epoch: passes over the training set so far.
      member: whose it is, of runs that are trained as one; see `members`.
      values: by kind.
        start: model, params, source, train_examples, test_examples, batch_size, total_steps,
          total_epochs, devices, platform, parallel.
        notice: text.
        compiled: seconds, memory_bytes where the backend tells it, and those of `engine.step_cost`.
        first_step: first_step_seconds, from the beginning of the run until its first step was done.
        step: loss, learning_rate, images_per_second of the newest step that was fetched.
        train: means over the steps since the last such row; see `COLUMNS`. `step_ms` is the time
          of a step, `data_wait_ms`, of photos that are streamed, how long of it a step waited for
          its batch, `device_memory_mib` the most memory a device has held, where it tells.
        eval: means over the test split, and with `train_` before them those over the training
          steps since the last evaluation, with `ema_` those of the averaged weights.
          Errors are shares between 0 and 1. `eval_seconds` it took; `checkpoint_seconds` were
          spent on checkpoints since the last evaluation.
        checkpoint: best (True where it is the best so far too).
        stopped: signal.
        end: the last evaluation's values, seconds, and time_shares: fractions of them spent on
          training, evaluation, checkpoints, compiling, setup, figures, and other things.
    """

    kind: str
    step: int
    epoch: float
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    member: int | None = None
