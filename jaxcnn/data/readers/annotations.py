"""Where the objects of an image folder are: annotations beside the images.

`PATH/Annotations` has Pascal VOC's XML files, as ILSVRC does, at `<part>/<class>/<image>.xml`,
`<part>/<image>.xml` or `<image>.xml`; or `PATH/boxes.csv` has a row for each object and the columns
filename (`train/ant/1.jpg`), width, height, xmin, ymin, xmax, ymax, and perhaps class. Numbers are
pixels. Objects of another class than the image's are left out. An image may be without any: in
training its box is then not learnt.
"""

from __future__ import annotations

import contextlib
import csv
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from jaxcnn.data import boxes

_COLUMNS = ("filename", "width", "height", "xmin", "ymin", "xmax", "ymax")
_SIDES = ("ymin", "xmin", "ymax", "xmax")
Find = Callable[[str, str, str], np.ndarray]


def find_boxes(root: Path) -> Find | None:
    """(part, class, file name) to boxes f32[M,4], see `jaxcnn.data.boxes`; None if there are none.

    Raises:
      ValueError: `boxes.csv` lacks a column or has a row that is no box; of an XML file that is so,
        when it is read.
    """
    if (root / "boxes.csv").is_file():
        rows = _read_csv(root / "boxes.csv")
        return lambda part, class_name, name: _of_class(
            rows.get(f"{part}/{class_name}/{name}", []), class_name
        )
    folder = root / "Annotations"
    if not folder.is_dir():
        return None

    def read(part: str, class_name: str, name: str) -> np.ndarray:
        file = Path(name).with_suffix(".xml").name
        for path in (folder / part / class_name / file, folder / part / file, folder / file):
            if path.is_file():
                return _of_class(read_voc(path), class_name)
        return boxes.pack([])

    return read


def read_voc(path: Path) -> list[tuple[str, list[float]]]:
    """(class, box) of each object of a Pascal VOC file, boxes in shares of the image.

    Raises:
      ValueError: it is not such a file, or a box is none.
    """
    try:
        tree = ElementTree.parse(path).getroot()
        size = {side: tree.findtext(f"size/{side}") for side in ("width", "height")}
        found = []
        for one in tree.iter("object"):
            values = {side: one.findtext(f"bndbox/{side}") for side in _SIDES}
            found.append((one.findtext("name") or "", _box(size | values, str(path))))
        return found
    except (ElementTree.ParseError, LookupError) as error:  # the latter of an unknown encoding
        raise ValueError(f"{path} is not XML: {error}") from error


def _read_csv(path: Path) -> dict[str, list[tuple[str, list[float]]]]:
    by_file: dict[str, list] = {}
    with _csv_of(path) as reader:
        missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(
                f"{path} has no column {', '.join(missing)}; needed are {', '.join(_COLUMNS)}"
            )
        for row in reader:
            box = _box(row, f"{path}, line {reader.line_num}")
            by_file.setdefault(row["filename"], []).append((row.get("class") or "", box))
    return by_file


@contextlib.contextmanager
def _csv_of(path: Path) -> Iterator[csv.DictReader]:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            yield csv.DictReader(file)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a CSV file in UTF-8: {error}") from error


def _box(text: Mapping[str, str | None], where: str) -> list[float]:
    try:
        sides = [float(text[name] or "") for name in _SIDES]
        height, width = (float(text[name] or "") for name in ("height", "width"))
    except ValueError:
        raise ValueError(f"{where}: a box has no number for one of its sides or the size") from None
    finite = all(map(math.isfinite, (height, width, *sides)))
    if not (finite and min(height, width) > 0 and sides[0] < sides[2] and sides[1] < sides[3]):
        raise ValueError(f"{where}: box {sides} of an image {width:g}x{height:g} has no area")
    shares = np.array(sides) / [height, width, height, width]
    return boxes.visible(shares).tolist()


def _of_class(found: list[tuple[str, list[float]]], class_name: str) -> np.ndarray:
    return boxes.pack([box for name, box in found if name in ("", class_name)])
