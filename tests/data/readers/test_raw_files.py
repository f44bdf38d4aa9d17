"""The official files of CIFAR and MNIST, whole and damaged, in all their layouts."""

import dataclasses
import gzip
import hashlib
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from jaxcnn.data import catalog
from jaxcnn.data.readers.cifar import LAYOUTS, open_cifar
from jaxcnn.data.readers.mnist import read_idx
from jaxcnn.data.readers.unpickling import read_pickle

REAL = Path(__file__).parents[3].parent / "shared" / "data"
real = pytest.mark.skipif(not REAL.is_dir(), reason="the real image sets are not at hand")

# The official layouts with few examples in a file.
SMALL = {
    "cifar10": dataclasses.replace(LAYOUTS["cifar10"], examples={"train": 4, "test": 3}),
    "cifar100": dataclasses.replace(LAYOUTS["cifar100"], examples={"train": 9, "test": 5}),
}
FORMS = ("binary", "python")


def draw(name):
    """{part: (images u8[N,32,32,3], labels)}."""
    layout, rng = SMALL[name], np.random.default_rng(len(name))
    parts = {}
    for part, files in layout.python.files.items():
        size = len(files) * layout.examples[part]
        images = rng.integers(0, 256, (size, 32, 32, 3), np.uint8)
        parts[part] = images, rng.integers(0, layout.num_classes, size)
    return parts


def write(name, form, root, *, protocol=2):
    """Writes `draw(name)` as the archive unpacks; its folder."""
    layout = SMALL[name]
    archive = getattr(layout, form)
    folder = root / archive.folder
    folder.mkdir(parents=True)
    for part, (images, labels) in draw(name).items():
        size = layout.examples[part]
        rows = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)
        for i, file in enumerate(archive.files[part]):
            here = slice(i * size, (i + 1) * size)
            if form == "binary":
                coarse = np.full((size, layout.label_bytes - 1), 77, np.uint8)
                table = [coarse, labels[here, None].astype(np.uint8), rows[here]]
                np.concatenate(table, axis=1).tofile(folder / file)
            else:
                content = {b"data": rows[here], layout.keys[0]: labels[here].tolist()}
                (folder / file).write_bytes(pickle.dumps(content, protocol))
    names = [f"class{k}" for k in range(layout.num_classes)]
    if form == "binary":
        (folder / archive.names).write_text("\n".join(names) + "\n\n")
    else:
        content = {layout.keys[1]: [n.encode() for n in names]}
        (folder / archive.names).write_bytes(pickle.dumps(content, protocol))
    return folder


def read_all(source, part):
    return source.read(part, 0, source.sizes[part])


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SMALL)
def test_cifar(tmp_path, name, form, protocol):
    folder = write(name, form, tmp_path, protocol=protocol)
    for place in (tmp_path, folder):
        source = open_cifar(SMALL[name], place)
        assert source.class_names[-1] == f"class{SMALL[name].num_classes - 1}"
        for part, (images, labels) in draw(name).items():
            got = read_all(source, part)
            assert np.array_equal(got[0], images) and got[0].dtype == np.uint8
            assert np.array_equal(got[1], labels) and got[1].dtype == np.int32
    images, labels = draw(name)["train"]
    got = source.read("train", 3, 9)
    assert np.array_equal(got[0], images[3:9]) and np.array_equal(got[1], labels[3:9])


@pytest.mark.parametrize("form", FORMS)
def test_names_may_be_left_out(tmp_path, form):
    folder = write("cifar10", form, tmp_path)
    (folder / getattr(SMALL["cifar10"], form).names).unlink()
    assert open_cifar(SMALL["cifar10"], tmp_path).class_names == tuple("0123456789")


@pytest.mark.parametrize("form", FORMS)
def test_a_missing_file_is_named(tmp_path, form):
    folder = write("cifar10", form, tmp_path)
    file = getattr(SMALL["cifar10"], form).files["train"][3]
    (folder / file).unlink()
    with pytest.raises(FileNotFoundError, match=f"{folder / file} is missing"):
        open_cifar(SMALL["cifar10"], tmp_path)
    with pytest.raises(FileNotFoundError, match="neither cifar-100-binary nor cifar-100-python"):
        catalog.load("files:cifar100", "train", data_dir=tmp_path)


def test_a_wrong_size_is_named_with_the_right_one(tmp_path):
    folder = write("cifar100", "binary", tmp_path)
    for size in (0, 100, 5 * 3074 + 1):
        (folder / "test.bin").write_bytes(bytes(size))
        with pytest.raises(ValueError, match=rf"test\.bin has {size} bytes; 15370 expected"):
            open_cifar(SMALL["cifar100"], tmp_path)
    with pytest.raises(ValueError, match=r"train\.bin has 27666 bytes; 153700000 expected"):
        catalog.load("files:cifar100", "train", data_dir=tmp_path)


@pytest.mark.parametrize("form", FORMS)
def test_a_label_out_of_range_is_named(tmp_path, form):
    folder = write("cifar10", form, tmp_path)
    if form == "binary":
        path = folder / "data_batch_2.bin"
        content = bytearray(path.read_bytes())
        content[2 * 3073] = 10
        path.write_bytes(content)
    else:
        path = folder / "data_batch_2"
        content = read_pickle(path)
        content[b"labels"][2] = 10
        path.write_bytes(pickle.dumps(content, 2))
    source = open_cifar(SMALL["cifar10"], tmp_path)
    with pytest.raises(ValueError, match=f"label 10 of example 2 in {path} is out of range"):
        read_all(source, "train")
    read_all(source, "test")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({b"data": np.zeros((4, 3072), np.uint8)}, "no entries 'data' and 'labels'"),
        ([1, 2], "no entries 'data' and 'labels'"),
        (
            {b"data": np.zeros((3, 3072), np.uint8), b"labels": [0] * 3},
            r"uint8\[3, 3072\] and 3 lab",
        ),
        ({b"data": np.zeros((4, 3072)), b"labels": [0] * 4}, r"float64\[4, 3072\] .* expected"),
        (
            {b"data": np.zeros((4, 3072), np.uint8), b"labels": [0] * 5},
            "and 5 labels; .* and 4 exp",
        ),
    ],
)
def test_a_batch_of_something_else_is_named(tmp_path, content, message):
    path = write("cifar10", "python", tmp_path) / "data_batch_1"
    path.write_bytes(pickle.dumps(content, 2))
    with pytest.raises(ValueError, match=f"{path} has .*{message}"):
        read_all(open_cifar(SMALL["cifar10"], tmp_path), "train")


@pytest.mark.parametrize("keep", [0, 1, 60, 5000])
def test_a_truncated_pickle_is_named(tmp_path, keep):
    path = write("cifar10", "python", tmp_path) / "test_batch"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=rf"{path} \({keep} bytes\) is truncated or not a pickle"):
        read_all(open_cifar(SMALL["cifar10"], tmp_path), "test")


class Planted:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.mkdir, ("planted",), r"posix\.mkdir|nt\.mkdir"),
        (eval, ("__import__('os').mkdir('planted')",), r"(__builtin__|builtins)\.eval"),
        (np.load, ("planted.npy",), r"numpy\.(lib\..*)?load"),
        (str.encode, ("x",), r"getattr|str\.encode"),
    ],
)
def test_no_code_in_a_pickle_is_run(tmp_path, monkeypatch, protocol, function, arguments, name):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps({b"data": Planted(function, *arguments)}, protocol))
    with pytest.raises(ValueError, match=rf"batch .* plain data: it needs .*({name})"):
        read_pickle(path)
    assert not Path("planted").exists()


def test_no_array_of_a_pickle_has_forged_pointers(tmp_path):
    """`np.ndarray(shape, "O", buffer)` would take bytes for the addresses of objects."""
    array = b"cnumpy\nndarray\n(K\x01\x85cnumpy\ndtype\n(U\x01OtRU\x08AAAAAAAAtR"
    path = tmp_path / "batch"
    path.write_bytes(b"\x80\x02}(U\x04data" + array + b"u.")
    with pytest.raises(ValueError, match="not a pickle of plain data"):
        read_pickle(path)


def test_a_pickle_of_python_2(tmp_path):
    """Written by hand after the official files: strings are opcode U or T and come as bytes."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02K\x03\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T\x06\x00\x00\x00abcd\xfe\xfftb"
    )
    path = tmp_path / "batch"
    path.write_bytes(b"\x80\x02}(U\x04data" + array + b"U\x06labels](K\x03K\x07eu.")
    content = read_pickle(path)
    assert content[b"labels"] == [3, 7]
    assert content[b"data"].tolist() == [[97, 98, 99], [100, 254, 255]]
    assert content[b"data"].dtype == np.uint8


def write_idx(path, array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    content = header + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_mnist(folder, end="", dot="-"):
    folder.mkdir(parents=True, exist_ok=True)
    parts = {}
    for part, stem, size in (("train", "train", 12), ("test", "t10k", 5)):
        rng = np.random.default_rng(size)
        images = rng.integers(0, 256, (size, 28, 28), np.uint8)
        parts[part] = images, rng.integers(0, 10, size).astype(np.uint8)
        for kind, array in zip((f"images{dot}idx3", f"labels{dot}idx1"), parts[part]):
            write_idx(folder / f"{stem}-{kind}-ubyte{end}", array)
    return parts


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize(
    ("name", "below", "dot"),
    [
        ("mnist", ".", "-"),
        ("mnist", "mnist", "."),
        ("fashion_mnist", "FashionMNIST/raw", "-"),
        ("fashion_mnist", "fashion_mnist", "-"),
    ],
)
def test_mnist(tmp_path, name, below, dot, end):
    parts = write_mnist(tmp_path / below, end, dot)
    for part, (images, labels) in parts.items():
        dataset = catalog.load(f"files:{name}", part, data_dir=tmp_path)
        assert np.array_equal(dataset.images, images[..., None])
        assert np.array_equal(dataset.labels, labels) and dataset.labels.dtype == np.int32
    assert dataset.class_names[9] == {"mnist": "9", "fashion_mnist": "Ankle boot"}[name]
    part = catalog.load(f"files:{name}", "train[50%:]", data_dir=tmp_path)
    assert np.array_equal(part.labels, parts["train"][1][6:])


def test_missing_idx_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train-images-idx3-ubyte.* is in none of .*/raw"):
        catalog.load("files:mnist", "train", data_dir=tmp_path)
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="t10k-labels-idx1-ubyte is missing, also as"):
        catalog.load("files:mnist", "train", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b[:-1], r"has 9423 bytes; 9424 expected"),
        (lambda b: b + b"x", r"has 9425 bytes; 9424 expected"),
        (lambda b: b[:10], r"begins with bytes 00 00 08 03, not those of an idx file of rank 3"),
        (lambda b: b"<htm" + b[4:], r"begins with bytes 3c 68 74 6d, not those"),
        (lambda b: b"", r"begins with bytes , not those"),
    ],
)
def test_damaged_idx_files_are_named(tmp_path, change, message):
    write_mnist(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=f"{path} {message}"):
        catalog.load("files:mnist", "train", data_dir=tmp_path)


def test_damaged_gzip_files_are_named(tmp_path):
    write_mnist(tmp_path, ".gz")
    path = tmp_path / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=rf"{path} \({len(whole) - 100} bytes\) is truncated"):
        catalog.load("files:mnist", "train", data_dir=tmp_path)
    path.write_bytes(b"<html>" + whole)
    with pytest.raises(ValueError, match=f"{path} .* is truncated or damaged: Not a gzipped"):
        catalog.load("files:mnist", "train", data_dir=tmp_path)
    write_idx(path, np.zeros((12, 28, 27), np.uint8))
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[:-5]))
    with pytest.raises(ValueError, match=rf"{path} has 9083 bytes unpacked; 9088 expected"):
        read_idx(path, 3)


def test_images_and_labels_must_be_as_many_and_labels_in_range(tmp_path):
    write_mnist(tmp_path)
    path = tmp_path / "train-labels-idx1-ubyte"
    write_idx(path, np.zeros(11, np.uint8))
    with pytest.raises(ValueError, match=r"has 12 images, .* 11 labels"):
        catalog.load("files:mnist", "train", data_dir=tmp_path)
    write_idx(path, np.array([*range(10), 10, 0], np.uint8))
    with pytest.raises(ValueError, match=f"label 10 of example 10 in {path} is out of range"):
        catalog.load("files:mnist", "train", data_dir=tmp_path)


@real
@pytest.mark.parametrize(
    ("split", "size", "expected"),
    [
        ("train", 60000, "edc0d1098aa497be14ace79ddd5171e5a3dcf9c4d196c015389203eb3ba1f59b"),
        ("test", 10000, "c3f9adf9c66efb572b1f9326c3a511b45910c7173b97be66ceceeeeaef6b802b"),
    ],
)
def test_the_real_mnist(split, size, expected):
    """SHA-256 of images and labels."""
    dataset = catalog.load("files:mnist", split, data_dir=REAL)
    assert dataset.images.shape == (size, 28, 28, 1)
    content = dataset.images.tobytes() + dataset.labels.astype(np.uint8).tobytes()
    assert hashlib.sha256(content).hexdigest() == expected
    if split == "train":
        np.testing.assert_allclose(dataset.mean[0], np.mean(dataset.images / 255), atol=1e-4)
        np.testing.assert_allclose(dataset.std[0], np.std(dataset.images / 255), atol=1e-4)
