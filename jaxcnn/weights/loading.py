"""Networks with weights: from the hub or a file, and into a file."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import jaxcnn
from jaxcnn.models import registry
from jaxcnn.weights import files, hub, layout, pretrained

LAYOUTS = ("jaxcnn", "torch")

# Metadata of a file in jaxcnn's own layout says so here; torch's libraries write "pt".
_FORMAT = {"jaxcnn": "jaxcnn", "torch": "pt"}

_log = logging.getLogger(__name__)


def load_pretrained(
    name_or_path: str | Path,
    *,
    model: str | None = None,
    num_classes: int | None = None,
    **options: Any,
) -> tuple[nn.Module, layout.Variables]:
    """A network and its variables.

    Args:
      name_or_path: published weights such as "resnet50.tv_in1k", which the Hugging Face hub has, or
        the path of a .safetensors, .npz or .pth file, in torch's layout or jaxcnn's own.
      model: id or alias of the network. Published weights and files that jaxcnn wrote know it.
      num_classes: width of the classifier; by default that of the weights. Where they differ the
        classifiers are initialised anew, from a fixed key, and a line is logged; 0 leaves them out.
      **options: fields of the network's module, as for `create_model`.

    Returns:
      (model, variables), for `model.apply(variables, images)`.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the name is unknown, the weights cannot be had or read, or they do not fit.
    """
    arrays, facts = open_weights(name_or_path, model)
    options = {**facts["options"], **options}
    how = layout.describe(facts["model"], **options)
    if facts["layout"] == "jaxcnn":
        how = layout.in_own_names(how)
    classes = layout.class_count(how, arrays)
    wanted = classes if num_classes is None else num_classes
    network = registry.create_model(facts["model"], num_classes=wanted, **options)
    if wanted in (0, classes):
        return network, layout.read(how, arrays, wanted)
    _log.warning(
        "%s has a classifier of %d classes: dropped, and one of %d initialised anew",
        name_or_path, classes, wanted,
    )  # fmt: skip
    heads = [leaf for leaf in how.leaves if leaf.is_head and _has_head(how, arrays, leaf)]
    arrays = layout.without_heads(how, arrays)
    for leaf, value in zip(heads, _initial(network, how, heads, options)):
        arrays[leaf.key] = layout.store(leaf, np.asarray(value))
    return network, layout.read(how, arrays, wanted)


def save(
    path: str | Path,
    name: str,
    variables: Mapping[str, Any],
    *,
    to: str = "jaxcnn",
    preprocessing: pretrained.Preprocessing | None = None,
    **options: Any,
) -> None:
    """Writes a network's variables to a .safetensors, .npz or .pth file.

    The file also says which network it is, how many classes it has, which jaxcnn wrote it, and how
    its images are prepared (a .pth file says nothing).

    Args:
      path: appears when it is complete.
      name: id or alias of the network.
      variables: {"params": ..., "batch_stats": ...}.
      to: "jaxcnn", or "torch" for torchvision's or timm's names and layouts.
      preprocessing: by default the network's own.
      **options: fields of the network's module that are not the variant's.

    Raises:
      FileNotFoundError: the directory does not exist.
      ValueError: the name, the layout or the suffix is unknown, the variables do not fit, or torch
        is needed and missing.
    """
    if to not in LAYOUTS:
        raise ValueError(f"layout is {to!r}; it can be {' or '.join(LAYOUTS)}")
    how = layout.describe(name, **options)
    own = layout.in_own_names(how)
    arrays = layout.write(own if to == "jaxcnn" else how, variables)
    prepare = preprocessing or pretrained.default_preprocessing(name)
    metadata = {
        "format": _FORMAT[to],
        "jaxcnn": jaxcnn.__version__,
        "model": how.name,
        "options": json.dumps(options),
        "num_classes": str(layout.class_count(how if to == "torch" else own, arrays)),
        "preprocessing": json.dumps(pretrained.to_dict(prepare)),
    }
    files.write(path, arrays, metadata)


def open_weights(
    name_or_path: str | Path, model: str | None = None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays of weights as stored, and what is known of them.

    The facts: "model" (id), "layout" ("jaxcnn" or "torch"), "options" (of the network) and
    "preprocessing". Arguments and errors are those of `load_pretrained`.
    """
    text = str(name_or_path)
    if Path(text).suffix not in files.SUFFIXES:
        weights = pretrained.find(text)
        if model is not None and registry.resolve(model) != weights.model:
            raise ValueError(f"{text!r} are weights of {weights.model!r}, not of {model!r}")
        arrays, _ = files.read(hub.fetch(weights))
        facts = {"model": weights.model, "layout": "torch", "options": {}}
        return arrays, {**facts, "preprocessing": weights.preprocessing}
    arrays, metadata = files.read(text)
    if model is None and "model" not in metadata:
        raise ValueError(f"{text} does not say which network it is of: name it with model=...")
    ours = metadata if "jaxcnn" in metadata else {}
    name = registry.resolve(model or ours.get("model") or metadata["model"])
    if "preprocessing" in ours:
        prepare = pretrained.from_dict(json.loads(ours["preprocessing"]))
    else:
        prepare = pretrained.default_preprocessing(name)
    own = metadata.get("format") == _FORMAT["jaxcnn"]
    return arrays, {
        "model": name,
        "layout": "jaxcnn" if own else "torch",
        "options": json.loads(ours.get("options", "{}")),
        "preprocessing": prepare,
    }


def _has_head(how: layout.Layout, arrays: Mapping[str, Any], leaf: layout.Leaf) -> bool:
    """Auxiliary heads are initialised anew only where the weights have them."""
    return not leaf.is_auxiliary or leaf.key in arrays


def _initial(
    network: nn.Module, how: layout.Layout, heads: list[layout.Leaf], options: Mapping[str, Any]
) -> list[jax.Array]:
    """Initial values of the classifiers alone: the compiler leaves the other layers' out."""
    images = jnp.zeros((1, *layout.image_shape(how.name, options)), jnp.float32)

    def init(key: jax.Array) -> list[jax.Array]:
        variables = network.init(key, images)
        return [layout.look_up(variables, leaf) for leaf in heads]

    return jax.jit(init)(jax.random.key(0))
