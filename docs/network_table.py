"""The table of all networks, which the site sorts and filters."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from jaxcnn.models import ModelInfo, list_models, model_info
from jaxcnn.models.registry import resolve
from jaxcnn.reporting.tables import markdown_table
from jaxcnn.weights import WEIGHTS

_RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
_CPU, _GPU = ("against_torch_avx512.json", "infer"), ("gpu_against_torch.json", "train")
_DATA = {"imagenet": "ImageNet", "cifar10": "CIFAR-10", "mnist": "MNIST"}
_HEADER = (
    *("network", "data", "year", "input", "depth", "parameters, M", "size, MB"),
    *("multiply-adds, M", "top-1 %", "top-5 %", "weights", "CPU, ms", "GPU training, ms"),
)


def site_table() -> str:
    """The table and explanations of its columns, as Markdown."""
    table = markdown_table(_HEADER, [_row(model_info(name)) for name in list_models()], left=2)
    return "\n".join(["```{table}", ":class: networks", "", table, "```", "", *_about()])


def _row(info: ModelInfo) -> list[str]:
    params, macs = info.params or 0, info.macs or 0
    page = f"families/{info.family}.md"
    aliases = f"<br><small>{', '.join(info.aliases)}</small>" if info.aliases else ""
    count = _published()[info.name]
    return [
        f"[`{info.name}`]({page}){aliases}",
        _DATA[info.dataset or ""],
        str(info.year),
        str((info.input_size or (0,))[0]),
        str(info.depth),
        short(params / 1e6),
        short(4 * params / 1e6),
        short(macs / 1e6),
        *("" if e is None else f"{e:g}" for e in (info.top1_error, info.top5_error)),
        f"[{count}]({page}#published-weights)" if count else "",
        *(_speed(source).get(info.name, "") for source in (_CPU, _GPU)),
    ]


def short(number: float) -> str:
    """At least three digits, such as 0.0617, 25.6 or 15,470."""
    return f"{number:,.0f}" if number >= 99.95 else f"{number:#.3g}"


def prose_table(header: Sequence[str], rows: Sequence[Sequence[str]], style: str = "prose") -> str:
    """A table whose columns stay wide enough to be read on a phone."""
    table = markdown_table(header, rows, left=len(header))
    return "\n".join(["```{table}", f":class: {style}", "", table, "```"])


@functools.cache
def _published() -> Counter[str]:
    """The number of published weights of each network."""
    return Counter(weights.model for weights in WEIGHTS.values())


@functools.cache
def _speed(source: tuple[str, str]) -> dict[str, str]:
    """Milliseconds per image of each network that was measured."""
    file, mode = source
    rows = json.loads((_RESULTS / file).read_text("utf-8"))["rows"]
    return {
        resolve(row["model"]): short(1e3 * row["forms"]["jaxcnn"]["seconds"] / row["batch"])
        for row in rows
        if row["mode"] == mode
    }


def _about() -> list[str]:
    cpu, gpu = (json.loads((_RESULTS / f).read_text("utf-8"))["machine"] for f, _ in (_CPU, _GPU))
    return [
        "## Columns",
        "",
        "| column | |",
        "| --- | --- |",
        "| input | height and width of the images |",
        "| depth | convolutions and dense layers on the longest path from the image to the logits; "
        "gates of squeeze-and-excitation are not counted |",
        "| size | of the parameters in float32 |",
        "| top-1, top-5 | published error in percent; the page of the family has protocol and "
        "source |",
        "| weights | number of published sets of weights that `jaxcnn.load_pretrained` loads |",
        f"| CPU | time of a prediction per image, float32, on {cpu['cores']} cores of an "
        f"{cpu['cpu']}: `python benchmarks/against_torch.py --torch-python PYTHON --name "
        "against_torch_avx512` |",
        f"| GPU | time of a training step per image, bfloat16, on an {gpu['devices'][0]}: "
        "`python benchmarks/gpu_against_torch.py` |",
        "",
        "Times are listed where they were measured; [Benchmarks](reference/benchmarks) has batch "
        "sizes, versions and dates.",
    ]
