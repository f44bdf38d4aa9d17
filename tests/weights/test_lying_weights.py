"""Files of weights that say what is not so: one line that names the file."""

import io
import json
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from torch_like import state_dict

from jaxcnn import weights
from jaxcnn.weights import files, loading


def npy(shape, dtype="<f4", content=b""):
    """An array's file that claims a shape."""
    out = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(out, header)
    return out.getvalue() + content


def write_npz(path, entries, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return path


def refused(path, *words):
    with pytest.raises(ValueError) as error:
        files.read(path)
    text = str(error.value)
    assert text.startswith(str(path)) and "\n" not in text and len(text) < 400
    assert all(word in text for word in words), text


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("shape", [(10**6, 10**6), (2**40,), (3, 2**62), (7,)])
def test_an_array_larger_than_its_file_takes_no_memory(tmp_path, shape, compression):
    path = write_npz(tmp_path / "a.npz", {"a.npy": npy(shape, content=b"12345678")}, compression)
    refused(path, "a.npy declares float32[")


def test_a_size_that_the_zip_itself_claims(tmp_path):
    """The directory of the zip says 16 TB as well, of which the file has 8 bytes."""
    content = npy((10**6, 10**6), content=b"12345678")
    path = write_npz(tmp_path / "a.npz", {"a.npy": content})
    with zipfile.ZipFile(path, "a") as file:
        entry = file.getinfo("a.npy")
        entry.file_size = entry.compress_size = len(content) - 8 + 4 * 10**12
        file._didModify = True
    refused(path)


@pytest.mark.parametrize(
    "entries",
    [
        {"a.npy": b""},
        {"a.npy": b"\x93NUMPY\x09\x00" + bytes(100)},
        {"a.npy": npy((1,), "|O", b"1234")},
        {"a": b"text"},
        {"a.npy": npy((1,), content=b"1234"), "__metadata__.npy": npy((1,), content=b"1234")},
    ],
)
def test_entries_that_are_no_arrays(tmp_path, entries):
    refused(write_npz(tmp_path / "a.npz", entries), "cannot be read as npz")


@pytest.mark.parametrize("text", ["[]", "3", '{"model": 3}', "{", "[" * 100_000])
@pytest.mark.parametrize("name", [files._METADATA, files._DTYPES])
def test_what_an_npz_says_of_itself_is_checked(tmp_path, name, text):
    path = tmp_path / "a.npz"
    np.savez(path, a=np.ones(2, np.float32), **{name: np.array(text)})
    refused(path, "cannot be read as npz")


def test_a_type_of_another_width(tmp_path):
    path = tmp_path / "a.npz"
    types = np.array(json.dumps({"a": "bfloat16"}))
    np.savez(path, a=np.ones(2, np.float32), **{files._DTYPES: types})
    refused(path, "'a' is float32, but its metadata declare bfloat16")


def test_compressed_arrays_are_read(tmp_path):
    """Zeros are packed as densely as anything can be."""
    path, zeros = tmp_path / "a.npz", np.zeros((1000, 1000), np.float32)
    np.savez_compressed(path, a=zeros, b=np.zeros((0, 3)), c=np.float32(2))
    arrays, _ = files.read(path)
    assert np.array_equal(arrays["a"], zeros) and arrays["b"].shape == (0, 3) and arrays["c"] == 2


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("options", "[]", "options is []"),
        ("options", "{'a': 1}", "options is \"{'a': 1}\""),
        ("class_names", '"ab"', "class_names is 'ab'"),
        ("preprocessing", "3", "preprocessing is 3"),
        ("preprocessing", '{"size": 32}', "a preprocessing must have size, crop"),
        ("preprocessing", json.dumps({"size": -1}), "a preprocessing must have"),
    ],
)
def test_metadata_of_another_type(tmp_path, suffix, name, text, words):
    path = tmp_path / f"weights{suffix}"
    about = {"jaxcnn": "0.2", "format": "jaxcnn", "model": "lenet5_modern", name: text}
    files.write(path, {"a": np.ones(2, np.float32)}, about)
    with pytest.raises(ValueError) as error:
        loading.open_weights(path)
    assert f"{path} has invalid metadata" in str(error.value)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", 1e9),
        ("size", True),
        ("crop", 1e-300),
        ("crop", float("nan")),
        ("interpolation", "none"),
        ("mean", []),
        ("mean", ["a"]),
        ("std", [0.0]),
        ("std", 1.0),
    ],
)
def test_a_preprocessing_that_cannot_be(tmp_path, field, value):
    path = tmp_path / "weights.npz"
    right = {"size": 32, "crop": 1.0, "interpolation": "bilinear", "mean": [0.5], "std": [0.5]}
    about = {"jaxcnn": "0.2", "format": "jaxcnn", "model": "lenet5_modern"}
    about["preprocessing"] = json.dumps(right | {field: value})
    files.write(path, {"a": np.ones(2, np.float32)}, about)
    with pytest.raises(ValueError, match=f"{path} .*a preprocessing has {field} "):
        loading.open_weights(path)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.float32(np.nan), "are not finite: params/fc3/bias holds nan in float32"),
        (np.float64(1e300), "are not finite: params/fc3/bias holds inf in float32"),
        (np.complex64(1 + 2j), "not of real numbers params/fc3/bias holds complex64"),
    ],
)
def test_values_that_are_no_weights(tmp_path, value, words):
    variables = weights.from_torch("lenet5", state_dict("lenet5"))
    weights.save(tmp_path / "a.npz", "lenet5", variables)
    arrays, metadata = files.read(tmp_path / "a.npz")
    arrays["params/fc3/bias"] = np.full(arrays["params/fc3/bias"].shape, value)
    files.write(tmp_path / "a.npz", arrays, metadata)
    with pytest.raises(ValueError) as error:
        loading.load_pretrained(tmp_path / "a.npz")
    assert words in " ".join(str(error.value).split())


def test_files_of_another_kind_are_called_that(tmp_path):
    """Neither NumPy's advice to allow pickles, nor ours to install PyTorch, helps with these."""
    torn = write_npz(tmp_path / "torn.npz", {"a.npy": npy((2,), content=b"12345678")})
    torn.write_bytes(torn.read_bytes()[:-9])
    (tmp_path / "text.npz").write_bytes(b"hello")
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    for name in ("torn.npz", "text.npz", "one.npz"):
        refused(tmp_path / name, "cannot be read as npz: it is not a complete zip file")
    for content in (b"", b"hello", torn.read_bytes()):
        (tmp_path / "a.pth").write_bytes(content)
        refused(tmp_path / "a.pth", f"it has {len(content):,} bytes, and is neither a complete zip")


@pytest.mark.parametrize("damage", ["length", "header", "offsets", "shape"])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_a_safetensors_header_that_lies(tmp_path, damage, dtype):
    path = tmp_path / "a.safetensors"
    safetensors.numpy.save_file({"a": np.ones((2, 3), dtype)}, path)
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = content[8 : 8 + length]
    if damage == "length":
        path.write_bytes(struct.pack("<Q", 2**60) + content[8:])
    else:
        old, new = {
            "header": (b'"a"', b"[[["),
            "offsets": (b'"data_offsets":[0,', b'"data_offsets":[9,'),
            "shape": (b'"shape":[2,3]', b'"shape":[9,9]'),
        }[damage]
        assert old in header
        path.write_bytes(content[:8] + header.replace(old, new) + content[8 + length :])
    refused(path, "is not a complete safetensors file")
