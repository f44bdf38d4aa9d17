"""The pages of the families of networks, with drawings."""

from __future__ import annotations

import contextlib
import functools
import importlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import docstrings
from api_names import link, scope
from api_pages import entries
from network_table import prose_table, short

import jaxcnn
from jaxcnn import draw
from jaxcnn.models import FAMILIES, ModelInfo, list_models, model_info
from jaxcnn.reporting.tables import markdown_table
from jaxcnn.weights import WEIGHTS
from jaxcnn.weights.pretrained import Weights

# The networks that are drawn on the page of their family, where it is not the first one.
_DRAWN = {
    "alexnet": ["alexnet_2gpu"],
    "vgg": ["vgg_d"],
    "resnet": ["plain34", "resnet34"],
    "resnet_v2": ["resnet50_v2"],
    "wide_resnet": ["wide_resnet50_2"],
    "resnext": ["resnext50_32x4d"],
    "senet": ["se_resnet50"],
    "dpn": ["dpn92"],
}
# The network whose blocks are drawn, where it is not the last of those above.
_BLOCKS = {"resnet": "resnet50_v1"}
# Papers that are not on arXiv.
_PAPERS = {
    "lenet": "https://doi.org/10.1109/5.726791",
    "alexnet": "https://papers.nips.cc/paper/4824-imagenet-classification-with-deep-convolutional-"
    "neural-networks",
}


def index_page() -> str:
    rows = []
    for family in FAMILIES:
        title, citation, _ = _parts(family)
        infos = _infos(family)
        years = [info.year or 0 for info in infos]
        errors = [i.top5_error for i in infos if i.dataset == "imagenet" and i.top5_error]
        rows.append(
            [
                f"[{title}]({family}.md)",
                str(min(years)),
                paper(family, citation),
                str(len(infos)),
                f"{min(errors):g}" if errors else "",
            ]
        )
    header = ["family", "year", "paper", "networks", "least top-5 error, %"]
    return "\n\n".join(
        [
            "# Families of networks",
            "Each page has drawings, the networks with their published errors, deviations from the "
            "paper, and published weights. [Networks](../networks) has all networks in one table. "
            "The errors are the published ones on ImageNet.",
            markdown_table(header, rows, left=3),
            "\n".join(["```{toctree}", ":hidden:", *FAMILIES, "```"]),
        ]
    )


def family_page(family: str, levels: Sequence[str]) -> str:
    """A citation, an example, facts, deviations and drawings of a family of networks.

    Args:
      family: its name.
      levels: those of the drawings, see `draw_family`.
    """
    module = importlib.import_module(f"jaxcnn.models.{family}")
    title, citation, text = _parts(family)
    infos = _infos(family)
    names = {info.name for info in infos}
    weights = [one for one in WEIGHTS.values() if one.model in names]
    parts = [
        f"# {title}",
        docstrings.markdown(citation),
        f"Paper: {paper(family, citation)}" if family in _PAPERS else "",
        _example(model_info(_drawn(family, "network")[-1]), weights),
        *([_figure(family, "block")] if "block" in levels else []),
        "## Networks",
        _networks_table(infos),
        "## Published errors",
        _errors_table(infos),
        "## Details and deviations from the paper",
        docstrings.markdown(text, scope(module)),
    ]
    if weights:
        parts += ["## Published weights", _weights_table(weights)]
    if "network" in levels:
        parts += ["## Layer by layer", _figure(family, "network")]
    if classes := entries(module.__name__, module):
        parts += ["## Classes", f"```{{py:module}} {module.__name__}\n```", *classes]
    return "\n\n".join(part for part in parts if part)


def _parts(family: str) -> tuple[str, str, str]:
    """Title, citation and the rest of the docstring of a family's file."""
    module = importlib.import_module(f"jaxcnn.models.{family}")
    title, citation, *rest = docstrings.of_module(module).split("\n\n")
    return title.rstrip("."), citation, "\n\n".join(rest)


def paper(family: str, citation: str) -> str:
    """A link to the paper of a family, the first one that its docstring cites."""
    if family in _PAPERS:
        address = _PAPERS[family]
        return f"[{'NeurIPS 25' if 'nips' in address else address.split('org/')[1]}]({address})"
    found = re.search(r"arXiv\s+(\d{4}\.\d{4,5})", citation)
    return link(f"arXiv {found[1]}") if found else ""


def _infos(family: str) -> list[ModelInfo]:
    return [info for info in map(model_info, list_models()) if info.family == family]


def _example(info: ModelInfo, weights: Sequence[Weights]) -> str:
    size = ", ".join(map(str, info.input_size or ()))
    lines = [
        f'model = jaxcnn.create_model("{info.name}")',
        f"variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, {size})))",
        f"logits = model.apply(variables, images)  # images f32[N,{size.replace(' ', '')}]",
    ]
    if weights:
        own = [one for one in weights if one.model == info.name] or weights
        lines += ["", f'model, variables = jaxcnn.load_pretrained("{own[0].name}")']
    return "\n".join(["```{code-block} python", *lines, "```"])


def _networks_table(infos: Iterable[ModelInfo]) -> str:
    rows = [
        [
            f"`{info.name}`" + "".join(f", `{alias}`" for alias in info.aliases),
            *(str(info.year), str(info.depth)),
            *(short((n or 0) / 1e6) for n in (info.params, info.macs)),
            *("" if e is None else f"{e:g}" for e in (info.top1_error, info.top5_error)),
        ]
        for info in infos
    ]
    header = ["id", "year", "depth", "parameters, M", "multiply-adds, M", "top-1 %", "top-5 %"]
    return markdown_table(header, rows)


def _errors_table(infos: Iterable[ModelInfo]) -> str:
    """Each published error, in percent, with the protocol and the source."""
    rows = []
    for info in infos:
        first = {name: getattr(info, name) for name in ("top1_error", "top5_error")}
        first |= {"protocol": info.protocol, "source": info.source}
        for one in (first, *info.other_results):
            errors = [one.get("top1_error"), one.get("top5_error")]
            if any(errors):
                numbers = ["" if error is None else f"{error:g}" for error in errors]
                rows.append(
                    [f"`{info.name}`", *numbers, one["protocol"] or "", one["source"] or ""]
                )
    return prose_table(["id", "top-1 %", "top-5 %", "protocol", "source"], rows)


def _weights_table(weights: Iterable[Weights]) -> str:
    rows = []
    for one in weights:
        how = one.preprocessing
        mean, std = (", ".join(f"{x:.3g}" for x in values) for values in (how.mean, how.std))
        name = f"[`{one.name}`](https://huggingface.co/{one.repository})"
        cells = [str(how.size), f"{how.crop:g}", how.interpolation, mean, std]
        rows.append([name, f"`{one.model}`", *cells])
    header = ["weights", "network", "size", "crop", "interpolation", "mean", "std"]
    return prose_table(header, rows)


# Drawings


def draw_family(family: str, folder: Path) -> list[str]:
    """Draws the networks of a family and the blocks of one; returns the levels drawn."""
    levels = []
    for level in ("network", "block"):
        with contextlib.suppress(ValueError):  # a network without blocks
            draw_once(path_of(folder, family, level), *_drawn(family, level), level=level)
            levels.append(level)
    return levels


def draw_once(path: Path, *networks: str, level: str) -> Path:
    """Draws networks, unless the drawing is newer than the package."""
    if not path.is_file() or path.stat().st_mtime < _newest_source():
        draw(*networks, level=level).save(path)
    return path


@functools.cache
def _newest_source() -> float:
    package = Path(jaxcnn.__file__).parent
    return max(path.stat().st_mtime for path in package.rglob("*.py"))


def _drawn(family: str, level: str) -> list[str]:
    networks = _DRAWN.get(family, [_infos(family)[0].name])
    return networks if level == "network" else [_BLOCKS.get(family, networks[-1])]


def path_of(folder: Path, family: str, level: str) -> Path:
    """The file of a drawing."""
    return folder / f"{family}_{level}.svg"


def _figure(family: str, level: str) -> str:
    file = path_of(Path(), family, level).name
    names = ", ".join(f"`{name}`" for name in _drawn(family, level))
    text = f"Blocks of {names}" if level == "block" else names
    lines = [f"```{{figure}} {file}", ":figclass: drawing", f":target: ../_images/{file}"]
    return "\n".join([*lines, f":alt: {text}", "", f"{text}. See [Drawings](../drawings).", "```"])
