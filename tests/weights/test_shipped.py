"""Weights that come with the package have the test error that their README states."""

import importlib.util
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxcnn.cli import main
from jaxcnn.data import catalog
from jaxcnn.weights import files, load_pretrained, pretrained

FOLDER = Path(pretrained.__file__).with_name("shipped")
SHARED = Path(__file__).parents[3] / "shared" / "data"


def images_of(name):
    """Images u8[N,H,W,C] and labels of the test set in the name of weights."""
    if name == "cifar10":
        spec = importlib.util.spec_from_file_location("load", SHARED / "load.py")
        load = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(load)
        return load.cifar10("test")
    source, folder = {"digits": ("digits", None), "mnist": ("files:mnist", SHARED / name)}[name]
    test = catalog.load(source, "test", data_dir=folder and str(folder))
    return test.images, test.labels


def stated():
    """{name: test error in percent} of the table in the README."""
    rows = re.findall(
        r"^\| `([\w.]+)` \|.*\| ([\d.]+) \|$", (FOLDER / "README.md").read_text(), re.M
    )
    return {name: float(error) for name, error in rows}


def test_every_file_is_described():
    assert stated().keys() == pretrained.SHIPPED.keys() != set()
    assert sum(path.stat().st_size for path in pretrained.SHIPPED.values()) < 3e6


@pytest.mark.optimized
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * (".digits" not in n)) for n in pretrained.SHIPPED],
)
def test_the_error_is_the_stated_one(name):
    data = name.partition(".")[2]
    if data != "digits" and not (SHARED / data).is_dir():
        pytest.skip("the data are not here")
    model, variables = load_pretrained(name)
    images, labels = images_of(data)
    _, metadata = files.read(pretrained.SHIPPED[name])
    how = json.loads(metadata["preprocessing"])
    images = (np.float32(images) / 255 - np.float32(how["mean"])) / np.float32(how["std"])
    logits = jax.lax.map(
        lambda x: model.apply(variables, x), images.reshape(-1, 20, *images.shape[1:])
    )
    wrong = np.asarray(logits).reshape(len(labels), -1).argmax(-1) != labels
    assert round(100 * wrong.mean(), 2) == stated()[name]


def test_a_photo_is_classified_by_name_and_the_names_are_listed(tmp_path, capsys):
    from PIL import Image

    test = catalog.load("digits", "test")
    Image.fromarray(test.images[3, ..., 0]).save(tmp_path / "digit.png")
    main(["predict", "lenet5.digits", str(tmp_path / "digit.png")])
    shown = capsys.readouterr().out
    assert test.class_names[test.labels[3]] in shown.splitlines()[1], shown
    main(["pretrained", "lenet5*"])
    assert re.search(r"lenet5\.digits +lenet5_modern .* in the package", capsys.readouterr().out)


def test_unknown_names_are_answered_with_those_of_the_package():
    with pytest.raises(ValueError, match=r"did you mean 'lenet5\.digits'"):
        load_pretrained("lenet5.digit")
    with pytest.raises(ValueError, match=r"its weights are .*lenet5\.digits"):
        load_pretrained("lenet5")
