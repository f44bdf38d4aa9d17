"""Reading what runs have written about themselves, without JAX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxcnn._files import local_path, read_json
from jaxcnn.data.preprocessing import from_dict
from jaxcnn.reporting.compare_runs import Run
from jaxcnn.training.config.schema import MOST_MEMBERS, leaves, with_present_names
from jaxcnn.training.output.metrics_files import read_rows, score

MANIFEST = "config.json"


def read_manifest(workdir: Path) -> dict[str, Any]:
    """What `workdir.write_manifest` wrote, its configuration's fields by their present names.

    Raises:
      ValueError: it is not such a file, or damaged, or there is none.
    """
    path = workdir / MANIFEST
    if not path.is_file():
        raise ValueError(f"{workdir} is not a run directory (no {MANIFEST})")
    content = read_json(path)
    if not isinstance(content, dict) or not {"config", "jaxcnn"} <= content.keys():
        raise ValueError(f"{path} is not the manifest of a run; nothing was changed")
    _check_types(path, content)
    content["config"] = with_present_names(content["config"])
    return content


# What is read back: of the manifest where it says so, and of the configuration of a run; that of an
# ensemble of different networks is another.
_FACTS: dict[str, type] = {
    "members": int,
    "total_steps": int,
    "train_size": int,
    "class_names": list,
    "preprocessing": dict,
    "examples": dict,
}
_NEEDED: dict[str, type] = {
    **dict.fromkeys(("model", "data", "train", "model.options"), dict),
    **dict.fromkeys(("model.name", "data.source", "data.train_split", "data.test_split"), str),
}


def _check_types(path: Path, content: Mapping[str, Any]) -> None:
    config = content["config"]
    if not isinstance(config, dict):
        raise ValueError(f"{path} is damaged: config is {config!r}; it must be an object")
    for name, right in _FACTS.items():
        if content.get(name) is not None:
            _check_type(path, name, content[name], right)
    if content.get("preprocessing") is not None:
        try:
            from_dict(content["preprocessing"])
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}") from error
    if "ensemble" not in config:
        for field, right in _NEEDED.items():
            section, _, name = field.partition(".")
            value: Any = config.get(section)
            _check_type(path, f"config.{field}", value.get(name) if name else value, right)
        for section in config:
            _check_type(path, f"config.{section}", config[section], dict)
    if not 0 <= (content.get("members") or 0) <= MOST_MEMBERS:
        raise ValueError(f"{path} is damaged: members is {content['members']}")


def _check_type(path: Path, name: str, value: Any, right: type) -> None:
    if type(value) is not right:
        what = {dict: "an object", list: "a list", int: "an integer", str: "a text"}[right]
        raise ValueError(f"{path} is damaged: {name} is {value!r:.60}; it must be {what}")


def check_examples(workdir: Path, facts: Mapping[str, Any]) -> None:
    """Raises ValueError if the lists of examples are not those that the run began with."""
    if not (workdir / MANIFEST).is_file():
        return
    before = read_manifest(workdir)
    digests, now = before.get("examples") or {}, facts.get("examples") or {}
    for split, name in (("train", "training"), ("test", "test")):
        if split in digests and split in now and digests[split] != now[split]:
            counts = [of.get(f"{split}_examples") for of in (before, facts)]
            what = f"{counts[0]} then, {counts[1]} now"
            if counts[0] == counts[1]:
                what = f"{counts[0]} as now, with other names or labels, or in another order"
            raise ValueError(f"{workdir} was begun with other {name} examples: {what}")


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
