"""Reading what runs have written about themselves, without JAX."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxcnn._files import local_path
from jaxcnn.reporting.compare_runs import Run
from jaxcnn.training.config.schema import leaves, with_present_names
from jaxcnn.training.output.metrics_files import read_rows, score

MANIFEST = "config.json"


def read_manifest(workdir: Path) -> dict[str, Any]:
    """What `workdir.write_manifest` wrote, its configuration's fields by their present names.

    Raises:
      ValueError: it is not such a file, or there is none.
    """
    path = workdir / MANIFEST
    if not path.is_file():
        raise ValueError(f"{workdir} is not a run directory (no {MANIFEST})")
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict) or not {"config", "jaxcnn"} <= content.keys():
        raise ValueError(f"{path} is not the manifest of a run; nothing was changed")
    if isinstance(content["config"], dict):
        content["config"] = with_present_names(content["config"])
    return content


def member_directory(workdir: str | Path, member: int) -> Path:
    """Where a member's run lies."""
    return Path(workdir) / f"member_{member}"


def open_runs(directories: Sequence[str]) -> list[Run]:
    """The runs of some directories, finished or not; one that holds members stands for all of them.

    Raises:
      ValueError: a directory holds no run.
    """
    runs = []
    for text in directories:
        path = local_path(text)
        if not (path / MANIFEST).is_file():
            raise ValueError(f"{text} is not a run directory (no {MANIFEST})")
        count = read_manifest(path).get("members", 0)
        for one in [member_directory(path, i) for i in range(count)] if count else [path]:
            if (one / MANIFEST).is_file():
                manifest, rows = read_manifest(one), read_rows(one)
                scores = [score(row) for row in rows if row["kind"] == "eval"]
                fields = leaves(manifest["config"])
                runs.append(Run(str(one), manifest, rows, fields, min(scores, default=None)))
    return runs
