"""Which Parquet files of a dataset of the Hugging Face hub belong to which split.

The metadata in the README of a dataset can define its configurations and splits. Otherwise the
names of files and folders do, as in `data/train-00000-of-00294.parquet` or
`320px/train/0000.parquet`.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxcnn._checks import near
from jaxcnn._files import read_json

Files = dict[str, list[str]]  # {split: names of files, in order}

_INFO = "dataset_info.json"  # of the cache of `datasets`
_SHARD = re.compile(r"(?:.*-)?(?P<split>\w+)-(?P<number>\d{5})-of-(?P<total>\d{5}).*\.parquet")
_SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
STANDARD = {word: split for split, words in _SPLITS.items() for word in words}
_WORD = re.compile(rf"(?<![a-z])({'|'.join(STANDARD)})(?![a-z])")


def read_card(folder: Path) -> dict[str, Any]:
    """Reads the metadata in the README of a dataset, or what the cache of `datasets` has instead.

    Args:
      folder: of the dataset.

    Returns:
      The metadata; {} if there are none.
    """
    from huggingface_hub.repocard import metadata_load

    readme = folder / "README.md"
    local = os.fspath(readme) if readme.is_file() else None
    try:
        card = metadata_load(local) if local else None
    except Exception as error:  # of the YAML parser
        raise ValueError(f"the metadata of {folder / 'README.md'} are not YAML") from error
    if card is None and (folder / _INFO).is_file():
        info = read_json(folder / _INFO)
        card = {"dataset_info": info} if isinstance(info, dict) else None
    return card or {}


def split_files(
    names: Sequence[str], card: Mapping[str, Any], config: str | None, subject: str
) -> tuple[str, Files]:
    """Assigns Parquet files to the splits of a configuration.

    Args:
      names: names of all files, relative to the dataset.
      card: see `read_card`.
      config: name of the configuration; None for the only one or the default.
      subject: name of the dataset, for messages.

    Returns:
      (name of the configuration, {split: names of its files, in order}).

    Raises:
      FileNotFoundError: there are no Parquet files.
      ValueError: there is no such configuration, or none is selected.
    """
    names = sorted(name for name in names if name.endswith(".parquet"))
    if not names:
        raise FileNotFoundError(f"{subject} has no Parquet files")
    configs = card.get("configs")
    configs = [c for c in configs if isinstance(c, dict)] if isinstance(configs, list) else []
    described = {str(c.get("config_name", "default")): c for c in configs if _patterns(c)}
    by_config: dict[str, list[str]] = {}
    for name in names:
        by_config.setdefault(_config_of(name), []).append(name)
    chosen = _choose_config(config, described or dict.fromkeys(by_config), configs, subject)
    if described:
        files = _matching(names, _patterns(described[chosen]))
    else:
        files = _by_name(by_config[chosen])
    if not files:
        raise FileNotFoundError(f"{subject} has no Parquet files of the configuration {chosen!r}")
    return chosen, files


def _choose_config(
    wanted: str | None, known: Mapping[str, Any], described: Sequence[Mapping], subject: str
) -> str:
    base = subject.partition("@")[0]
    if wanted is not None:
        if wanted not in known:
            hint = near(wanted, known) or f"; it has {', '.join(known)}"
            raise ValueError(f"{subject} has no configuration {wanted!r}{hint}")
        return wanted
    default = [str(c.get("config_name")) for c in described if c.get("default")]
    for name in (*default, "default"):
        if name in known:
            return name
    if len(known) == 1:
        return next(iter(known))
    choices = ", ".join(f"{base}/{name}" for name in known)
    raise ValueError(f"{subject} has several configurations; write {choices}")


def _patterns(config: Mapping[str, Any]) -> list[tuple[str | None, str]]:
    """(split or None, pattern of file names) of a configuration in the README."""
    data = config.get("data_files")
    if isinstance(data, dict):
        data = [{"split": split, "path": path} for split, path in data.items()]
    patterns = []
    for entry in data if isinstance(data, list) else [data]:
        split, path = None, entry
        if isinstance(entry, dict):
            split, path = entry.get("split"), entry.get("path")
        for one in path if isinstance(path, list) else [path]:
            if isinstance(one, str):
                patterns.append((split, one.removeprefix("./")))
    return patterns


def _matching(names: Sequence[str], patterns: Sequence[tuple[str | None, str]]) -> Files:
    files: Files = {}
    for split, pattern in patterns:
        found = [n for n in names if fnmatch.fnmatchcase(n, pattern.replace("**/", "*"))]
        for part, some in ({split: found} if split else _by_name(found)).items():
            known = files.setdefault(str(part), [])
            known += [name for name in some if name not in known]
    return {split: found for split, found in files.items() if found}


def _by_name(names: Sequence[str]) -> Files:
    files: Files = {}
    for name in names:
        files.setdefault(_split_of(name), []).append(name)
    order = {split: i for i, split in enumerate(_SPLITS)}
    return dict(sorted(files.items(), key=lambda item: order.get(item[0], len(order))))


def _split_of(name: str) -> str:
    *folders, base = name.split("/")
    if found := _SHARD.fullmatch(base):
        return STANDARD.get(found["split"], found["split"])
    for text in (*reversed(folders), base.removesuffix(".parquet")):
        if text.startswith("partial-"):
            raise ValueError(f"the hub has converted only a part of this dataset ({name})")
        if split := split_in(text):
            return split
    return "train"


def split_in(text: str) -> str | None:
    """Returns the split that a name contains as a word: "train", "validation", "test" or None.

    >>> split_in("imagenet1k-val-07")
    'validation'
    """
    words = _WORD.findall(text.lower())
    return STANDARD[words[-1]] if words else None


def _config_of(name: str) -> str:
    """The configuration of a file in a dataset whose README does not define any."""
    kept = [part for part in name.split("/")[:-1] if part not in STANDARD and part != "data"]
    return "/".join(kept) or "default"


def of_config(infos: Any, config: str) -> Mapping[str, Any]:
    """The `dataset_info` of a configuration in the metadata; {} if there is none."""
    listed = infos if isinstance(infos, list) else [infos]
    listed = [info for info in listed if isinstance(info, dict)]
    if len(listed) == 1:
        return listed[0]
    return next((info for info in listed if info.get("config_name") == config), {})


def check_complete(folder: Path, files: Files) -> None:
    """Raises FileNotFoundError if files are missing, such as 3 of "train-00000-of-00005"."""
    for split, names in files.items():
        shards = [found for name in names if (found := _SHARD.fullmatch(name.split("/")[-1]))]
        totals = {int(found["total"]) for found in shards}
        if len(totals) != 1:
            continue
        missing = sorted(set(range(totals.pop())) - {int(found["number"]) for found in shards})
        if missing:
            raise FileNotFoundError(
                f"{folder}: {len(missing)} of the {len(missing) + len(shards)} files of {split!r} "
                f"are missing, the first is number {missing[0]:05d}"
            )
