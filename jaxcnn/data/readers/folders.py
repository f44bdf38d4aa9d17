"""Image folders, `PATH/train/<class>/*.jpg` as torchvision has them, and the same as tar files.

`PATH/train.tar` holds `<class>/*.jpg`. Classes are the folders' names in sorted order, those of
"train"; other parts may lack some of them but have no others. Boxes may lie beside them, see
`annotations`.
"""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

from jaxcnn._checks import near
from jaxcnn._files import read_at
from jaxcnn.data.readers.annotations import Find, find_boxes
from jaxcnn.data.sets import Part

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
PARTS = ("train", "val", "validation", "test")


def open_folder(path: Path) -> tuple[tuple[str, ...], dict[str, Part]]:
    """(class names, {part: examples}), the examples sorted by name.

    Raises:
      FileNotFoundError: there is no such folder, or no "train" in it.
      ValueError: a class has no images, or a part a class that "train" does not have.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path}")
    listings = {}
    for part in PARTS:
        if (path / part).is_dir():
            listings[part] = _folder(path / part)
        elif (path / f"{part}.tar").is_file():
            listings[part] = _tar(path / f"{part}.tar")
    if "train" not in listings:
        inside = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
        raise FileNotFoundError(f"{path} has no folder 'train' and no train.tar; it has {inside}")
    classes = tuple(sorted(listings["train"][0]))
    find = find_boxes(path)
    return classes, {p: _part(path / p, classes, find, *listing) for p, listing in listings.items()}


def _part(path: Path, classes: tuple[str, ...], find: Find | None, by_class: dict, read) -> Part:
    label = {name: i for i, name in enumerate(classes)}
    for name, found in by_class.items():
        if name not in label:
            raise ValueError(
                f"{path} has a class {name!r}{near(name, classes)}, which 'train' does not have"
            )
        if not found:
            raise ValueError(f"{path / name} has no images ({', '.join(EXTENSIONS)})")
    if not by_class:
        raise ValueError(f"{path} has no folders of images, one for each class")
    places = [(label[name], where) for name in sorted(by_class) for where in sorted(by_class[name])]

    def file(i: int) -> tuple[str, str]:
        return classes[places[i][0]], os.path.basename(str(places[i][1][0]))

    return Part(
        size=len(places),
        read=lambda i: (read(places[i][1]), places[i][0]),
        name=lambda i: "/".join((str(path), *file(i))),
        boxes=(lambda i: find(path.name, *file(i))) if find else None,
    )


def _folder(path: Path):
    """({class: [(file,)]}, read)."""
    by_class = {}
    for folder in os.scandir(path):
        if folder.is_dir() and not folder.name.startswith("."):
            names = [f.name for f in os.scandir(folder.path) if _is_image(f.name)]
            by_class[folder.name] = [(os.path.join(folder.path, name),) for name in names]
    return by_class, lambda where: Path(where[0]).read_bytes()


def _tar(path: Path):
    """({class: [(member, offset, size)]}, read); the tar is read once, headers only."""
    by_class: dict[str, list] = {}
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            if member.isdir() and "/" not in name.rstrip("/") and name not in ("", "."):
                by_class.setdefault(name.rstrip("/"), [])
            if member.isfile() and _is_image(name):
                folder, _, _ = name.partition("/")
                place = (name, member.offset_data, member.size)
                by_class.setdefault(folder, []).append(place)

    return by_class, lambda where: read_at(path, *where[1:])


def _is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS) and not os.path.basename(name).startswith(".")
