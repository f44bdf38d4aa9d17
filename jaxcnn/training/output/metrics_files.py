"""The files that a run's rows of metrics go to."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxcnn._files import read_json_lines, write_text
from jaxcnn.training.output import written
from jaxcnn.training.output.trackers import WandbRows

JSONL = "metrics.jsonl"
CSV = "metrics.csv"
TENSORBOARD = "tensorboard"

# `metrics.localization.ERRORS`, of which the first selects checkpoints; rows are read without JAX.
_LOCALIZATION = ("localisation_top1_error", "localisation_top5_error")

# The columns of both files. A row has those that its kind has.
COLUMNS = (
    *("kind", "step", "epoch", "loss", "top1_error", "top5_error"),
    *("train_loss", "train_top1_error", "train_top5_error"),
    *("learning_rate", "grad_norm", "images_per_second", "step_ms", "data_wait_ms"),
    *("device_memory_mib", "eval_seconds", "checkpoint_seconds"),
    *("ema_loss", "ema_top1_error", "ema_top5_error"),
    *(prefix + name for prefix in ("", "ema_") for name in ("box_loss", *_LOCALIZATION)),
)


# What every row of a kind has, and is finite.
_FINITE = {"train": ("step", "epoch"), "eval": ("step", "epoch", "loss", "top1_error")}


def score(values: Mapping[str, Any]) -> float:
    """The error of an evaluation by which the best one is chosen: of class and box where both are
    learned, else of the class."""
    return values.get(_LOCALIZATION[0], values["top1_error"])


class MetricsFiles:
    """`metrics.jsonl`, `metrics.csv` and TensorBoard events of a run.

    Args:
      workdir: where the files lie.
      after: None for a new run. For a resumed one its step: later rows of the files, and lines that
        are no rows, are dropped, so that the files become those of an undisturbed run.
      write: False in a process that only needs to know the scores.

    Attributes:
      scores: {step of an evaluation: its score}.
    """

    def __init__(self, workdir: Path, after: int | None = None, *, write: bool = True):
        kept = [] if after is None else [r for r in read_rows(workdir) if r["step"] <= after]
        self.scores = {row["step"]: score(row) for row in kept if row["kind"] == "eval"}
        self._write = write
        self.wandb: WandbRows | None = None
        if not write:
            return
        write_text(workdir / JSONL, "".join(json.dumps(row) + "\n" for row in kept))
        write_text(workdir / CSV, ",".join(COLUMNS) + "\n")
        self._jsonl = open(workdir / JSONL, "a", encoding="utf-8")  # noqa: SIM115
        self._csv_file = open(workdir / CSV, "a", encoding="utf-8", newline="")  # noqa: SIM115
        self._csv = csv.DictWriter(
            self._csv_file, COLUMNS, lineterminator="\n", extrasaction="ignore"
        )
        self._csv.writerows(kept)
        self._csv_file.flush()
        self._events = _TensorBoard(workdir / TENSORBOARD, after)

    @property
    def best(self) -> float | None:
        """The best score so far."""
        return min(self.scores.values(), default=None)

    def write(self, kind: str, step: int, epoch: float, values: Mapping[str, Any]) -> None:
        """Adds a row to all three."""
        if kind == "eval":
            self.scores[step] = score(values)
        if not self._write:
            return
        row = {"kind": kind, "step": step, "epoch": epoch, **values}
        unknown = set(row) - set(COLUMNS)
        if unknown:
            raise ValueError(f"no column for {', '.join(sorted(unknown))}")
        with _naming(f"the metrics of step {step}", self._jsonl.name):
            os.stat(self._jsonl.name)  # what is written to a deleted file is lost
            self._jsonl.write(json.dumps(row) + "\n")
            self._jsonl.flush()
            self._csv.writerow(row)
            self._csv_file.flush()
        with _naming(f"the metrics of step {step}", self._events.folder):
            self._events.write(kind, step, values)
        if self.wandb is not None:
            self.wandb.write(kind, step, values)

    def flush(self) -> None:
        """Puts TensorBoard's events on the disk; the rows of the other files are there already."""
        if self._write:
            with _naming("TensorBoard's events", self._events.folder):
                self._events.flush()

    def close(self) -> None:
        if not self._write:
            return
        for file in (self._jsonl, self._csv_file, self._events):
            with contextlib.suppress(OSError):  # every row was flushed, or its error raised
                file.close()
        if self.wandb is not None:
            self.wandb.close()


class _TensorBoard:
    """Events in a folder, written by the thread that trains: what fails is raised here.

    With `after`, the step that a run is resumed from, events of later steps count as deleted.
    """

    def __init__(self, folder: Path, after: int | None = None):
        from tensorboardX import event_file_writer, summary
        from tensorboardX.proto import event_pb2

        folder.mkdir(parents=True, exist_ok=True)
        mark = f".{uuid.uuid4().hex[:8]}"
        written.note(folder.parent, f"{folder.name}/*{mark}")
        self.folder, self._scalar, self._event = folder, summary.scalar, event_pb2.Event
        self._events = event_file_writer.EventsWriter(str(folder / "events"), mark)
        if after is not None:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._add(step=after + 1, session_log=start)

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Adds the values of a row as `kind/name`."""
        for name, value in values.items():
            self._add(step=step, summary=self._scalar(f"{kind}/{name}", value))

    def flush(self) -> None:
        """Puts what was written on the disk."""
        self._events.flush()

    def close(self) -> None:
        """Flushes, and ends."""
        self._events.close()

    def _add(self, **fields: Any) -> None:
        self._events.write_event(self._event(wall_time=time.time(), **fields))


@contextlib.contextmanager
def _naming(what: str, where: str | Path) -> Iterator[None]:
    """An OSError within says what could not be written, and where."""
    try:
        yield
    except OSError as error:
        text = f"cannot write {what} ({error.strerror})"
        raise OSError(error.errno, text, str(where)) from error


def read_rows(workdir: str | Path) -> list[dict[str, Any]]:
    """The rows of a run's `metrics.jsonl`, without lines that are no rows; [] if there is none."""
    return [row for row in read_json_lines(Path(workdir) / JSONL) if _is_row(row)]


def _is_row(row: Mapping[str, Any]) -> bool:
    """Whether it has what every row has, and all its values are numbers."""
    numbers = {name: value for name, value in row.items() if name != "kind"}
    return (
        row.get("kind") in _FINITE
        and all(type(value) in (int, float) for value in numbers.values())
        and all(math.isfinite(numbers.get(name, math.nan)) for name in _FINITE[row["kind"]])
        and type(row["step"]) is int
    )
