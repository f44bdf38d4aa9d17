"""Sets by name, their splits, and what is said about names and splits that there are not."""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import photos
import pytest
from other_formats import write_tars

from jaxcnn.data import catalog
from jaxcnn.data.readers import digits
from jaxcnn.data.sets import channel_statistics, check_labels
from jaxcnn.data.splits import parse_split

# SHA-256 of images and labels: a figure measured on other digits would not compare.
DIGITS = {
    "train": "e67cad60a33f45087e89e2142df1f88692379e3f0fe4b4968b439fc685af055d",
    "test": "71a239adf9170afc9ada5e3d441e352cb2d0dbe996a59189c6b1d3354b0ddd47",
}


def digest(dataset):
    content = np.ascontiguousarray(dataset.images).tobytes() + dataset.labels.tobytes()
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("name", ["digits", "synthetic"])
def test_what_a_set_is(name):
    train, test, both = (catalog.load(name, split) for split in ("train", "test", "all"))
    for dataset in (train, test, both):
        assert dataset.images.dtype == np.uint8 and dataset.labels.dtype == np.int32
        assert dataset.images.shape[:1] == dataset.labels.shape == (len(dataset),)
        assert dataset.num_classes == len(dataset.class_names) == 10
        assert np.array_equal(np.unique(dataset.labels), np.arange(10))
        assert (dataset.mean, dataset.std) == (train.mean, train.std)
    assert np.array_equal(both.images, np.concatenate([train.images, test.images]))
    assert np.array_equal(both.labels, np.concatenate([train.labels, test.labels]))
    pixels = train.images.reshape(-1, train.images.shape[-1]) / 255
    np.testing.assert_allclose(train.mean, pixels.mean(0), rtol=1e-9)
    np.testing.assert_allclose(train.std, pixels.std(0), rtol=1e-9)


def test_digits_are_scikit_learns_each_once():
    """Every fourth pixel's neighborhood averages to the scan, and no digit is in both splits."""
    from sklearn.datasets import load_digits

    whole = catalog.load("digits", "all")
    assert len(whole) == 1797
    scans, labels = load_digits(return_X_y=True)
    key = [image.tobytes() for image in whole.images]
    images, _ = digits._scans()
    order = {image.tobytes(): i for i, image in enumerate(images)}
    assert len(order) == 1797
    rows = np.array([order[k] for k in key])
    assert np.array_equal(np.sort(rows), np.arange(1797))
    assert np.array_equal(whole.labels, labels[rows])
    # A linear interpolation at the four middle pixels of a cell surrounds the cell's own value.
    cells = whole.images[..., 0].reshape(-1, 8, 4, 8, 4)[:, :, 1:3, :, 1:3].mean((2, 4)) / (
        255 / 16
    )
    wanted = scans[rows].reshape(-1, 8, 8)
    assert np.corrcoef(cells.ravel(), wanted.ravel())[0, 1] > 0.99
    assert whole.images.max() == 255 and whole.images.min() == 0


def test_digits_are_read_without_importing_scikit_learn_and_the_same_with_it(monkeypatch):
    found = subprocess.run(
        [sys.executable, "-c", "import sys\nfrom jaxcnn.data.readers import digits\n"
         "digits._table()\nprint('sklearn' in sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout == "False\n"
    table = digits._table()
    monkeypatch.setattr(digits, "_FILE", "moved.csv.gz")
    assert np.array_equal(digits._table(), table)


def test_interpolation_against_pillow():
    """Pillow's bilinear resize of the same 8x8 scans; it rounds once for each axis."""
    from PIL import Image
    from sklearn.datasets import load_digits

    scans = np.rint(load_digits().images[:20] * (255 / 16)).astype(np.uint8)
    images, _ = digits._scans()
    for scan, image in zip(scans, images):
        other = Image.fromarray(scan).resize((32, 32), Image.Resampling.BILINEAR)
        assert np.abs(np.asarray(other).astype(int) - image[..., 0]).max() <= 1


def test_the_held_out_digits_never_change():
    train, test = catalog.load("digits", "train"), catalog.load("digits", "test")
    assert (len(train), len(test)) == (1437, 360)
    assert digest(train) == DIGITS["train"]
    assert digest(test) == DIGITS["test"]


def test_synthetic_images_are_always_the_same_and_can_be_learned():
    train, test = catalog.load("synthetic", "train"), catalog.load("synthetic", "test")
    assert (train.images.shape, test.images.shape) == ((2048, 32, 32, 3), (512, 32, 32, 3))
    again = catalog.load("synthetic", "train")
    assert digest(train) == digest(again) != digest(test)
    # The size of the two-dimensional spectrum does not see the phase: nearest class mean.
    spectra = [np.abs(np.fft.fft2(d.images - 128.0, axes=(1, 2))) for d in (train, test)]
    means = np.stack([spectra[0][train.labels == k].mean(0) for k in range(10)])
    distance = [((s - means) ** 2).sum((1, 2, 3)) for s in spectra[1]]
    assert np.mean(np.argmin(distance, 1) == test.labels) > 0.99


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("train", ("train", 0, 50000)),
        ("test", ("test", 0, 101)),
        ("train[:45000]", ("train", 0, 45000)),
        ("train[45000:]", ("train", 45000, 50000)),
        ("train[-5000:]", ("train", 45000, 50000)),
        ("train[:-10%]", ("train", 0, 45000)),
        ("train[10%:20%]", ("train", 5000, 10000)),
        ("train[:]", ("train", 0, 50000)),
        ("test[:33%]", ("test", 0, 33)),
        ("test[33%:]", ("test", 33, 101)),
        ("test[99%:]", ("test", 100, 101)),
    ],
)
def test_splits(split, expected):
    assert parse_split(split, {"train": 50000, "test": 101}) == expected


def test_percentages_part_a_set():
    for size in (1, 7, 360, 1437):
        sizes = {"train": size}
        bounds = [0]
        for a, b in [(0, 10), (10, 55), (55, 100)]:
            try:
                _, start, stop = parse_split(f"train[{a}%:{b}%]", sizes)
            except ValueError:
                continue  # nothing falls between
            assert start == bounds[-1]
            bounds.append(stop)
        assert bounds[-1] == size


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("trian", r"unknown split 'trian'; did you mean 'train'\?"),
        ("train[:60000]", r"'train\[:60000\]' is examples 0 to 60000 of 50000"),
        ("train[5:5]", "is examples 5 to 5 of"),
        ("train[9:3]", "is examples 9 to 3 of"),
        ("train[-60000:]", "is examples -10000 to 50000 of"),
        ("train[0.5:]", "is not understood"),
        ("train[:10", "is not understood"),
        ("train+test", "is not understood"),
        ("", "is not understood"),
    ],
)
def test_splits_that_there_are_not(split, message):
    with pytest.raises(ValueError, match=message):
        parse_split(split, {"train": 50000, "test": 101})


def test_a_slice_is_that_part_of_the_split():
    whole = catalog.load("digits", "train")
    for split, rows in {
        "train[100:200]": slice(100, 200),
        "train[90%:]": slice(1293, None),
    }.items():
        part = catalog.load("digits", split)
        assert np.array_equal(part.images, whole.images[rows])
        assert np.array_equal(part.labels, whole.labels[rows])
        assert part.mean == whole.mean
    both = catalog.load("digits", "all[1400:1500]")
    assert np.array_equal(both.labels, catalog.load("digits", "all").labels[1400:1500])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digit", r"unknown data source 'digit'; did you mean 'digits'\?"),
        ("cifar10", "'tfds:cifar10'|'files:cifar10'"),
        ("files:cifar", r"did you mean 'files:cifar10'"),
        ("files:svhn_cropped", "unknown data source"),
        ("tfds:", "unknown data source"),
        ("", "unknown data source"),
        ("files:cifar10", "'files:cifar10' needs data_dir"),
        ("folder:photos", "'folder:photos' has image files"),
    ],
)
def test_sets_that_there_are_not(name, message):
    with pytest.raises(ValueError, match=message):
        catalog.load(name, "train")


def test_a_folder_is_named_with_its_kind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    with pytest.raises(ValueError, match="'photos'; a folder of images is folder:photos"):
        catalog.load("photos", "train")


def test_the_split_error_names_the_set():
    with pytest.raises(ValueError, match=r"unknown split 'validation'.*\('digits'\)"):
        catalog.load("digits", "validation")


@pytest.mark.parametrize("label", [-1, 10])
def test_labels_are_checked(label):
    with pytest.raises(ValueError, match=rf"label {label} of example 2 in here .* 0 to 9"):
        check_labels(np.array([0, 9, label, 77]), 10, "here")


def test_a_small_set_without_training_images(tmp_path):
    root = photos.write_folder(
        tmp_path / "set", {p: {"ant": 2, "bee": 2} for p in ("train", "val")}, 32, 32
    )
    write_tars(root, tmp_path / "all", lambda name, n: ("cls", str(n).encode()))
    (tmp_path / "test").mkdir()
    for tar in (tmp_path / "all").glob("*train*.tar"):
        tar.rename(tmp_path / "test" / tar.name.replace("train", "test"))
    loaded = catalog.load(f"wds:{tmp_path / 'test'}", "test")
    assert len(loaded.images) == 4
    assert (loaded.mean, loaded.std) == channel_statistics(loaded.images)


def test_statistics_of_channels():
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), np.uint8)
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, (images / 255).mean((0, 1, 2)))
    np.testing.assert_allclose(std, (images / 255).std((0, 1, 2)))
    images[..., 1] = 255  # as an opaque alpha channel
    mean, std = channel_statistics(images)
    assert (mean[1], std[1]) == (1, 1)


def test_importing_is_light():
    """Neither scikit-learn nor TFDS, array_record, TensorFlow come with the package."""
    code = (
        "import json, sys, jaxcnn, jaxcnn.data\n"
        "from jaxcnn.data import catalog\nfrom jaxcnn.data.augment import pipeline\n"
        "from jaxcnn.data.loader import resident\n"
        "catalog.load('synthetic', 'test')\n"
        "heavy = ('sklearn', 'tensorflow_datasets', 'tensorflow', 'array_record', 'PIL')\n"
        "print(json.dumps([m for m in heavy if m in sys.modules]))\n"
    )
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert json.loads(out.stdout) == []


def test_synthetic_images_of_another_size():
    images = catalog.load("synthetic:48", "train").images
    assert images.shape == (64, 48, 48, 3) and images.dtype == np.uint8
    assert len(catalog.load("synthetic:48", "test").labels) == 32
    for name in ("synthetic:0", "synthetic:large"):
        with pytest.raises(ValueError, match="it must be like 'synthetic:224'"):
            catalog.load(name, "train")
