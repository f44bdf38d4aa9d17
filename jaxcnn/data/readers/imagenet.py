"""ImageNet in the layouts in which it is distributed, without moving a file.

    ILSVRC/Data/CLS-LOC/train/n01440764/*.JPEG    Kaggle's, which also has the boxes in
    ILSVRC/Data/CLS-LOC/val/*.JPEG                ILSVRC/Annotations/CLS-LOC. The classes are in
    LOC_synset_mapping.txt, LOC_val_solution.csv  these two files.

    train/n01440764/*.JPEG, val/*.JPEG            that of image-net.org; the labels of `val` are in
    ILSVRC2012_devkit_t12/data/                   ILSVRC2012_validation_ground_truth.txt, and the
                                                  classes in meta.mat

`val` can also have a folder for each class. The path is that of any of these folders that contains
the others. ImageNet-A, -R, -Sketch and similar test sets are folders named by WordNet ids, and
those of ImageNet-V2 are numbered from 0 to 999; they become the split "test". Their classes can be
a part of those of a network, which is then evaluated on these alone.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from jaxcnn._checks import one_line
from jaxcnn._files import is_local
from jaxcnn.data.imagenet_names import wordnet_ids
from jaxcnn.data.readers import folders
from jaxcnn.data.readers.annotations import find_boxes, find_voc
from jaxcnn.data.sets import FileShard

SIZES = {"train": 1_281_167, "val": 50_000}  # of the 1000 classes
_TRAIN = ("train", "ILSVRC2012_img_train")
_VAL = ("val", "ILSVRC2012_img_val")
_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_SOLUTION, _CLASSES = "LOC_val_solution.csv", "LOC_synset_mapping.txt"


def wordnet_id(class_name: str) -> str | None:
    """Returns the WordNet id that a class name begins with, if any.

    Args:
      class_name: such as "n01440764 tench".
    """
    found = folders.WORDNET.match(class_name)
    return found[0] if found and class_name[found.end() :][:1] in ("", " ", ",") else None


def open_imagenet(path: Path) -> tuple[tuple[str, ...], dict[str, FileShard]]:
    """Opens ImageNet or one of its test sets.

    Args:
      path: the folder.

    Returns:
      (WordNet ids, {"train" and "val", or "test": examples}), with the examples sorted by class and
      name.

    Raises:
      FileNotFoundError: the folder or a file of labels does not exist.
      ValueError: the folder has another layout, or the number of images is wrong.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path}")
    base = _first(path, ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC")) or path
    train, val = (_first(base, names) for names in (_TRAIN, _VAL))
    if train is None and val is None:
        return _open_test_set(path)
    places = list(_places(path, base))
    listings = {}
    if train:
        listings["train"] = (train, *folders.list_classes(train))
    if val:
        listings["val"] = (val, *_list_val(val, places))
    classes, source = _classes(places)
    for part, (_, by_class, _) in listings.items():
        unlisted = sorted(set(by_class) - set(classes))
        if source and unlisted:
            raise ValueError(f"{path}: {part!r} has the class {unlisted[0]!r}, not in {source}")
    classes = classes or tuple(sorted(next(iter(listings.values()))[1]))
    find = next(
        (find_voc(f) for p in places if (f := p / "Annotations" / "CLS-LOC").is_dir()),
        find_boxes(base),
    )
    parts = {
        part: folders.make_part(folder.with_name(part), classes, find, by_class, read, _name)
        for part, (folder, by_class, read) in listings.items()
    }
    for part, size in SIZES.items() if classes == wordnet_ids() else ():
        if part in parts and (actual := parts[part].size) != size:
            raise ValueError(f"{path}: {part!r} has {actual:,} examples; it must have {size:,}")
    return classes, parts


def _name(_: str, where: folders.Where) -> str:
    return f"{where[1]}/{where[0]}"


def _first(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The first of some folders that exists."""
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _places(path: Path, base: Path) -> Iterator[Path]:
    """Folders that may have the files of labels and boxes: those given, and those around."""
    yield path
    yield from (base, *(p for p in base.parents[:3] if is_local(p) or len(p.parts) > 2))
    for folder in (path, *base.parents[:1], base):
        for name in ("ILSVRC2012_devkit_t12/data", "devkit/data", "data"):
            yield folder / name


def _find(places: list[Path], name: str) -> Path | None:
    return next((place / name for place in places if (place / name).is_file()), None)


def _classes(places: list[Path]) -> tuple[tuple[str, ...], Path | None]:
    """The WordNet ids of Kaggle's list or of the development kit, and that file; () without one."""
    if file := _find(places, _CLASSES):
        lines = file.read_text("utf-8-sig").splitlines()
        return tuple(sorted(line.split()[0] for line in lines if line.strip())), file
    if file := _find(places, "meta.mat"):
        return tuple(sorted(_read_meta(file).values())), file
    return (), None


def _list_val(
    val: Path, places: list[Path]
) -> tuple[dict[str, list[folders.Where]], Callable[[folders.Where], bytes]]:
    """Like `folders.list_classes`, of images that may lie flat in a folder."""
    by_class, read = folders.list_classes(val)
    if by_class:
        return by_class, read
    names = folders.list_images(val)
    if not names:
        raise FileNotFoundError(f"{val} has no images")
    solution, truth, meta = (_find(places, n) for n in (_SOLUTION, _TRUTH, "meta.mat"))
    if solution:
        labels = _read_solution(solution)
        unknown = [name for name in names if Path(name).stem not in labels]
        if unknown:
            raise ValueError(f"{solution} has no label for {unknown[0]}")
        found = {name: labels[Path(name).stem] for name in names}
    elif truth and meta:
        found = dict(zip(names, _read_truth(truth, _read_meta(meta), len(names))))
    else:
        raise FileNotFoundError(
            f"{val} has no folders of classes, and neither {_SOLUTION} nor {_TRUTH} with meta.mat "
            f"is in {places[0]} or around"
        )
    for name, class_name in found.items():
        by_class.setdefault(class_name, []).append((name, str(val)))
    return by_class, read


def _read_solution(path: Path) -> dict[str, str]:
    """{name of the image: WordNet id} of Kaggle's LOC_val_solution.csv."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:  # Excel writes a mark first
            rows = list(csv.DictReader(file))
        return {row["ImageId"]: row["PredictionString"].split()[0] for row in rows}
    except (csv.Error, KeyError, IndexError, AttributeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} has no ImageId and PredictionString in each row: {one_line(error)}"
        ) from error


def _read_truth(path: Path, ids: Mapping[int, str], expected: int) -> list[str]:
    """The WordNet ids of all validation images, in order."""
    try:
        labels = [ids[int(line)] for line in path.read_text("utf-8").split()]
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path} has a line that is not a class of meta.mat: {error}") from error
    if len(labels) != expected:
        raise ValueError(f"{path} has {len(labels):,} labels for {expected:,} images")
    return labels


def _read_meta(path: Path) -> dict[int, str]:
    """{ILSVRC2012_ID: WordNet id} of the classes of the development kit, without their parents."""
    from scipy.io import loadmat

    try:
        synsets = loadmat(os.fspath(path), squeeze_me=True)["synsets"]
        leaves = [row for row in synsets if int(row["num_children"]) == 0]
        return {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in leaves}
    except Exception as error:  # scipy does not document its exceptions
        raise ValueError(f"{path} is not that of the development kit: {one_line(error)}") from error


def _open_test_set(path: Path) -> tuple[tuple[str, ...], dict[str, FileShard]]:
    by_class, read = folders.list_classes(path)
    if by_class and all(name.isdecimal() and int(name) < 1000 for name in by_class):
        by_class = {wordnet_ids()[int(name)]: files for name, files in by_class.items()}
    other = sorted(name for name in by_class if not folders.WORDNET.fullmatch(name))
    if other or not by_class:
        has = ", ".join(other[:8]) or "none"
        raise ValueError(
            f"{path} has neither 'train' nor 'val', and its folders are not named by WordNet ids "
            f"such as n01440764: it has {has}"
        )
    classes = tuple(sorted(by_class))
    return classes, {"test": folders.make_part(path, classes, None, by_class, read, _name)}
