"""`jaxcnn convert`, `predict` and `export`, as a user runs them."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from golden import weights as golden
from PIL import Image
from test_loading import put_in_cache
from torch_like import equal, state_dict

import jaxcnn
from jaxcnn import training, weights
from jaxcnn.cli import main
from jaxcnn.evaluation.predict import imagenet_names
from jaxcnn.weights import elsewhere, files


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "gray.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 280), np.uint8)).save(path)
    return str(path)


def run(capsys, *argv):
    code = main([str(a) for a in argv])
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    return out


def error(capsys, *argv):
    assert main([str(a) for a in argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err.removeprefix("jaxcnn: error: ").rstrip("\n")


def test_convert_there_and_back(tmp_path, capsys):
    state = state_dict("resnet20_cifar", 7)
    source, ours, back = tmp_path / "a.npz", tmp_path / "b.safetensors", tmp_path / "c.npz"
    files.write(source, state)
    out = run(capsys, "convert", source, ours, "--model", "resnet20_cifar")
    assert out == f"wrote {ours}: resnet20_cifar, 7 classes, layout of jaxcnn\n"
    run(capsys, "convert", ours, back, "--to", "torch")
    assert equal(files.read(back)[0], state)
    assert "does not state its network" in error(capsys, "convert", source, ours)
    text = error(capsys, "convert", source, ours, "--model", "vgg16")
    assert text.startswith("these weights do not fit vgg_d: 32 missing (-), ")
    assert "d.npz does not exist" in error(capsys, "convert", tmp_path / "d.npz", ours)
    assert "which is the input" in error(capsys, "convert", ours, tmp_path / "." / ours.name)
    assert "which is the input" in error(capsys, "export", ours, ours)
    assert "is not a file of weights; weights are" in error(capsys, "convert", tmp_path, ours)
    text = error(capsys, "convert", tmp_path / "none", tmp_path / "out.npz")
    assert text.startswith(f"{tmp_path / 'none'} does not exist; weights are a .safetensors")


@pytest.mark.slow
def test_predict_by_published_weights_from_the_cache(tmp_path, image):
    """A process of its own, which finds the cache by the environment as a user's would."""
    state = golden.state_dict(golden.load("resnet18")[1])
    state["fc.weight"][:] = 0
    state["fc.bias"][:] = 0
    state["fc.bias"][[281, 7]] = 9, 8
    put_in_cache(tmp_path / "hub", "resnet18.tv_in1k", state)
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "jaxcnn.cli", "predict", "resnet18.tv_in1k", image]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    total = np.exp(9) + np.exp(8) + 998
    assert lines[:3] == [
        image,
        f"  {100 * np.exp(9) / total:6.2f} %  n02123045 tabby",
        f"  {100 * np.exp(8) / total:6.2f} %  {imagenet_names()[7]}",
    ]
    assert len(lines) == 6


def test_predict_by_a_file(tmp_path, capsys, image):
    variables = weights.from_torch("lenet5", state_dict("lenet5"))
    how = weights.Preprocessing(32, 1.0, "bilinear", (0.5,), (0.5,))
    path = tmp_path / "w.safetensors"
    weights.save(path, "lenet5", variables, preprocessing=how, class_names="abcdefghij")
    rows = json.loads(run(capsys, "predict", path, image, "--json", "--top", 2, image))
    assert [row["image"] for row in rows] == [image, image] and rows[0]["top"] == rows[1]["top"]
    first, second = rows[0]["top"]
    assert first["name"] == "abcdefghij"[first["index"]]
    assert 1 >= first["probability"] >= second["probability"] >= 0
    assert "--top is 11" in error(capsys, "predict", path, image, "--top", 11)
    assert f"{image} is an image; the first argument" in error(capsys, "predict", image, image)
    assert "no image is given" in error(capsys, "predict", path)
    text = error(capsys, "predict", path, tmp_path / "none.png")
    assert text == f"{tmp_path / 'none.png'} does not exist"
    assert main(["predict", str(image), "--weights", str(path)]) == 0  # as it was given before
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 6 and "now the first argument" in err


def test_predict_of_few_classes(tmp_path, capsys, image):
    model = jaxcnn.create_model("lenet5", num_classes=2)
    variables = model.init(jax.random.key(0), jax.numpy.zeros((1, 32, 32, 1)))
    path = tmp_path / "w.safetensors"
    weights.save(path, "lenet5", variables, class_names=("cat", "dog"))
    lines = run(capsys, "predict", path, image).splitlines()
    assert {line.split()[-1] for line in lines[1:]} == {"cat", "dog"}


def test_options_and_classes_that_cannot_be(tmp_path, capsys):
    path, other = tmp_path / "w.safetensors", tmp_path / "o.safetensors"
    variables = weights.from_torch("lenet5", state_dict("lenet5"))
    weights.save(path, "lenet5", variables, class_names="abcdefghij")
    for arguments, text in (
        (["name=x"], "'name' is not an option of a network"),
        (["parent=1"], "'parent' is not an option of a network"),
        (["dtype=x"], "dtype is 'x'; it must be a type such as 'bfloat16'"),
        (["--num-classes", "-1"], "num_classes is -1; it must be an integer from 0 to 10,000,000"),
        (
            ["--num-classes", 10**9],
            "num_classes is 1000000000; it must be an integer from 0 to 10,000,000",
        ),
    ):
        assert error(capsys, "convert", path, other, *arguments) == text
    assert main(["convert", str(path), str(other), "--num-classes", "3"]) == 0
    assert "class_names" not in files.read(other)[1]  # those of the former classifier
    capsys.readouterr()
    for text in ('{"num_classes": 5}', '{"name": "x"}'):
        arrays, about = files.read(path)
        files.write(other, arrays, about | {"options": text})
        assert "has invalid metadata: " in error(capsys, "convert", other, path)


@pytest.mark.parametrize("to", ["jaxcnn", "torch"])
def test_weights_without_a_classifier(tmp_path, capsys, image, to):
    path, other = tmp_path / "w.safetensors", tmp_path / "o.safetensors"
    variables = weights.from_torch("lenet5", state_dict("lenet5"))
    weights.save(path, "lenet5", variables)
    run(capsys, "convert", path, other, "--num-classes", "0", "--to", to)
    model, features = weights.load_pretrained(other)
    assert model.num_classes == 0
    assert set(variables["params"]) - set(features["params"]) == {"fc3"}
    text = error(capsys, "predict", other, image)
    assert text == f"{other} has no classifier, only the features of lenet5_modern"
    assert jaxcnn.load_pretrained(other, num_classes=3)[0].num_classes == 3


def test_names_that_are_not_those_of_all_classes(tmp_path, capsys, image):
    path = tmp_path / "w.safetensors"
    variables = weights.from_torch("lenet5", state_dict("lenet5"))
    weights.save(path, "lenet5", variables)
    arrays, about = files.read(path)
    files.write(path, arrays, about | {"class_names": '["cat", "dog"]'})
    text = error(capsys, "predict", path, image)
    assert text == f"{path} has 2 names of classes, but 10 classes"


def test_published_weights_are_listed_by_name_and_network(capsys):
    lines = run(capsys, "pretrained", "resnet50_v2").splitlines()
    row = ["resnetv2_50.a1h_in1k", "resnet50_v2", "288", "1", "bicubic", "apache-2.0", "hub"]
    assert lines[2].split() == row
    assert "resnet50_v2.keras_in1k     resnet50_v2  Keras       76.0        -" in lines
    assert lines[-1] == "3 sets of weights"
    rows = [line.split() for line in run(capsys, "pretrained").splitlines()]
    licenses = {row[0]: row[5] for row in rows if len(row) == 7}
    assert len(licenses) > 100
    for name, license in (
        ("resnet50.tv_in1k", "bsd-3-clause"),
        ("inception_v3.tv_in1k", "apache-2.0"),
        ("resnet18.fb_ssl_yfcc100m_ft_in1k", "cc-by-nc-4.0"),
    ):
        assert licenses[name] == license
    assert "did you mean 'resnet50.tv_in1k'" in error(capsys, "pretrained", "resnet50.tv_in")


def test_files_of_other_frameworks_are_listed_with_their_addresses(tmp_path, capsys):
    text = run(capsys, "pretrained", "*.bvlc_in1k")
    assert text.count("http://dl.caffe.berkeleyvision.org/") == 3
    assert ["googlenet.bvlc_in1k", "googlenet", "Caffe", "68.7", "unrestricted"] in [
        line.split() for line in text.splitlines()
    ]
    assert text.endswith("3 sets of weights\n")
    out = tmp_path / "a.npz"
    text = error(capsys, "convert", "googlenet.bvlc_in1k", out)
    assert "are in a file of Caffe: download http://dl.caffe.berkeleyvision.org/bvlc_goo" in text
    for file in elsewhere.FILES.values():
        assert file.model in jaxcnn.list_models() and 50 < file.top1 < file.top5 < 100


def test_export_of_a_run(tmp_path, capsys):
    config = training.default_config()
    config.train.length_steps, config.train.length_epochs = 3, None
    workdir = tmp_path / "run"
    for _ in training.train(config, workdir):
        pass
    jax.clear_caches()
    path = tmp_path / "w.safetensors"
    for checkpoint in ("best", "newest"):
        out = run(capsys, "export", workdir, path, "--checkpoint", checkpoint)
        assert out == f"wrote {path}: lenet5_modern after step 3, layout of jaxcnn\n"
    model, variables = jaxcnn.load_pretrained(path)
    opened = weights.loading.open_weights(path)
    assert opened.class_names == tuple("0123456789") and opened.preprocessing.size == 32

    # The run's own error, from the exported file alone.
    from jaxcnn.data import catalog

    test = catalog.load(config.data.source, config.data.test_split)
    how = opened.preprocessing
    images = (test.images / np.float32(255) - np.float32(how.mean)) / np.float32(how.std)
    error_rate = np.mean(np.argmax(model.apply(variables, images), -1) != test.labels)
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    recorded = [row["top1_error"] for row in rows if row["kind"] == "eval"]
    assert error_rate == pytest.approx(recorded[-1], abs=1e-6)
    assert "is not a run directory" in error(capsys, "export", tmp_path, path)
