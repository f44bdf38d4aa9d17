"""The metrics files of a run."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxcnn._files import Spool, any_path, read_json_lines, write_text
from jaxcnn.training.output import written
from jaxcnn.training.output.trackers import WandbRows

JSONL = "metrics.jsonl"
CSV = "metrics.csv"
TENSORBOARD = "tensorboard"

# The names in `metrics.localization.ERRORS`, repeated here so that rows are read without JAX. The
# first one selects the best checkpoint.
_LOCALIZATION = ("localization_top1_error", "localization_top5_error")
_FORMER = "localisation_"  # in the names of columns that earlier versions wrote

# The columns of both files. A row has the columns of its kind.
COLUMNS = (
    *("kind", "step", "epoch", "loss", "top1_error", "top5_error"),
    *("train_loss", "train_top1_error", "train_top5_error"),
    *("learning_rate", "grad_norm", "images_per_second", "step_ms", "data_wait_ms"),
    *("device_memory_mib", "eval_seconds", "checkpoint_seconds"),
    *("ema_loss", "ema_top1_error", "ema_top5_error"),
    *(prefix + name for prefix in ("", "ema_") for name in ("box_loss", *_LOCALIZATION)),
)

# The columns that every row of a kind has, with finite values.
_FINITE = {"train": ("step", "epoch"), "eval": ("step", "epoch", "loss", "top1_error")}


def score(values: Mapping[str, Any]) -> float:
    """Returns the error that selects the best checkpoint.

    It is the error in localization if that is learned, else top-1; of the averaged weights if there
    are any, since these are what is loaded.
    """
    names = (prefix + name for name in (_LOCALIZATION[0], "top1_error") for prefix in ("ema_", ""))
    return next(values[name] for name in names if name in values)


class MetricsFiles:
    """`metrics.jsonl`, `metrics.csv` and TensorBoard events of a run.

    Args:
      workdir: directory of the files.
      after: None for a new run. For a resumed run, its step: later rows and damaged lines are
        dropped, so that the files end up identical to those of an uninterrupted run.
      evaluated: False if a resumed run repeats the evaluation of its step.
      write: False in a process that only needs the scores.
      check: raises OSError if another process has taken over the directory, whose files are then
        left alone.

    Attributes:
      scores: {step of an evaluation: its score}.
      last: the last row, {} before the first one.
    """

    def __init__(
        self,
        workdir: Path,
        after: int | None = None,
        *,
        evaluated: bool = True,
        write: bool = True,
        check: Callable[[], None] = lambda: None,
    ):
        kept = [] if after is None else [r for r in read_rows(workdir) if r["step"] <= after]
        if not evaluated:
            kept = [row for row in kept if (row["kind"], row["step"]) != ("eval", after)]
        self.scores = {row["step"]: score(row) for row in kept if row["kind"] == "eval"}
        self.last: Mapping[str, Any] = kept[-1] if kept else {}
        self._write, self._check = write, check
        self.wandb: WandbRows | None = None
        if not write:
            return
        self._workdir, self._spool = workdir, Spool(workdir)
        folder = self._spool.folder
        write_text(folder / JSONL, "".join(json.dumps(row) + "\n" for row in kept))
        write_text(folder / CSV, ",".join(COLUMNS) + "\n")
        self._jsonl = open(folder / JSONL, "a", encoding="utf-8")  # noqa: SIM115
        self._csv_file = open(folder / CSV, "a", encoding="utf-8", newline="")  # noqa: SIM115
        self._csv = csv.DictWriter(
            self._csv_file, COLUMNS, lineterminator="\n", extrasaction="ignore"
        )
        self._csv.writerows(kept)
        self._csv_file.flush()
        self._events = _TensorBoard(workdir, folder / TENSORBOARD, after)

    def write(self, kind: str, step: int, epoch: float, values: Mapping[str, Any]) -> None:
        """Adds a row to all files and trackers.

        Args:
          kind: "train" or "eval".
          step: the step.
          epoch: the epoch.
          values: the other columns.
        """
        if kind == "eval":
            self.scores[step] = score(values)
        row = {"kind": kind, "step": step, "epoch": epoch, **values}
        self.last = row
        if not self._write:
            return
        unknown = set(row) - set(COLUMNS)
        if unknown:
            raise ValueError(f"no column for {', '.join(sorted(unknown))}")
        with _locate_errors(f"the metrics of step {step}", self._workdir / JSONL):
            os.stat(self._jsonl.name)  # raises if the file was deleted: the row would be lost
            self._jsonl.write(json.dumps(row) + "\n")
            self._jsonl.flush()
            self._csv.writerow(row)
            self._csv_file.flush()
        with _locate_errors(f"the metrics of step {step}", self._workdir / TENSORBOARD):
            self._events.write(kind, step, values)
        if self.wandb is not None:
            self.wandb.write(kind, step, values)

    def flush(self) -> None:
        """Flushes the TensorBoard events; `write` has already flushed the other files.

        If the directory is in a bucket, all files are written there as a whole. Raises OSError if
        another process has taken over.
        """
        if self._write:
            with _locate_errors("TensorBoard's events", self._workdir / TENSORBOARD):
                self._events.flush()
            self._check()
            self._spool.publish()

    def close(self) -> None:
        """Closes the files."""
        if not self._write:
            return
        for file in (self._jsonl, self._csv_file, self._events):
            with contextlib.suppress(OSError):  # `write` has flushed every row, or raised
                file.close()
        with contextlib.suppress(OSError):
            self._check()
            self._spool.publish()
        self._spool.close()
        if self.wandb is not None:
            self.wandb.close()


class _TensorBoard:
    """Event files in a folder, written synchronously, so that errors reach the training loop.

    Args:
      workdir: directory of the run.
      folder: local folder of the events.
      after: step that a run is resumed from; TensorBoard then ignores older events of later steps.
    """

    def __init__(self, workdir: Path, folder: Path, after: int | None = None):
        from tensorboardX import event_file_writer, summary
        from tensorboardX.proto import event_pb2

        folder.mkdir(parents=True, exist_ok=True)
        mark = f".{uuid.uuid4().hex[:8]}"
        written.note(workdir, f"{folder.name}/*{mark}")
        self._scalar, self._event = summary.scalar, event_pb2.Event
        self._events = event_file_writer.EventsWriter(str(folder / "events"), mark)
        if after is not None:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._add(step=after + 1, session_log=start)

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Adds each value of a row as `kind/name`."""
        for name, value in values.items():
            self._add(step=step, summary=self._scalar(f"{kind}/{name}", value))

    def flush(self) -> None:
        """Flushes the events to the file."""
        self._events.flush()

    def close(self) -> None:
        """Flushes and closes the file."""
        self._events.close()

    def _add(self, **fields: Any) -> None:
        self._events.write_event(self._event(wall_time=time.time(), **fields))


@contextlib.contextmanager
def _locate_errors(what: str, where: str | Path) -> Iterator[None]:
    """Adds to an OSError what cannot be written, and where."""
    try:
        yield
    except OSError as error:
        text = f"cannot write {what} ({error.strerror})"
        raise OSError(error.errno, text, str(where)) from error


def read_rows(workdir: str | Path) -> list[dict[str, Any]]:
    """Reads the rows of a run's `metrics.jsonl`, with the current names of renamed columns.

    Damaged lines are left out; the result is [] if the file does not exist.
    """
    rows = (row for row in read_json_lines(any_path(workdir) / JSONL) if _is_row(row))
    return [
        {name.replace(_FORMER, "localization_"): value for name, value in row.items()}
        for row in rows
    ]


def _is_row(row: Mapping[str, Any]) -> bool:
    """Whether a row has all required columns, and all its values are numbers."""
    numbers = {name: value for name, value in row.items() if name != "kind"}
    return (
        row.get("kind") in _FINITE
        and all(type(value) in (int, float) for value in numbers.values())
        and all(math.isfinite(numbers.get(name, math.nan)) for name in _FINITE[row["kind"]])
        and type(row["step"]) is int
    )
