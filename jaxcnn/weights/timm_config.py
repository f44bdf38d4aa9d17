"""What the config.json says that timm publishes beside a weights file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxcnn.data.preprocessing import to_dict
from jaxcnn.models import registry
from jaxcnn.weights import pretrained


def metadata(path: Path) -> dict[str, str]:
    """Reads the config.json beside a weights file.

    Args:
      path: of the weights file.

    Returns:
      The network, the preprocessing, the class names and whether the classifier was removed, as in
      the metadata of jaxcnn's own files; nothing if there is no such file or it names a network
      that jaxcnn does not have.
    """
    file = path.with_name("config.json")
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text("utf-8"))
    except ValueError:
        return {}
    name = _network(config.get("architecture")) if isinstance(config, dict) else None
    if name is None:
        return {}
    found = {"model": name, "preprocessing": json.dumps(_preprocessing(name, config))}
    if isinstance(config.get("label_names"), list):
        found["class_names"] = json.dumps(config["label_names"])
    if config.get("num_classes") == 0:
        found["num_classes"] = "0"
    return found


def _network(architecture: Any) -> str | None:
    """The id of a network by timm's name, as in the table of published weights."""
    known = {w.name.partition(".")[0]: w.model for w in pretrained.WEIGHTS.values()}
    if architecture in known:
        return known[architecture]
    names = (*registry.list_models(), *registry.list_aliases())
    return registry.resolve(architecture) if architecture in names else None


def _preprocessing(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a preprocessing, those for testing first; of missing ones the network's own."""
    given = {**config, **(config.get("pretrained_cfg") or {})}
    own = to_dict(pretrained.default_preprocessing(name))
    size = given.get("test_input_size") or given.get("input_size")
    return {
        "size": size[-1] if size else own["size"],
        "crop": given.get("test_crop_pct") or given.get("crop_pct") or own["crop"],
        "interpolation": given.get("interpolation") or own["interpolation"],
        "mean": given.get("mean") or own["mean"],
        "std": given.get("std") or own["std"],
    }
