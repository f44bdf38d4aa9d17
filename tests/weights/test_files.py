"""Weights in files: what is written is read, and what is damaged or dangerous is refused."""

import importlib.util
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from jaxcnn.weights import files

ARRAYS = {
    "matrix": np.arange(12, dtype=np.float32).reshape(3, 4).T,  # not contiguous
    "params/a/kernel": np.random.default_rng(0).random((2, 3, 4), np.float32),
    "counter": np.zeros((), np.int64),
}
METADATA = {"model": "lenet5_modern", "options": '{"act": "tanh"}'}
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed"
)


def same(read, arrays=ARRAYS):
    return set(read) == set(arrays) and all(
        read[k].dtype == v.dtype and read[k].shape == v.shape and np.array_equal(read[k], v)
        for k, v in arrays.items()
    )


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".NPZ"])
def test_what_is_written_is_read(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    files.write(path, ARRAYS, METADATA)
    arrays, metadata = files.read(path)
    assert same(arrays) and METADATA.items() <= metadata.items()
    files.write(path, ARRAYS)
    arrays, metadata = files.read(path)
    assert same(arrays) and metadata == {}
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@needs_torch
def test_pth_is_read_and_written_by_the_safe_loader(tmp_path):
    import torch

    path = tmp_path / "weights.pth"
    files.write(path, ARRAYS)
    assert same(files.read(path)[0])
    torch.save({"state_dict": {"a": torch.ones(2, dtype=torch.bfloat16)}, "epoch": 3}, path)
    assert same(files.read(path)[0], {"a": np.ones(2, ml_dtypes.bfloat16)})
    files.write(path, files.read(path)[0])
    assert same(files.read(path)[0], {"a": np.ones(2, ml_dtypes.bfloat16)})
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(ValueError, match=r"no mapping of names to tensors; it is a torch\.nn\.mod"):
        files.read(path)
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    assert same(files.read(path)[0], {"a": np.ones(2, np.float32)})


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is installed")
def test_pth_without_torch_says_what_to_do(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"\x80\x02")  # of a pickle, as before PyTorch 1.6
    for act in (lambda: files.read(path), lambda: files.write(path, ARRAYS)):
        with pytest.raises(
            ValueError, match=f"^{path} needs torch, which is not installed.*jaxcnn convert"
        ):
            act()
    assert path.read_bytes() == b"\x80\x02"


def test_bfloat16_is_read(tmp_path):
    path = tmp_path / "half.safetensors"
    safetensors.numpy.save_file({"a": np.ones(3, ml_dtypes.bfloat16)}, path)
    assert np.array_equal(files.read(path)[0]["a"].astype(np.float32), np.ones(3, np.float32))


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
@pytest.mark.parametrize(
    "dtype", [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, np.float16]
)
def test_types_that_numpy_does_not_have_are_kept(tmp_path, suffix, dtype):
    path = tmp_path / f"weights{suffix}"
    written = {
        "a": np.linspace(-2, 2, 6).astype(dtype).reshape(2, 3),
        "b": np.array(0.5, dtype),
        "c": np.arange(3, dtype=np.float32),
    }
    for metadata in (METADATA, {}):
        files.write(path, written, metadata)
        arrays, found = files.read(path)
        assert same(arrays, written) and metadata.items() <= found.items()
        assert set(found) <= {*metadata, "format"}


def test_bytes_without_a_type_in_npz(tmp_path):
    """As NumPy writes them: of two bytes they are bfloat16, of one they may be several."""
    path = tmp_path / "weights.npz"
    np.savez(path, a=np.ones(3, ml_dtypes.bfloat16))
    assert same(files.read(path)[0], {"a": np.ones(3, ml_dtypes.bfloat16)})
    np.savez(path, a=np.ones(3, ml_dtypes.float8_e4m3fn))
    with pytest.raises(ValueError, match="'a' has values of 1 bytes, of an unknown type"):
        files.read(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_a_truncated_file_is_one_clear_error(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    files.write(path, ARRAYS, METADATA)
    whole = path.read_bytes()
    for size in (0, 5, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=f"weights{suffix}") as error:
            files.read(path)
        assert "\n" not in str(error.value)


def test_a_flipped_bit_in_npz_is_noticed(tmp_path):
    path = tmp_path / "weights.npz"
    files.write(path, ARRAYS)
    with zipfile.ZipFile(path) as file:
        info = file.getinfo("params/a/kernel.npy")
    content = bytearray(path.read_bytes())
    content[info.header_offset + info.file_size // 2 + 100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read as npz"):
        files.read(path)


def test_pickled_objects_are_refused(tmp_path):
    path = tmp_path / "weights.npz"
    np.savez(path, a=np.array([{}], object))
    with pytest.raises(ValueError, match="Object arrays cannot be loaded"):
        files.read(path)


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "weights.npz"
    files.write(path, ARRAYS)
    with pytest.raises(ValueError):
        files.write(path, {"a": np.array([{}], object)})
    assert same(files.read(path)[0])
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_paths_that_cannot_be(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.npz does not exist"):
        files.read(tmp_path / "none.npz")
    with pytest.raises(FileNotFoundError, match="there is no directory"):
        files.write(tmp_path / "none" / "x.npz", ARRAYS)
    for act in (files.read, lambda p: files.write(p, ARRAYS)):
        with pytest.raises(ValueError, match=r"ends in '.onnx'; weights are in .safetensors, .npz"):
            act(tmp_path / "weights.onnx")


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_files_have_the_permissions_of_any_new_file(tmp_path, suffix):
    (tmp_path / "usual").touch()
    path = tmp_path / f"w{suffix}"
    files.write(path, {"a": np.ones(2, np.float32)})
    assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode
