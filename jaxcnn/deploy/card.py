"""The model card of a run: its task, data, metrics with the command, and license."""

from __future__ import annotations

import json
import shlex
from typing import Any

from jaxcnn._objects import is_address
from jaxcnn.deploy.artifacts import DESCRIPTION
from jaxcnn.evaluation.evaluate import Entry
from jaxcnn.models import registry

_TASK = "image-classification"
_LISTED_CLASSES = 20


def model_card(
    entry: Entry, about: dict[str, Any], config: dict[str, Any], repository: str, license: str
) -> str:
    """Writes the model card of a run.

    Args:
      entry: the network of the run.
      about: its description, see `artifacts.describe`.
      config: configuration of the run.
      repository: "user/name".
      license: identifier of the hub, such as "apache-2.0".

    Returns:
      The content of `README.md`: metadata in YAML, and text in Markdown.
    """
    import huggingface_hub as hub

    paper = registry.model_info(entry.model).paper
    name, measured = repository.partition("/")[2], about["accuracy"]
    results = _results(hub, measured)
    data = hub.ModelCardData(
        license=license,
        library_name="jaxcnn",
        pipeline_tag=_TASK,
        tags=["jax", "flax", _TASK],
        model_name=name if results else None,
        eval_results=results or None,
    )
    sections = [
        f"---\n{data.to_yaml().strip()}\n---",
        f"# {name}",
        f"`{about['model']}`{f' ({paper})' if paper else ''}, trained with "
        f"[jaxcnn](https://github.com/jaxcnn/jaxcnn) {about['jaxcnn']}.",
        "## Task",
        _task(about),
        "## Data",
        _data(config["data"]),
        "## Metrics",
        _metrics(measured, repository, about["model"]),
        "## Use",
        _use(repository, about["model"]),
        "## Training",
        f"Checkpoint of step {entry.step:,} ({entry.checkpoint}). `training_config.json` has the "
        "whole configuration; these sections describe the optimization:",
        f"```json\n{json.dumps(_recipe(config), indent=1)}\n```",
        f"## License\n\n{license}",
    ]
    return "\n\n".join(sections) + "\n"


def _task(about: dict[str, Any]) -> str:
    classes, preprocessing = about["classes"], about["preprocessing"]
    names = ", ".join(classes[:_LISTED_CLASSES])
    names += ", ..." if len(classes) > _LISTED_CLASSES else ""
    channels = "grayscale" if len(preprocessing["mean"]) == 1 else "RGB"
    size = preprocessing["size"]
    return (
        f"Image classification: {channels} images of {size}x{size} pixels into "
        f"{len(classes)} classes ({names}). `{DESCRIPTION}` lists the classes and how images are "
        "resized and normalized."
    )


def _data(data: dict[str, Any]) -> str:
    return (
        f"Trained on the split `{data['train_split']}` of `{data['source']}` and evaluated on "
        f"`{data['test_split']}`."
    )


def _results(hub: Any, measured: dict[str, Any] | None) -> list[Any]:
    """The accuracies for the metadata, in percent."""
    if measured is None:
        return []
    kinds = {"top1_error": ("accuracy", "top-1"), "top5_error": ("accuracy", "top-5")}
    return [
        hub.EvalResult(
            task_type=_TASK,
            dataset_type=measured["data"].partition(":")[2] or measured["data"],
            dataset_name=measured["data"],
            dataset_split=measured["split"],
            metric_type=kind,
            metric_name=f"{name} accuracy",
            metric_value=round(100 * (1 - measured[error]), 4),
        )
        for error, (kind, name) in kinds.items()
        if error in measured
    ]


def _metrics(measured: dict[str, Any] | None, repository: str, model: str) -> str:
    if measured is None:
        return "The checkpoint was not evaluated."
    names = {"top1_error": "top-1 error", "top5_error": "top-5 error"}
    rows = [f"| {name} | {100 * measured[e]:.2f} % |" for e, name in names.items() if e in measured]
    data = f"`{measured['split']}` of `{measured['data']}`"
    chosen = (
        " The checkpoint was chosen by its error on these data." * measured["chose_the_checkpoint"]
    )
    of_data = f"--data {shlex.quote(measured['data'])} --split {shlex.quote(measured['split'])}"
    command = f"jaxcnn evaluate model.safetensors {of_data}{_named(model)}"
    return (
        f"Measured on {data} during training.{chosen}\n\n| metric | value |\n| --- | --- |\n"
        + "\n".join(rows)
        + f"\n\n```sh\nhf download {repository} model.safetensors --local-dir .\n{command}\n```"
    )


def _use(repository: str, model: str) -> str:
    argument, remark = "", ""
    if is_address(model):
        argument = f', model="{model}"'
        remark = f"\n\nThe code of `{model}` is not part of this repository."
    return (
        "```python\nimport jaxcnn\nfrom huggingface_hub import hf_hub_download\n\n"
        f'path = hf_hub_download("{repository}", "model.safetensors")\n'
        f"model, variables = jaxcnn.load_pretrained(path{argument})\n```{remark}"
    )


def _named(model: str) -> str:
    """The option that names a custom network, which its weights do not choose."""
    return f" --id {shlex.quote(model)}" if is_address(model) else ""


def _recipe(config: dict[str, Any]) -> dict[str, Any]:
    return {name: config[name] for name in ("optimizer", "schedule", "loss") if name in config}
