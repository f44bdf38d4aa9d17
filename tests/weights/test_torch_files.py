"""Checkpoints as PyTorch's users have them, read without PyTorch."""

import argparse
import collections
import logging
import pathlib
import pickle
import types
import zipfile

import ml_dtypes
import numpy as np
import pytest
import torch_like
import torch_zip

from jaxcnn.weights import files, loading, torch_files
from jaxcnn.weights.pretrained import default_preprocessing

NAME = "resnet20_cifar"
STATE = torch_like.state_dict(NAME)
ARGS = argparse.Namespace(lr=0.1, model="resnet20", output=pathlib.PurePosixPath("runs"))
OPTIMIZER = {"state": {0: {"momentum_buffer": np.ones(3, np.float32)}}, "param_groups": [{"lr": 1}]}


def prefixed(prefix):
    return {prefix + key: value for key, value in STATE.items()}


AVERAGE = {"n_averaged": np.array(3), **{k: v + 1 for k, v in prefixed("module.").items()}}


def cast(dtype):
    return {k: v.astype(dtype) if v.dtype == np.float32 else v for k, v in STATE.items()}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plain.pth", STATE),
        ("ordered.pt", collections.OrderedDict(STATE)),
        ("parallel.bin", prefixed("module.")),
        ("compiled.ckpt", prefixed("_orig_mod.")),
        ("both.pth", prefixed("module._orig_mod.")),
        ("UPPER.PTH", STATE),
        (
            "model_best.pth.tar",
            {
                **{"epoch": 3, "arch": "resnet20", "best_acc1": np.array(70.0, np.float32)},
                **{"state_dict": prefixed("module."), "optimizer": OPTIMIZER},
            },
        ),
        ("torchvision.pth", {"model": STATE, "optimizer": OPTIMIZER, "epoch": 3, "args": ARGS}),
        ("torchvision_ema.pth", {"model_ema": AVERAGE, "model": STATE}),
        ("timm.pth", {"state_dict": STATE, "state_dict_ema": AVERAGE, "args": ARGS}),
        ("scalars.pth", {"state_dict": STATE, "metric": np.float64(70.1), "n": np.int64(3)}),
        ("lightning.ckpt", {"state_dict": prefixed("model."), "hyper_parameters": {"a": ARGS}}),
        ("deep.pth", {"trainer": {"model": {"state_dict": STATE}}, "scheduler": {"a": 1}}),
        ("with_none.pth", {**STATE, "extra": None, "date": pathlib.PurePosixPath("x")}),
        ("double.pth", cast(np.float64)),
    ],
)
def test_weights_are_found_wherever_they_are(tmp_path, name, content):
    torch_zip.save(tmp_path / name, content)
    _, variables = loading.load_pretrained(tmp_path / name, model=NAME)
    wanted = loading.build(
        loading.Opened("", dict(STATE), "torch", NAME, {}, default_preprocessing(NAME), None)
    )[1]
    assert torch_like.equal(variables, wanted)


@pytest.mark.parametrize(
    "dtype", [np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn], ids=lambda t: t.__name__
)
def test_every_type_is_read(tmp_path, dtype):
    values = {"a": np.linspace(-2, 2, 12).reshape(3, 4).astype(dtype), "b": np.ones((), bool)}
    torch_zip.save(tmp_path / "x.pth", values)
    arrays, _ = files.read(tmp_path / "x.pth")
    assert arrays["a"].dtype == dtype and arrays["b"].dtype == bool
    np.testing.assert_array_equal(
        arrays["a"].astype(np.float32), values["a"].astype(np.float32), strict=True
    )


def test_strides_are_followed(tmp_path):
    """A transposed tensor, one in channels-last order, a row of a larger one, and an empty one."""
    random = np.random.default_rng(0)
    values = {
        "t": random.random((3, 4), np.float32).T,
        "c": random.random((2, 4, 5, 3), np.float32).transpose(0, 3, 1, 2),
        "e": np.zeros((0, 3), np.float32),
    }
    torch_zip.save(tmp_path / "x.pth", values)
    arrays, _ = files.read(tmp_path / "x.pth")
    for key, value in values.items():
        np.testing.assert_array_equal(arrays[key], value, strict=True)
    whole = random.random((5, 4), np.float32)
    torch_zip.save(tmp_path / "y.pth", {"a": whole[0]}, base=whole)
    np.testing.assert_array_equal(files.read(tmp_path / "y.pth")[0]["a"], whole[0])


def test_which_was_taken_is_said(tmp_path, caplog):
    torch_zip.save(tmp_path / "x.pth", {"model": STATE, "model_ema": AVERAGE})
    with caplog.at_level(logging.WARNING):
        files.read(tmp_path / "x.pth")
    assert "the weights are those of 'model'; it also holds 'model_ema'" in caplog.text
    torch_zip.save(tmp_path / "x.pth", {"model_ema": AVERAGE, "epoch": 3})
    caplog.clear()
    arrays, _ = files.read(tmp_path / "x.pth")
    assert "module.conv1.weight" in arrays and not caplog.text


def test_prefixes_of_most_names_go_and_others_stay():
    short = torch_files.without_prefixes
    a, b, c = (np.full(1, i) for i in range(3))
    assert short({"module.a": a, "module.b": b, "n_averaged": c}) == {
        "a": a,
        "b": b,
        "n_averaged": c,
    }
    assert list(short({"model.net.a": a, "model.net.b": b})) == ["a", "b"]
    assert list(short({"module.a": a, "b": b, "c": c})) == ["module.a", "b", "c"]
    assert list(short({"module.a": a, "module.b": b, "a": c})) == ["module.a", "module.b", "a"]


class Evil:
    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self._path,)


def test_nothing_is_imported_or_called(tmp_path):
    """Functions are not called, modules not imported; weights beside them are read all the same."""
    foreign = types.ModuleType("evilmod")
    net = type("Net", (), {"__module__": "evilmod", "__qualname__": "Net"})
    foreign.Net = net
    content = {"state_dict": {"a": np.ones(2), "b": np.zeros(3)}, "x": Evil(tmp_path / "ran")}
    torch_zip.save(tmp_path / "x.pth", {**content, "net": net()}, modules=(foreign,))
    assert sorted(files.read(tmp_path / "x.pth")[0]) == ["a", "b"]
    assert not (tmp_path / "ran").exists()
    torch_zip.save(tmp_path / "y.pth", net(), modules=(foreign,))
    with pytest.raises(ValueError, match=r"no mapping of names to tensors; it is a evilmod\.Net"):
        files.read(tmp_path / "y.pth")


@pytest.mark.parametrize(
    ("write", "text"),
    [
        (lambda path: torch_zip.save(path, {"epoch": 3}), "no mapping of names to tensors"),
        (lambda path: torch_zip.save(path, [np.ones(3)]), "no mapping of names to tensors"),
        (
            lambda path: torch_zip.save(path, {"a": np.ones(9)}, base=np.ones(4)),
            r"shape \(9,\) has 4 values",
        ),
        (
            lambda path: torch_zip.save(
                path, {"a": np.broadcast_to(np.ones(1), (99, 99))}, base=np.ones(1)
            ),
            r"shape \(99, 99\) has 1 values",
        ),
        (
            lambda path: torch_zip.save(path, {"a": np.ones((4, 4))[:, 0]}, base=np.ones(7)),
            "reaches beyond its 7 values",
        ),
        (
            lambda path: torch_zip.save(
                path, {"a": np.zeros(10**6)}, compression=zipfile.ZIP_DEFLATED
            ),
            "is compressed",
        ),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path, write, text):
    path = tmp_path / "x.pth"
    write(path)
    with pytest.raises(ValueError, match=text) as caught:
        files.read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_damaged_checkpoint_is_one_line(tmp_path):
    path = tmp_path / "x.pth"
    torch_zip.save(path, STATE)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as file:
        at = file.getinfo("archive/data/3").header_offset + 60
    for damaged in (
        whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :],
        whole[: len(whole) // 2],
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"x\.pth") as caught:
            files.read(path)
        assert "\n" not in str(caught.value)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(STATE)[:-9])
    with pytest.raises(ValueError, match=r"x\.pth cannot be read"):
        files.read(path)
