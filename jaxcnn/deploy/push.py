"""Uploads a run to the Hugging Face Hub, or writes what would be uploaded to a folder."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

from jaxcnn._files import any_path, local_path, write_text
from jaxcnn.deploy.artifacts import (
    DESCRIPTION,
    check_folder,
    describe,
    save_weights,
    without_folders,
)
from jaxcnn.deploy.card import model_card
from jaxcnn.evaluation.evaluate import open_entry
from jaxcnn.training.output.metrics_files import JSONL
from jaxcnn.training.output.records import read_manifest

_LICENSE = re.compile(r"[\w.+-]+", re.ASCII)
_PART = r"\w+(?:[.-]\w+)*"  # of the hub's names: no dash or dot at an end or next to another
_REPOSITORY = re.compile(rf"hf:({_PART}/{_PART})", re.ASCII)
WEIGHTS, CONFIG, CARD = "model.safetensors", "training_config.json", "README.md"


def push_to_hub(
    run: str | Path,
    target: str,
    *,
    checkpoint: str = "best",
    license: str = "unknown",
    folder: str | Path | None = None,
    private: bool = False,
) -> str:
    """Uploads the network of a run with its model card to the Hugging Face Hub.

    The repository receives `model.safetensors`, which `load_pretrained` reads, its description
    `model.json`, the run's configuration and metrics, and the card `README.md`. It is created if it
    does not exist; other files in it stay.

    Args:
      run: directory of the run.
      target: "hf:user/name".
      checkpoint: "best" or "newest".
      license: of the weights, an identifier of the hub such as "apache-2.0".
      folder: write the files there instead of uploading them.
      private: whether a new repository is private.

    Returns:
      The address of the commit, or the path of the folder.

    Raises:
      ValueError: the directory is not that of a run, the target or the license is malformed,
        `folder` contains other files or is combined with `private`, or the upload fails.
      OSError: a file cannot be read or written.
    """
    import huggingface_hub as hub

    match = _REPOSITORY.fullmatch(target)
    if match is None:
        raise ValueError(f"the target is {target!r}; it must be hf:user/name")
    if not _LICENSE.fullmatch(license):
        raise ValueError(f"the license is {license!r}; it must be an id such as apache-2.0")
    read_manifest(any_path(run))
    repository = match[1]
    if folder is not None:
        if private:
            raise ValueError("private is for a new repository; a folder makes none")
        folder = local_path(folder)
        check_folder("the folder", folder)
        _write(run, folder, repository, checkpoint, license)
        return str(folder)
    if hub.get_token() is None:
        raise ValueError("no Hugging Face token found: run `hf auth login`, or set HF_TOKEN")
    with tempfile.TemporaryDirectory() as draft:
        _write(run, Path(draft), repository, checkpoint, license)
        return _upload(Path(draft), repository, private)


def _write(run: str | Path, folder: Path, repository: str, checkpoint: str, license: str) -> None:
    """Writes the files of the repository."""
    entry = open_entry(str(run), checkpoint)
    config = without_folders(read_manifest(any_path(run))["config"])
    about = describe(entry)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / DESCRIPTION, json.dumps(about, indent=1) + "\n")  # first, as in an export
    save_weights(entry, folder / WEIGHTS)
    write_text(folder / CONFIG, json.dumps(config, indent=1) + "\n")
    metrics = any_path(run) / JSONL
    if metrics.is_file():
        write_text(folder / JSONL, metrics.read_text("utf-8", "replace"))
    write_text(folder / CARD, model_card(entry, about, config, repository, license))


def _upload(folder: Path, repository: str, private: bool) -> str:
    import huggingface_hub as hub
    from huggingface_hub.utils import HfHubHTTPError

    api = hub.HfApi()
    files = [hub.CommitOperationAdd(path.name, path) for path in sorted(folder.iterdir())]
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        done = api.create_commit(
            repository, files, commit_message=f"Upload {WEIGHTS} and its model card"
        )
    except HfHubHTTPError as error:
        text = error.server_message or str(error)
        raise ValueError(f"the hub rejected the upload to {repository}: {text}") from error
    except Exception as error:
        if isinstance(error, ValueError):
            raise
        raise ValueError(
            f"the hub at {api.endpoint} cannot be reached ({type(error).__name__}: {error})"
        ) from error
    return str(done.commit_url)
