"""A run's rows for trackers: TensorBoard, and Weights & Biases (`log.wandb=PROJECT`)."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ID = "wandb_id.txt"  # in the run's directory, so that a resumed run goes on under its id


class TensorBoard:
    """Events in a folder, written by the thread that trains: what fails is raised here.

    With `after`, the step that a run is resumed from, events of later steps count as deleted.
    """

    def __init__(self, folder: Path, after: int | None = None):
        from tensorboardX import event_file_writer, summary
        from tensorboardX.proto import event_pb2

        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._scalar, self._event = folder, summary.scalar, event_pb2.Event
        self._events = event_file_writer.EventsWriter(str(folder / "events"))
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


def check(project: str | None) -> None:
    """Raises ValueError if rows are to go there and it is not installed."""
    if project is not None and importlib.util.find_spec("wandb") is None:
        raise ValueError(
            f"config.log.wandb is {project!r}, but Weights & Biases is not installed: "
            "pip install wandb, or leave the field out"
        )


class WandbRows:
    """Sends rows to a project; charts are by `step`, so that a resumed run may repeat some."""

    def __init__(self, project: str, workdir: Path, config: Mapping[str, Any]):
        import wandb

        path = workdir / ID
        known = path.read_text("utf-8").strip() if path.exists() else None
        self._run = wandb.init(
            project=project,
            name=workdir.name,
            id=known,
            resume="allow",
            dir=str(workdir),
            config=dict(config),
        )
        path.write_text(self._run.id + "\n", "utf-8")
        self._run.define_metric("*", step_metric="step")

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        self._run.log({"step": step, **{f"{kind}/{name}": value for name, value in values.items()}})

    def close(self) -> None:
        self._run.finish()
