"""`jaxcnn export` to folders: what is in them, and that the examples there work."""

import ast
import json
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawing import draw_variables
from jax import export
from photos import jpeg, pixels

import jaxcnn
from jaxcnn import weights
from jaxcnn.cli import main
from jaxcnn.deploy import artifacts, examples

HOW = weights.Preprocessing(32, 0.8, "bicubic", (0.4,), (0.3,))
FOLDER = ("example.py", "model.json")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A file of weights, and a photo."""
    folder = tmp_path_factory.mktemp("saved")
    variables = draw_variables(jaxcnn.create_model("lenet5"), (1, 32, 32, 1))
    weights.save(
        folder / "lenet.npz", "lenet5", variables, preprocessing=HOW, class_names="abcdefghij"
    )
    (folder / "photo.jpg").write_bytes(jpeg(pixels(3, 61, 47)))
    return folder


def run(capsys, *argv):
    assert main([str(a) for a in argv]) in (0, None)
    return capsys.readouterr().out


def error(capsys, *argv):
    assert main([str(a) for a in argv]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    return err.removeprefix("jaxcnn: error: ").rstrip("\n")


def run_example(folder, monkeypatch, capsys, *argv):
    """Its output; it must not import jaxcnn."""
    path = folder / "example.py"
    tree = ast.parse(path.read_text("utf-8"))
    names = [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
    names += [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    assert names and not any(name.startswith("jaxcnn") for name in names)
    monkeypatch.setattr("sys.argv", [str(path), *map(str, argv)])
    runpy.run_path(str(path), run_name="__main__")
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("value", "published"),
    [
        ("/home/me/nets.py:MyNet", "nets.py:MyNet"),
        ("my.nets:MyNet", "my.nets:MyNet"),
        ("folder:/home/me/photos", "folder:photos"),
        ("folder:gs://private/photos/", "folder:photos"),
        ("s3://private/data", "data"),
        ("hf://datasets/me/flowers", "hf://datasets/me/flowers"),
        ("folder:hf://datasets/me/flowers", "folder:hf://datasets/me/flowers"),
        ("hf:me/flowers", "hf:me/flowers"),
        ("hf:/home/me/set", "hf:set"),
        ("GS://private/photos", "photos"),
        ({"a": ["/home/me/x", 3]}, {"a": ["x", 3]}),
    ],
)
def test_published_files_reveal_no_folder(value, published):
    assert artifacts.without_folders(value) == published


def test_an_export_that_was_cut_off_can_be_repeated(saved, tmp_path, capsys, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device", str(tmp_path))

    with monkeypatch.context() as patch:
        patch.setattr(artifacts, "save_weights", full)
        assert "No space" in error(
            capsys, "export", saved / "lenet.npz", tmp_path / "out", "--to", "safetensors"
        )
    run(capsys, "export", saved / "lenet.npz", tmp_path / "out", "--to", "safetensors")
    (tmp_path / "file").touch()
    assert "which is a file; it must be a folder" in error(
        capsys, "export", saved / "lenet.npz", tmp_path / "file", "--to", "safetensors"
    )


@pytest.mark.parametrize("to", ["stablehlo", "onnx"])
@pytest.mark.parametrize("options", [[], ["--pixels"]], ids=["logits", "pixels"])
def test_a_program_predicts_as_jaxcnn_does(saved, tmp_path, capsys, monkeypatch, to, options):
    if to == "onnx":
        pytest.importorskip("onnx")
    out = run(capsys, "export", saved / "lenet.npz", tmp_path / "out", "--to", to, *options)
    file = tmp_path / "out" / f"model.{to}"
    assert out == f"wrote {file}, model.json and example.py: lenet5_modern\n"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [*FOLDER, file.name]
    about = json.loads((tmp_path / "out" / "model.json").read_text())
    assert about["classes"] == list("abcdefghij") and about["format"] == to
    assert about["source"] == {"name": "lenet.npz"} and about["accuracy"] is None
    assert about["preprocessing"]["interpolation"] == "bicubic"
    assert about["input"]["dtype"] == ("uint8" if options else "float32")
    assert about["input"]["shape"] == ["batch", 32, 32, 1]
    assert about["output"]["name"] == ("probabilities" if options else "logits")
    assert b"/flax/" not in file.read_bytes() and b"/jaxcnn/" not in file.read_bytes()
    if to == "onnx":
        pytest.importorskip("onnxruntime")
    lines = run_example(tmp_path / "out", monkeypatch, capsys, saved / "photo.jpg")
    want = run(capsys, "predict", saved / "lenet.npz", saved / "photo.jpg", "--json")
    for line, one in zip(lines, json.loads(want)[0]["top"], strict=True):
        share, _, name = line.split()
        assert name == one["name"] and abs(float(share) - 100 * one["probability"]) < 0.011


def test_stablehlo_is_for_three_platforms_and_any_batch(saved, tmp_path, capsys):
    run(capsys, "export", saved / "lenet.npz", tmp_path, "--to", "stablehlo")
    program = export.deserialize(bytearray((tmp_path / "model.stablehlo").read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    model, variables = jaxcnn.load_pretrained(saved / "lenet.npz")
    images = np.random.default_rng(0).standard_normal((3, 32, 32, 1)).astype(np.float32)
    want = jax.jit(lambda x: model.apply(variables, x))(images)
    np.testing.assert_allclose(program.call(images), want, atol=1e-5)
    assert program.call(jnp.zeros((1, 32, 32, 1))).shape == (1, 10)


@pytest.mark.parametrize("to", ["torch", "safetensors"])
def test_weights_in_a_folder(saved, tmp_path, capsys, monkeypatch, to):
    run(capsys, "export", saved / "lenet.npz", tmp_path, "--to", to)
    opened = weights.loading.open_weights(tmp_path / "model.safetensors")
    assert opened.layout == {"safetensors": "jaxcnn"}.get(to, to)
    assert opened.class_names == tuple("abcdefghij") and opened.preprocessing == HOW
    lines = run_example(tmp_path, monkeypatch, capsys)
    assert lines[-1] == "lenet5_modern: 61,706 numbers"


def test_other_files_are_not_replaced(saved, tmp_path, capsys):
    (tmp_path / "model.json").write_text('{"mine": 1}')
    text = error(capsys, "export", saved / "lenet.npz", tmp_path, "--to", "safetensors")
    assert text.startswith(f"OUT is {tmp_path}, which contains other files; it must be a new or ")
    assert [path.name for path in tmp_path.iterdir()] == ["model.json"]
    (tmp_path / "model.json").unlink()
    for to in ("safetensors", "torch"):  # the second replaces what the first has written
        run(capsys, "export", saved / "lenet.npz", tmp_path, "--to", to)


def test_torch_architectures_are_named():
    text = examples.example("torch", "resnet50", {"zero_gamma": True}, False)
    assert 'timm.create_model("resnet50", num_classes=len(about["classes"]))' in text
    ast.parse(text)
    ast.parse(examples.example("torch", "inception_v3", {"aux_heads": True}, False))
    # timm's VGG has other names than torchvision's, which the weights have.
    text = examples.example("torch", "vgg_d", {}, False)
    assert 'torchvision.models.vgg16(num_classes=len(about["classes"]))' in text
    ast.parse(text)
    # With options that change the network it is not timm's.
    assert "timm" not in examples.example("torch", "resnet18", {"small_images": True}, False)
    assert examples.timm_architecture("vgg_d") == "vgg16"
    assert examples.timm_architecture("lenet5_modern") is None


def test_what_does_not_go_together(saved, tmp_path, capsys):
    file = saved / "lenet.npz"
    text = error(capsys, "export", file, tmp_path / "a.onnx", "--to", "onnx")
    assert "OUT is " in text and "with --to onnx it must be a folder" in text
    assert "with --to stablehlo" in error(
        capsys, "export", file, tmp_path / "a.npz", "--to", "stablehlo"
    )
    assert "must be a folder or a .safetensors" in error(capsys, "export", file, tmp_path / "a.txt")
    assert "--pixels is for" in error(capsys, "export", file, tmp_path / "a", "--pixels")
    assert "none.npz does not exist" in error(capsys, "export", tmp_path / "none.npz", tmp_path)
    assert list(tmp_path.iterdir()) == []
