"""Top-5 error and depth of the entries to ILSVRC's classification task, by year.

The errors are on the test set, as published; most are those of ensembles. The winners of the first
two years had no network, and a person was tested on 1,500 of the images of 2014.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections.abc import Sequence
from pathlib import Path

from jaxcnn.analysis.facts import facts, published
from jaxcnn.reporting.figures import make_figure, save
from jaxcnn.reporting.tables import text_table


@dataclasses.dataclass(frozen=True)
class Entry:
    """An entry to the challenge.

    Attributes:
      year: of the challenge.
      name: common name of the entry.
      network: id of the network; None if it is not part of this package.
      layers: depth of the network, or of the deepest network of an ensemble: convolutions and dense
        layers on the longest path; None for entries without a network.
      top5_error: on the test set, in percent.
      how: description of the submission.
      source: where the error was published.
      depth_source: where the depth comes from if the entry has no paper that states it; else "".
    """

    year: int
    name: str
    network: str | None
    layers: int | None
    top5_error: float
    how: str
    source: str
    depth_source: str = ""


# Year, name, id, layers, and text that identifies the entry among the network's published results.
_NETWORKS = (
    (2012, "AlexNet", "alexnet_2gpu", 8, "7-net"),
    (2013, "ZFNet", "zfnet_384", 8, "6 nets"),
    (2014, "VGG", "vgg_e", 19, "ILSVRC-2014"),
    (2014, "GoogLeNet", "googlenet", 22, "7 models, 144-crop"),
    (2015, "ResNet", "resnet152_v1", 152, "6-model"),
    (2016, "ResNeXt", "resnext101_64x4d", 101, "ILSVRC 2016"),
)
# Ensembles, of which the registry has only the errors: year, name, id, layers, key.
_ENSEMBLES: tuple[tuple[int, str, str | None, int | None, str], ...] = (
    (2016, "Trimps-Soushen", None, 200, "ensemble_trimps_soushen_2016"),
    (2017, "SENet", "senet154", 154, "ensemble_wmw_2017"),
)
_CLARIFAI = Entry(
    2013, "Clarifai", None, 8, 11.7, "challenge data only (11.2 with outside data)",
    "Szegedy et al. 2014 Table 2",
    "that of ZFNet, whose author made the entry; no paper describes its networks",
)  # fmt: skip
_DEPTH_SOURCES = {
    "Trimps-Soushen": "ResNet-200, the deepest member in second-hand accounts; there is no paper"
}
_RUSSAKOVSKY = "Russakovsky et al. 2015 (arXiv 1409.0575)"
_SHALLOW = (
    Entry(
        2010, "NEC-UIUC", None, None, 28.2, "shallow: coded SIFT and LBP features, linear SVMs",
        f"{_RUSSAKOVSKY} section 5.1",
    ),
    Entry(
        2011, "XRCE", None, None, 25.8, "shallow: Fisher vectors, linear SVMs",
        f"{_RUSSAKOVSKY} section 5.1",
    ),
)  # fmt: skip
HUMAN_ERROR = 5.1  # top-5, in percent, of one trained annotator: _RUSSAKOVSKY, section 6.4


def history() -> list[Entry]:
    """Returns the entries by year, the better one of a year last.

    >>> [(e.year, e.name, e.layers, e.top5_error) for e in history()][-1]
    (2017, 'SENet', 154, 2.251)
    """
    entries = [*_SHALLOW, _CLARIFAI]
    for year, name, network, layers, words in _NETWORKS:
        results = [r for r in facts(network).other_results if words in r["protocol"]]
        [result] = results
        stated = re.search(r"test top-5 ([\d.]+)", result["protocol"])
        error = float(stated[1]) if stated else result["top5_error"]
        how = re.sub(r"^(val and test|val|test), ", "", result["protocol"].split(" (test")[0])
        entries.append(Entry(year, name, network, layers, error, how, result["source"]))
    for year, name, model, depth, key in _ENSEMBLES:
        entry = published()[key]
        how = entry["protocol"].split("test, ")[1]
        source = entry["source"].removeprefix("slide / ")
        account = _DEPTH_SOURCES.get(name, "")
        entries.append(Entry(year, name, model, depth, entry["top5_error"], how, source, account))
    return sorted(entries, key=lambda entry: (entry.year, -entry.top5_error))


def to_text(entries: Sequence[Entry]) -> str:
    """Formats the entries as an aligned table."""
    header = ["year", "entry", "top-5 %", "layers"]
    rows = [[str(e.year), e.name, f"{e.top5_error:g}", _depth(e)] for e in entries]
    lines = text_table(header, rows, left=2).splitlines()
    notes = [f"  {e.how}; {e.source}" for e in entries]
    width = max(map(len, lines))
    human = f"a person: {HUMAN_ERROR:g} % of 1,500 images of 2014; {_RUSSAKOVSKY} section 6.4"
    table = [*lines[:2], *(line.ljust(width) + n for line, n in zip(lines[2:], notes))]
    accounts = [f"~ {e.name}: {e.depth_source}" for e in entries if e.depth_source]
    return "\n".join([*table, "", human, *accounts])


def _depth(entry: Entry) -> str:
    """The depth as text, with "~" if no paper states it."""
    return "" if entry.layers is None else "~" * bool(entry.depth_source) + str(entry.layers)


def to_csv(entries: Sequence[Entry]) -> str:
    """Formats the entries as CSV, one row each."""
    stream = io.StringIO()
    names = [field.name for field in dataclasses.fields(Entry)]
    table = csv.DictWriter(stream, names, lineterminator="\n")
    table.writeheader()
    table.writerows(map(dataclasses.asdict, entries))
    return stream.getvalue()


def draw(entries: Sequence[Entry], path: str | Path) -> None:
    """Draws the depths and, below them, the errors of the entries and of a person.

    Args:
      entries: one column each.
      path: of the figure, .png, .svg or .pdf.
    """
    figure = make_figure(1.25 * len(entries) + 1, 6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 3))
    places = range(len(entries))
    known = [(i, e.layers) for i, e in zip(places, entries) if e.layers]
    above.vlines([i for i, _ in known], 0, [n for _, n in known], color="tab:red", alpha=0.6)
    above.plot(*zip(*known), "o", color="tab:red")
    hollow = [(i, e.layers) for i, e in zip(places, entries) if e.depth_source]
    if hollow:
        above.plot(*zip(*hollow), "o", color="tab:red", mfc="white", label="~ stated in no paper")
        above.legend(loc="upper left")
    where = {"textcoords": "offset points", "ha": "center"}
    for i, entry in enumerate(entries):
        if entry.layers:
            above.annotate(f"{_depth(entry)} layers", (i, entry.layers), (0, 8), **where)
    for i in (i for i, e in zip(places, entries) if e in _SHALLOW):
        above.annotate("shallow", (i, 0), (0, 8), **where)
    above.set(ylabel="layers", ylim=(0, 1.25 * max(layers for _, layers in known)))
    above.set_title("ILSVRC classification: depth, and top-5 error on the test set")
    errors = [e.top5_error for e in entries]
    bars = below.bar(places, errors, width=0.6, color="tab:blue", alpha=0.7)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # over the person's line
    below.bar_label(bars, [f"{error:g} %" for error in errors], padding=3, bbox=box)
    person = f"person: {HUMAN_ERROR:g} %"
    below.axhline(HUMAN_ERROR, color="tab:green", linestyle="--", label=person)
    below.legend()
    below.set_xticks(places, [f"{e.name}\n{e.year}" for e in entries])
    below.set_ylabel("top-5 error (%)")
    below.margins(y=0.12)
    save(figure, path)
