"""Experiment trackers: `log.wandb=PROJECT` sends the metrics to Weights & Biases."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxcnn._files import is_local

ID = "wandb_id.txt"  # in the run's directory, so that a resumed run keeps its id


def check(project: str | None) -> None:
    """Raises ValueError if a project is set, but Weights & Biases is not installed."""
    if project is not None and importlib.util.find_spec("wandb") is None:
        raise ValueError(
            f"config.log.wandb is {project!r}, but Weights & Biases is not installed: "
            "pip install 'jaxcnn[wandb]', or leave the field out"
        )


class WandbRows:
    """Sends rows of metrics to a project of Weights & Biases.

    The x-axis of charts is `step`, since a resumed run may repeat steps.

    Args:
      project: name of the project.
      workdir: directory of the run.
      config: the configuration to record.
    """

    def __init__(self, project: str, workdir: Path, config: Mapping[str, Any]):
        import wandb

        path = workdir / ID
        run_id = path.read_text("utf-8").strip() if path.exists() else None
        self._run = wandb.init(
            project=project,
            name=workdir.name,
            id=run_id,
            resume="allow",
            dir=str(workdir) if is_local(workdir) else None,
            config=dict(config),
        )
        path.write_text(self._run.id + "\n", "utf-8")
        self._run.define_metric("*", step_metric="step")

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Sends a row, with `kind/` before each name."""
        self._run.log({"step": step, **{f"{kind}/{name}": value for name, value in values.items()}})

    def close(self) -> None:
        """Finishes the run at Weights & Biases."""
        self._run.finish()
