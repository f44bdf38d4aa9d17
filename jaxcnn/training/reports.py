"""What a run reports: `Report` objects, and the files that its rows of metrics go to."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxcnn.evaluation import localisation
from jaxcnn.training.wandb_rows import WandbRows

JSONL = "metrics.jsonl"
CSV = "metrics.csv"
TENSORBOARD = "tensorboard"

# The columns of both files. A row has those that its kind has.
COLUMNS = (
    *("kind", "step", "epoch", "loss", "top1_error", "top5_error"),
    *("train_loss", "train_top1_error", "train_top5_error"),
    *("learning_rate", "grad_norm", "images_per_second", "step_ms", "data_wait_ms"),
    *("device_memory_mib", "eval_seconds", "checkpoint_seconds"),
    *("ema_loss", "ema_top1_error", "ema_top5_error"),
    *(prefix + name for prefix in ("", "ema_") for name in ("box_loss", *localisation.ERRORS)),
)


def score(values: Mapping[str, Any]) -> float:
    """The error of an evaluation by which the best one is chosen: of class and box where both are
    learnt, else of the class."""
    return values.get(localisation.ERRORS[0], values["top1_error"])


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
        compiled: seconds, memory_bytes where the backend tells it, and what `programs.work` gives.
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
        end: the last evaluation's values, seconds, and time_shares: of them in steps, evaluation,
          checkpoints, and other things such as loading and compiling.
    """

    kind: str
    step: int
    epoch: float
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    member: int | None = None


class MetricsFiles:
    """`metrics.jsonl`, `metrics.csv` and TensorBoard events of a run.

    Args:
      workdir: where the files lie.
      after: None for a new run. For a resumed one its step: later rows of the files, and a last
        line that was cut short, are dropped, so that the files become those of an undisturbed run.
      write: False in a process that only needs to know the best score so far.
    """

    def __init__(self, workdir: Path, after: int | None = None, *, write: bool = True):
        from tensorboardX import SummaryWriter

        kept = [] if after is None else [r for r in read_rows(workdir) if r["step"] <= after]
        self.best = min((score(r) for r in kept if r["kind"] == "eval"), default=None)
        self._write = write
        self.wandb: WandbRows | None = None
        if not write:
            return
        _replace(workdir / JSONL, (json.dumps(row) + "\n" for row in kept))
        _replace(workdir / CSV, [",".join(COLUMNS) + "\n"])
        self._jsonl = open(workdir / JSONL, "a", encoding="utf-8")  # noqa: SIM115
        self._csv_file = open(workdir / CSV, "a", encoding="utf-8", newline="")  # noqa: SIM115
        self._csv = csv.DictWriter(self._csv_file, COLUMNS, lineterminator="\n")
        self._csv.writerows(kept)
        self._csv_file.flush()
        self._events = SummaryWriter(
            str(workdir / TENSORBOARD), purge_step=None if after is None else after + 1
        )

    def write(self, kind: str, step: int, epoch: float, values: Mapping[str, Any]) -> None:
        """Adds a row to all three."""
        if kind == "eval":
            self.best = score(values) if self.best is None else min(self.best, score(values))
        if not self._write:
            return
        row = {"kind": kind, "step": step, "epoch": epoch, **values}
        unknown = set(row) - set(COLUMNS)
        if unknown:
            raise ValueError(f"no column for {', '.join(sorted(unknown))}")
        try:
            self._jsonl.write(json.dumps(row) + "\n")
            self._jsonl.flush()
            self._csv.writerow(row)
            self._csv_file.flush()
        except OSError as error:
            text = f"cannot write the metrics of step {step} ({error.strerror})"
            raise OSError(error.errno, text, self._jsonl.name) from error
        for name, value in values.items():
            self._events.add_scalar(f"{kind}/{name}", value, step)
        if self.wandb is not None:
            self.wandb.write(kind, step, values)

    def close(self) -> None:
        if not self._write:
            return
        for file in (self._jsonl, self._csv_file, self._events):
            with contextlib.suppress(OSError):  # every row was flushed, or its error told
                file.close()
        if self.wandb is not None:
            self.wandb.close()


def read_rows(workdir: str | Path) -> list[dict[str, Any]]:
    """The rows of a run's `metrics.jsonl`; [] if there is none. A line cut short is left out."""
    path = Path(workdir) / JSONL
    if not path.exists():
        return []
    rows = []
    for line in path.read_text("utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def _replace(path: Path, lines: Iterable[str]) -> None:
    """Writes the file anew; who reads it meanwhile sees the old one or the new one."""
    draft = path.with_name(path.name + ".draft")
    draft.write_text("".join(lines), "utf-8")
    os.replace(draft, path)
