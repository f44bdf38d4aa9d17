"""Exports a trained network to a folder: the network, its description, and an example."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import jaxcnn
from jaxcnn._checks import one_of
from jaxcnn._files import any_path, atomic_write, is_local, write_text
from jaxcnn._objects import without_folder
from jaxcnn.data.preprocessing import to_dict
from jaxcnn.deploy import examples, programs
from jaxcnn.evaluation.evaluate import Entry
from jaxcnn.evaluation.predict import default_names
from jaxcnn.training.output.metrics_files import read_rows
from jaxcnn.weights import loading

FORMATS = ("stablehlo", "onnx", "torch", "safetensors")
DESCRIPTION, EXAMPLE = "model.json", "example.py"
_PROGRAMS = ("stablehlo", "onnx")
_ERRORS = ("top1_error", "top5_error")
_BUCKET = re.compile(r"\b(gs|s3)://", re.IGNORECASE)


def export_model(entry: Entry, folder: str | Path, to: str, *, pixels: bool = False) -> Path:
    """Exports a network to a folder, for use without jaxcnn.

    The folder receives the network, `model.json`, which describes it, and `example.py`, a short
    program that uses it.

    Args:
      entry: the network, see `jaxcnn.evaluation.open_entry`.
      folder: created if it does not exist.
      to: "stablehlo", for `jax.export.deserialize`; "onnx"; "safetensors", the arrays under the
        names of jaxcnn; or "torch", under those of torchvision or timm, in a safetensors file.
      pixels: of programs: take pixels u8[N,size,size,C] and return probabilities, instead of
        normalized images f32[N,size,size,C] and logits.

    Returns:
      The path of the network's file.

    Raises:
      ValueError: the format is unknown, the network cannot be converted to it, or the folder
        contains other files, see `check_folder`.
      OSError: the folder cannot be written.
    """
    one_of("the format", to, FORMATS)
    check_folder("the folder", folder)
    folder = any_path(folder)
    path = folder / f"model.{to if to in _PROGRAMS else 'safetensors'}"
    if pixels and to not in _PROGRAMS:
        raise ValueError(
            f"pixels=True needs the format stablehlo or onnx; {to} contains only weights"
        )
    if to == "stablehlo":
        data = programs.to_stablehlo(entry, pixels=pixels)
    elif to == "onnx":
        data = programs.to_onnx(entry, pixels=pixels).SerializeToString()
    folder.mkdir(parents=True, exist_ok=True)
    about = describe(entry) | _interface(entry, to, pixels, path.name)
    # First, since a folder with other files and without it would be taken for somebody else's.
    write_text(folder / DESCRIPTION, json.dumps(about, indent=1) + "\n")
    if to in _PROGRAMS:
        with atomic_write(path) as draft:
            draft.write_bytes(data)
    else:
        save_weights(entry, path, "torch" if to == "torch" else "jaxcnn")
    write_text(folder / EXAMPLE, examples.example(to, entry.model, entry.options, pixels))
    return path


def check_folder(what: str, folder: str | Path) -> None:
    """Checks that a folder can receive an exported network without loss of other files.

    Args:
      what: the name of the argument, for the message.
      folder: need not exist.

    Raises:
      ValueError: it is a file, or it contains files that jaxcnn did not write.
    """
    folder = any_path(folder)
    if folder.is_file():
        raise ValueError(f"{what} is {folder}, which is a file; it must be a folder")
    if not folder.is_dir() or all(path.name.startswith(".") for path in folder.iterdir()):
        return
    try:
        about = json.loads((folder / DESCRIPTION).read_text("utf-8"))
    except (OSError, ValueError):
        about = {}
    if not isinstance(about, dict) or "jaxcnn" not in about:
        raise ValueError(
            f"{what} is {folder}, which contains other files; it must be a new or empty folder, or "
            "one that an earlier export wrote"
        )


def save_weights(entry: Entry, path: str | Path, layout: str = "jaxcnn") -> None:
    """Saves the weights of a network with their metadata; see `jaxcnn.weights.save`.

    Args:
      entry: the network.
      path: of a .safetensors, .npz or .pth file.
      layout: "jaxcnn" or "torch".
    """
    loading.save(
        path,
        entry.model,
        entry.variables,
        to=layout,
        preprocessing=entry.preprocessing,
        class_names=entry.class_names,
        **entry.options,
    )


def describe(entry: Entry) -> dict[str, Any]:
    """Describes a network for other programs: classes, preprocessing, source and accuracy.

    Args:
      entry: the network.

    Returns:
      An object for JSON. It has no path of this machine but the name of the run or file.
    """
    source = {"name": source_name(entry), "checkpoint": entry.checkpoint, "step": entry.step}
    return {
        "model": without_folders(entry.model),
        "options": without_folders(dict(entry.options)),
        "classes": list(entry.class_names or default_names(entry.classes)),
        "preprocessing": to_dict(entry.preprocessing),
        "source": {name: value for name, value in source.items() if value is not None},
        "accuracy": accuracy(entry),
        "jaxcnn": jaxcnn.__version__,
    }


def source_name(entry: Entry) -> str:
    """Returns the name of the run, the file or the published weights, without its folder."""
    path = any_path(entry.name)
    if not is_local(path):
        return path.name
    return path.resolve().name if path.exists() else entry.name


def without_folders(value: Any) -> Any:
    """Reduces absolute paths and the URLs of buckets to their names.

    It does so in dictionaries and lists, behind "folder:", and before the class of a custom
    network. Published files thus reveal no paths of the machine that they come from.
    """
    if isinstance(value, dict):
        return {name: without_folders(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_folders(one) for one in value]
    if not isinstance(value, str):
        return value
    if "hf://" in value:  # the name of public data
        return value
    if (found := _BUCKET.search(value)) is not None:
        return value[: found.start()] + value.rstrip("/").rpartition("/")[2]
    kind, colon, path = value.rpartition(":")
    if kind.endswith(".py"):
        return without_folder(value)
    path = os.path.expanduser(path)
    return f"{kind}{colon}{Path(path).name}" if os.path.isabs(path) else value


def accuracy(entry: Entry) -> dict[str, Any] | None:
    """Looks up the errors measured at a run's checkpoint, with averaged weights if it has them.

    Args:
      entry: the network.

    Returns:
      The errors, the data they were measured on, and whether they chose the checkpoint; None for
      weights, and for a checkpoint that was not evaluated.
    """
    if entry.step is None or entry.data is None:
        return None
    rows = [r for r in read_rows(entry.name) if r["kind"] == "eval" and r["step"] == entry.step]
    if not rows:
        return None
    row, (data, _, split) = rows[-1], entry.data
    data = without_folders(data)
    errors = {name: row.get(f"ema_{name}", row.get(name)) for name in _ERRORS}
    return {
        "data": data,
        "split": split,
        **{name: error for name, error in errors.items() if error is not None},
        "chose_the_checkpoint": entry.checkpoint == "best",
    }


def _interface(entry: Entry, to: str, pixels: bool, file: str) -> dict[str, Any]:
    """The file and, of a program, its input and output."""
    if to not in _PROGRAMS:
        return {"format": to, "file": file}
    shape = [programs.BATCH, *programs.image_shape(entry)]
    dtype = "uint8" if pixels else "float32"
    output = {"name": programs.output_name(pixels), "shape": [programs.BATCH, entry.classes]}
    return {
        "format": to,
        "file": file,
        "input": {"name": programs.IMAGES, "dtype": dtype, "shape": shape},
        "output": {**output, "dtype": "float32"},
    }
