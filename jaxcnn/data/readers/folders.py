"""Image folders `PATH/train/<class>/*.jpg`, as in torchvision, or tar files of them.

`PATH/train.tar` contains `<class>/*.jpg`, optionally below a directory with the name of the split.
The classes are the directories of "train" in sorted order; other splits can have fewer classes but
no additional ones. Images can be in subdirectories of their class. Hidden files and directories are
ignored. For bounding boxes, see `annotations`.
"""

from __future__ import annotations

import collections
import contextlib
import os
import posixpath
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxcnn._checks import near, note_once
from jaxcnn._files import any_path, files_below, is_local, read_at
from jaxcnn.data.decode import check_bytes, read_file
from jaxcnn.data.readers.annotations import Find, find_boxes
from jaxcnn.data.sets import FileShard

EXTENSIONS = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_OTHER_PHOTOS = (".heic", ".heif", ".avif", ".jp2", ".jxl", ".dng", ".cr2", ".nef", ".arw")
PARTS = ("train", "val", "valid", "validation", "test")
WORDNET = re.compile(r"n\d{8}")  # ids of ImageNet's classes
Where = tuple[Any, ...]  # name of a file and where it is


def open_folder(path: Path) -> tuple[tuple[str, ...], dict[str, FileShard]]:
    """Opens an image folder.

    Args:
      path: the folder.

    Returns:
      (class names, {split: examples}), with the examples sorted by class and name.

    Raises:
      FileNotFoundError: the folder does not exist or has no "train".
      ValueError: a class has no images, or a split has a class that "train" does not have.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path}")
    listings = {}
    for part in PARTS:
        if (path / part).is_dir():
            listings[part] = list_classes(path / part)
        elif (path / f"{part}.tar").is_file():
            listings[part] = _tar(path / f"{part}.tar", part)
    if "train" not in listings:
        inside = sorted(p.name for p in path.iterdir())[:8]
        is_imagenet = any(name == "ILSVRC" or WORDNET.fullmatch(name) for name in inside)
        raise FileNotFoundError(
            f"{path} has no folder 'train' and no train.tar; it has "
            f"{', '.join(inside) or 'nothing'}{'; write imagenet:PATH' * is_imagenet}"
        )
    classes = tuple(sorted(listings["train"][0]))
    find = find_boxes(path)
    return classes, {
        p: make_part(path / p, classes, find, *listing) for p, listing in listings.items()
    }


def make_part(
    path: Path,
    classes: tuple[str, ...],
    find: Find | None,
    by_class: Mapping[str, Sequence[Where]],
    read: Callable[[Where], bytes],
    name: Callable[[str, Where], str] | None = None,
) -> FileShard:
    """Creates a split, with the examples sorted by class and name.

    Args:
      path: the directory of the split.
      classes: names of the classes, by label.
      find: see `annotations.find_boxes`; None if there are no boxes.
      by_class: {class: entries of its images}; an entry begins with the name of the file, relative
        to its class.
      read: function that reads the file of an entry.
      name: function of (class, entry) that returns the path of the file, for messages.

    Raises:
      ValueError: a class is not one of `classes` or has no images, or there are no classes.
    """
    label = {name: i for i, name in enumerate(classes)}
    for class_name, files in by_class.items():
        if class_name not in label:
            raise ValueError(
                f"{path} has a class {class_name!r}, which 'train' does not have"
                f"{near(class_name, classes)}"
            )
        if not files:
            raise ValueError(f"{path / class_name} has no images ({', '.join(EXTENSIONS)})")
    if not by_class:
        raise ValueError(f"{path} has no folders of images, one for each class")
    places = [(label[k], where) for k in sorted(by_class) for where in sorted(by_class[k])]

    def name_of(i: int) -> str:
        k, where = places[i]
        return name(classes[k], where) if name else f"{path}/{classes[k]}/{where[0]}"

    def file(i: int) -> tuple[str, str]:
        return classes[places[i][0]], places[i][1][0]

    return FileShard(
        size=len(places),
        read=lambda i: (read(places[i][1]), places[i][0]),
        name=name_of,
        boxes=(lambda i: find(path.name, *file(i))) if find else None,
        listing=lambda start, stop: (f"{classes[k]}/{w[0]}" for k, w in places[start:stop]),
        labels=lambda start, stop: [k for k, _ in places[start:stop]],
    )


def list_images(
    folder: str | os.PathLike, others: collections.Counter[str] | None = None
) -> list[str]:
    """Lists the images in a directory and its subdirectories.

    Hidden files and directories are ignored. A directory that is also reached by a link is listed
    once, under its own name. A link to a file that does not exist is listed, too: whoever reads it
    gets an error.

    Args:
      folder: the directory.
      others: counts photos that cannot be read, by extension; not in a bucket.

    Returns:
      Sorted names, relative to the directory.
    """
    if not isinstance(folder, str) and not is_local(folder):
        paths = [path.relative_to(folder).as_posix() for path in files_below(any_path(folder))]
        return sorted(filter(is_image, paths))
    images: list[str] = []
    visited: set[str] = set()
    pending, links = [""], list[str]()
    while pending or links:
        subfolder = pending.pop() if pending else links.pop()
        path = os.path.join(folder, subfolder)
        real = os.path.realpath(path)
        if real in visited:
            continue
        visited.add(real)
        for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
            name = f"{subfolder}/{entry.name}" if subfolder else entry.name
            broken = _is_broken_link(entry)
            if not broken and entry.is_dir() and not entry.name.startswith("."):
                (links if entry.is_symlink() else pending).append(name)
            elif is_image(entry.name) and (broken or entry.is_file()):
                images.append(name)
            elif others is not None and _is_other_photo(entry.name):
                others[os.path.splitext(name)[1].lower()] += 1
    return sorted(images)


def _is_other_photo(name: str) -> bool:
    return name.lower().endswith(_OTHER_PHOTOS) and not name.startswith(".")


def _is_broken_link(entry: os.DirEntry) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)


def is_image(name: str) -> bool:
    """Returns whether a relative path has the extension of an image and no hidden component."""
    hidden = any(part.startswith(".") for part in name.split("/"))
    return name.lower().endswith(EXTENSIONS) and not hidden


def list_classes(path: Path) -> tuple[dict[str, list[Where]], Callable[[Where], bytes]]:
    """Lists the images in the directories of classes.

    Args:
      path: the directory that contains them.

    Returns:
      ({class: [(relative name, path of the class)]}, function that reads the file of an entry).

    Raises:
      ValueError: there is a link to something that does not exist, which might be a class.
    """
    by_class: dict[str, list[Where]] = {}
    if not is_local(path):
        for image in list_images(path):
            top, _, name = image.partition("/")
            if name:
                by_class.setdefault(top, []).append((name, str(path / top)))

        def read(where: Where) -> bytes:
            folder = path if where[1] == str(path) else path / Path(where[1]).name
            return (folder / where[0]).read_bytes()

        return by_class, read
    others: collections.Counter[str] = collections.Counter()
    with os.scandir(path) as entries:
        for folder in entries:
            if _is_broken_link(folder):
                raise ValueError(f"{folder.path} is a link to something that does not exist")
            if folder.is_dir() and not folder.name.startswith("."):
                names = list_images(folder.path, others)
                by_class[folder.name] = [(name, folder.path) for name in names]
    if others:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(others.items()))
        note_once(f"{path} has files that are left out ({kinds}); convert them to JPEG or PNG")
    return by_class, lambda where: read_file(Path(where[1], where[0]))


@contextlib.contextmanager
def open_tar(path: Path) -> Iterator[tarfile.TarFile]:
    """Opens a tar file without compression. Raises ValueError if it is none, or damaged."""
    size = path.stat().st_size
    if size and any(read_at(path, max(size - tarfile.BLOCKSIZE, 0), tarfile.BLOCKSIZE)):
        raise ValueError(f"{path} is not a tar file, or truncated: its end is not marked")
    try:
        with tarfile.open(path, "r:") as tar:
            yield tar
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{path} is not a tar file, or damaged: {error}") from error


def list_tar(path: Path) -> list[tuple[str, tuple[int, int] | None]]:
    """Lists a tar file: the names and (offset, size) of its files, and those of directories, None.

    A link to a file is listed as that file.

    Args:
      path: of the file, without compression.

    Raises:
      ValueError: it is not a tar file, it is damaged, or an image is a link to a file that it does
        not contain.
    """
    members: list[tuple[str, tuple[int, int] | None]] = []
    links: dict[str, str] = {}
    end = path.stat().st_size
    with open_tar(path) as tar:
        for member in tar:
            name = member.name.removeprefix("./").rstrip("/")
            if member.isfile():
                if member.size < 0 or member.offset_data + member.size > end:
                    raise ValueError(f"{path} is truncated or damaged: {name!r} needs more bytes")
                members.append((name, (member.offset_data, member.size)))
            elif member.isdir() and name not in ("", "."):
                members.append((name, None))
            elif member.islnk() or member.issym():
                folder = posixpath.dirname(name) if member.issym() else ""
                links[name] = posixpath.normpath(posixpath.join(folder, member.linkname))
    files = {name: where for name, where in members if where}
    for name, target in links.items():
        passed = {name}
        while target in links and target not in passed:
            passed.add(target)
            target = links[target]
        if target in files:
            members.append((name, files[target]))
        elif is_image(name):
            raise ValueError(f"{path}: {name!r} is a link to {links[name]!r}, which is not in it")
    return members


def _tar(path: Path, part: str):
    """({class: [(relative name, offset, size)]}, function that reads an entry) of a tar file."""
    members = list_tar(path)
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

    def read(where: Where) -> bytes:
        check_bytes(where[2])
        return read_at(path, *where[1:])

    return by_class, read
