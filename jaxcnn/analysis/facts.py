"""Published facts about the networks, read without JAX for commands that only print or draw.

`jaxcnn.model_info` returns the same facts from the networks themselves. Those that
`published.json` lacks (families, years, aliases, normalization) are in `networks.json` beside this
file, which `python -m jaxcnn.analysis.facts` updates; a test compares the two.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import importlib.resources
import json
from collections.abc import Mapping
from typing import Any

from jaxcnn._checks import near

_FILE = "networks.json"
_STORED_FIELDS = ("family", "year", "min_size", "mean", "std", "aliases")


@dataclasses.dataclass(frozen=True)
class Facts:
    """Facts about a network; the attributes are those of `jaxcnn.ModelInfo`."""

    name: str
    family: str
    paper: str
    year: int
    dataset: str
    num_classes: int
    input_size: tuple[int, int, int]
    min_size: int
    params: int
    params_with_aux: int | None
    macs: int
    depth: int
    top1_error: float | None
    top5_error: float | None
    protocol: str | None
    source: str | None
    other_results: tuple[Mapping[str, Any], ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    aliases: tuple[str, ...]
    notes: str | None


@functools.cache
def published() -> dict[str, dict[str, Any]]:
    """Returns the contents of `published.json` by id, including entries of ensembles."""
    path = importlib.resources.files("jaxcnn").joinpath("models/published.json")
    return json.loads(path.read_text("utf-8"))["variants"]


@functools.cache
def _stored() -> dict[str, Any]:
    return json.loads(importlib.resources.files(__package__).joinpath(_FILE).read_text("utf-8"))


def families() -> list[str]:
    """Returns the names of the families, by age."""
    return list(_stored()["papers"])


@functools.cache
def aliases() -> dict[str, str]:
    """Returns the aliases of all networks as {alias: id}."""
    networks = _stored()["networks"]
    return {alias: name for name, stored in networks.items() for alias in stored["aliases"]}


def names(pattern: str = "*") -> list[str]:
    """Lists the ids that match, or have an alias that matches, a shell pattern.

    See `jaxcnn.list_models`.
    """
    by_alias = {name for alias, name in aliases().items() if fnmatch.fnmatchcase(alias, pattern)}
    return [n for n in _stored()["networks"] if n in by_alias or fnmatch.fnmatchcase(n, pattern)]


def facts(name: str) -> Facts:
    """Looks up the facts about a network.

    Args:
      name: id or alias.

    Raises:
      ValueError: the name is unknown.

      >>> facts("vgg16").top5_error
      8.1
    """
    known = _stored()["networks"]
    name = aliases().get(name, name)
    if name not in known:
        hint = near(name, [*known, *aliases()]) or "; `jaxcnn list` shows all of them"
        raise ValueError(f"unknown model {name!r}{hint}")
    fields = {field.name for field in dataclasses.fields(Facts)}
    values: dict[str, Any] = {"params_with_aux": None, "notes": None, "other_results": ()}
    values |= {k: v for k, v in published()[name].items() if k in fields} | known[name]
    values |= {"name": name, "paper": _stored()["papers"][known[name]["family"]]}
    for field in ("input_size", "mean", "std", "aliases", "other_results"):
        values[field] = tuple(values[field])
    return Facts(**values)


def from_networks() -> dict[str, Any]:
    """Builds the contents of `networks.json` from the networks themselves."""
    from jaxcnn.models import list_models, model_info

    infos = [model_info(name) for name in list_models()]
    networks = {i.name: {field: getattr(i, field) for field in _STORED_FIELDS} for i in infos}
    return {"papers": {i.family: i.paper for i in infos}, "networks": networks}


def to_json(stored: Mapping[str, Any]) -> str:
    """Formats the contents of `networks.json`, one line per network."""
    lines = [f"  {json.dumps(n)}: {json.dumps(facts)}" for n, facts in stored["networks"].items()]
    papers = json.dumps(stored["papers"], indent=2).replace("\n", "\n ")
    return f'{{\n "papers": {papers},\n "networks": {{\n' + ",\n".join(lines) + "\n }\n}\n"


if __name__ == "__main__":
    from pathlib import Path

    Path(__file__).with_name(_FILE).write_text(to_json(from_networks()), "utf-8")
