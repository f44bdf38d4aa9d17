"""`Report`: the events of a run, which `jaxcnn.training.train` yields."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Report:
    """An event of a run.

    Attributes:
      kind: "start", "notice", "compiled", "first_step", "step", "train", "eval", "checkpoint",
        "stopped" or "end".
      step: number of updates so far.
      epoch: number of passes over the training set so far.
      member: index of the run in an ensemble that is trained as one, see `members`; else None.
      values: depends on `kind`.
        start: model, params, source, examples, train_examples, test_examples, batch_size,
          total_steps, total_epochs, seed, device_count, process_count, platform, parallel,
          batch_norm_examples; see `loop`.
        notice: text.
        compiled: seconds, memory_bytes if the backend reports it, and the values of
          `engine.step_cost`.
        first_step: first_step_seconds, from the start of the run to the end of its first step.
        step: loss, top1_error, top5_error and grad_norm, means over the steps of the latest call
          that was fetched.
        train: means over the steps since the last row of this kind; see `COLUMNS`. `step_ms` is the
          time per step, `data_wait_ms` the part of it spent waiting for streamed images,
          `device_memory_mib` the peak memory of a device, if it reports it.
        eval: means over the test split; means over the training steps since the last evaluation,
          prefixed with `train_`; and means with the averaged weights, prefixed with `ema_`. Errors
          are fractions between 0 and 1. `eval_seconds` is the duration of the evaluation,
          `checkpoint_seconds` the time spent on checkpoints since the last one.
        checkpoint: best (True if it is the best so far).
        stopped: signal.
        end: the values of the last evaluation, seconds, and time_shares: the fractions of the time
          spent on training, evaluation, checkpoints, compiling, setup, figures, and other things.
    """

    kind: str
    step: int
    epoch: float
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    member: int | None = None
