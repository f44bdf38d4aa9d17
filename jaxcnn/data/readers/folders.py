"""Image folders, `PATH/train/<class>/*.jpg` as torchvision has them, and the same as tar files.

`PATH/train.tar` holds `<class>/*.jpg`. Classes are the folders' names in sorted order, those of
"train"; other parts may lack some of them but have no others. An image may lie in further folders
below its class's; hidden files and folders are left out. A tar may have all of it below one folder
of the part's name. Boxes may lie beside the parts, see `annotations`.
"""

from __future__ import annotations

import contextlib
import os
import tarfile
from collections.abc import Iterator
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
            listings[part] = _tar(path / f"{part}.tar", part)
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
        return classes[places[i][0]], os.path.basename(places[i][1][0])

    return Part(
        size=len(places),
        read=lambda i: (read(places[i][1]), places[i][0]),
        name=lambda i: f"{path}/{classes[places[i][0]]}/{places[i][1][0]}",
        boxes=(lambda i: find(path.name, *file(i))) if find else None,
        listing=lambda start, stop: (f"{classes[k]}/{w[0]}" for k, w in places[start:stop]),
    )


def list_images(folder: str | os.PathLike) -> list[str]:
    """Names of the images in a folder and those below it, relative to it and sorted.

    Hidden files and folders are left out, and folders that a link leads to twice.
    """
    found: list[str] = []
    seen: set[str] = set()
    waiting = [""]
    while waiting:
        below = waiting.pop()
        place = os.path.join(folder, below)
        real = os.path.realpath(place)
        if real in seen:
            continue
        seen.add(real)
        for entry in os.scandir(place):
            name = f"{below}/{entry.name}" if below else entry.name
            if entry.is_dir() and not entry.name.startswith("."):
                waiting.append(name)
            elif is_image(entry.name) and entry.is_file():
                found.append(name)
    return sorted(found)


def is_image(name: str) -> bool:
    """Whether a file, named with the folders that it lies in, is taken for an image."""
    hidden = any(part.startswith(".") for part in name.split("/"))
    return name.lower().endswith(EXTENSIONS) and not hidden


def _folder(path: Path):
    """({class: [(name in it,)]}, read)."""
    by_class = {}
    for folder in os.scandir(path):
        if folder.is_dir() and not folder.name.startswith("."):
            by_class[folder.name] = [(name, folder.path) for name in list_images(folder.path)]
    return by_class, lambda where: Path(where[1], where[0]).read_bytes()


@contextlib.contextmanager
def _open_tar(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(path, "r:") as tar:
            yield tar
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{path} is not a tar file, or damaged: {error}") from error


def _tar(path: Path, part: str):
    """({class: [(name in it, offset, size)]}, read); the tar is read once, headers only."""
    members: list[tuple[str, tuple[int, int] | None]] = []  # (name, place; None for a folder)
    end = path.stat().st_size
    with _open_tar(path) as tar:
        for member in tar:
            name = member.name.removeprefix("./").rstrip("/")
            if member.isfile():
                if member.size < 0 or member.offset_data + member.size > end:
                    raise ValueError(f"{path} is truncated or damaged: {name!r} needs more bytes")
                members.append((name, (member.offset_data, member.size)))
            elif member.isdir() and name not in ("", "."):
                members.append((name, None))
    inside = [name for name, where in members if where and is_image(name)]
    if inside and all(name.startswith(f"{part}/") and name.count("/") > 1 for name in inside):
        members = [(n.partition("/")[2], w) for n, w in members if n.startswith(f"{part}/")]
    by_class: dict[str, list] = {}
    for name, where in members:
        top, _, rest = name.partition("/")
        if where is None and not rest and not top.startswith("."):
            by_class.setdefault(top, [])
        elif where and rest and is_image(name):
            by_class.setdefault(top, []).append((rest, *where))
    return by_class, lambda where: read_at(path, *where[1:])
