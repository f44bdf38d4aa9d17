"""Bounding boxes of image folders.

`PATH/Annotations` contains Pascal VOC XML files, as in ILSVRC, at `<part>/<class>/<image>.xml`,
`<part>/<image>.xml` or `<image>.xml`. Alternatively, `PATH/boxes.csv` has a row for each object,
with the columns filename (`train/ant/1.jpg`, or `train/ant/nest/1.jpg` for an image in a
subdirectory), width, height, xmin, ymin, xmax, ymax and (optional) class. All numbers are pixels.
Objects of other classes than that of the image are ignored. Images without objects do not
contribute to the loss of the boxes.
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
from jaxcnn.data.decode import BadImage

_COLUMNS = ("filename", "width", "height", "xmin", "ymin", "xmax", "ymax")
_SIDES = ("ymin", "xmin", "ymax", "xmax")
Find = Callable[[str, str, str], np.ndarray]


def find_boxes(root: Path) -> Find | None:
    """Finds the annotations of an image folder.

    Args:
      root: the folder.

    Returns:
      A function of (part, class, file name relative to the class) that returns the boxes f32[M,4]
      of an image, see `jaxcnn.data.boxes`; None if the folder has no annotations. It raises
      BadImage if an XML file is invalid.

    Raises:
      ValueError: `boxes.csv` lacks a column, or a row is not a valid box.
    """
    if (root / "boxes.csv").is_file():
        rows = _read_csv(root / "boxes.csv")
        return lambda part, class_name, name: _of_class(
            rows.get(f"{part}/{class_name}/{name}", []), class_name
        )
    folder = root / "Annotations"
    return find_voc(folder) if folder.is_dir() else None


def find_voc(folder: Path) -> Find:
    """Finds the boxes of images in Pascal VOC files.

    Args:
      folder: of the files.

    Returns:
      See `find_boxes`.
    """

    def read(part: str, class_name: str, name: str) -> np.ndarray:
        file = Path(name).with_suffix(".xml")
        for path in (Path(part, class_name, file), Path(part, file.name), Path(file.name)):
            if (path := folder / path).is_file():
                try:
                    return _of_class(read_voc(path), class_name)
                except ValueError as error:
                    raise BadImage(f"has no valid boxes: {error}") from None
        return boxes.pack([])

    return read


def read_voc(path: Path) -> list[tuple[str, list[float]]]:
    """Reads a Pascal VOC file.

    Args:
      path: the XML file.

    Returns:
      (class, box) of each object. Boxes are fractions of the image size, see `jaxcnn.data.boxes`.

    Raises:
      ValueError: the file is not a Pascal VOC file, or a box is invalid.
    """
    try:
        tree = ElementTree.parse(path).getroot()
        size = {side: tree.findtext(f"size/{side}") for side in ("width", "height")}
        objects = []
        for one in tree.iter("object"):
            values = {side: one.findtext(f"bndbox/{side}") for side in _SIDES}
            objects.append((one.findtext("name") or "", _box(size | values, str(path))))
        return objects
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
        with open(path, encoding="utf-8-sig", newline="") as file:
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
    fractions = np.array(sides) / [height, width, height, width]
    return boxes.visible(fractions).tolist()


def _of_class(objects: list[tuple[str, list[float]]], class_name: str) -> np.ndarray:
    return boxes.pack([box for name, box in objects if name in ("", class_name)])
