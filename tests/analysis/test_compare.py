"""Accuracy against cost, the history of ILSVRC, and names that do not lie on one another."""

import csv
import io

import matplotlib.pyplot as plt
import pytest
from jax.extend.core import Literal

from jaxcnn.analysis import bench, complexity, history
from jaxcnn.analysis.trace import trace
from jaxcnn.cli import main
from jaxcnn.models.costs import sub_jaxprs
from jaxcnn.models.registry import published
from jaxcnn.reporting.figures import place_labels


def test_points_take_the_single_crop_where_it_is_published():
    found = {p.name: p for p in complexity.points(("vgg_d", "resnet34*", "resnet200", "googlenet"))}
    assert found["vgg_d"].top1_accuracy == pytest.approx(100 - 28.408)
    assert found["resnet34"].one_crop and not found["resnet34_a"].one_crop
    assert not found["resnet200"].one_crop  # published at 320 pixels only
    facts = published()["googlenet"]
    assert (found["googlenet"].macs, found["googlenet"].params) == (facts["macs"], facts["params"])
    with pytest.raises(ValueError, match="on imagenet is published for lenet5"):
        complexity.points(("lenet5",))


def test_every_network_with_a_published_error_is_drawn():
    drawn = {d: {p.name for p in complexity.points(dataset=d)} for d in ("imagenet", "cifar10")}
    for name, facts in published().items():
        if facts["top1_error"] is not None and facts["params"]:
            assert facts["dataset"] == "mnist" or name in drawn[facts["dataset"]]


def longest_path(jaxpr, given):
    """Convolutions and products on the longest path to each output."""
    depth = dict(zip(jaxpr.invars, given))
    for eqn in jaxpr.eqns:
        inputs = [0 if isinstance(v, Literal) else depth.get(v, 0) for v in eqn.invars]
        inner = list(sub_jaxprs(eqn))
        if eqn.primitive.name == "cond":
            inner, inputs = inner[-1:], inputs[1:]
        if inner:
            rest = len(inner[0].invars) - len(inputs)
            results = longest_path(inner[0], [0] * rest + inputs)
        else:
            layer = eqn.primitive.name in ("conv_general_dilated", "dot_general")
            results = [max(inputs, default=0) + layer] * len(eqn.outvars)
        depth.update(zip(eqn.outvars, results))
    return [0 if isinstance(v, Literal) else depth.get(v, 0) for v in jaxpr.outvars]


def test_depths_are_those_of_the_networks():
    for entry in history.history():
        if entry.network is None:  # a depth that no network of the package confirms has a source
            assert (entry.layers is None) == (entry.depth_source == "")
            continue
        # the layers of squeeze-and-excitation are not counted: SENet-154's 154 are the others
        options = {"se_reduction": 0} if entry.network == "senet154" else {}
        jaxpr = trace(entry.network, None, options).jaxpr
        assert longest_path(jaxpr, [0] * len(jaxpr.invars)) == [entry.layers], entry.name


def test_history_as_published():
    found = [(e.year, e.name, e.top5_error) for e in history.history()]
    assert found == [
        (2010, "NEC-UIUC", 28.2), (2011, "XRCE", 25.8),
        (2012, "AlexNet", 15.3), (2013, "ZFNet", 14.8), (2013, "Clarifai", 11.7),
        (2014, "VGG", 7.3), (2014, "GoogLeNet", 6.67), (2015, "ResNet", 3.57),
        (2016, "ResNeXt", 3.03), (2016, "Trimps-Soushen", 2.991), (2017, "SENet", 2.251),
    ]  # fmt: skip
    text = history.to_text(history.history())
    assert "a person: 5.1 %" in text
    assert "~200" in text and "~ Trimps-Soushen: ResNet-200" in text


def test_no_name_lies_on_another():
    figure, axes = plt.subplots(figsize=(8, 6))
    places = [(x / 100, y / 100) for x in range(4) for y in range(5)]
    axes.set(xlim=(-1, 1), ylim=(-1, 1))
    boxes = place_labels(axes, [(f"network_{i}", x, y, 3.0) for i, (x, y) in enumerate(places)])
    plt.close(figure)
    for i, a in enumerate(boxes):
        for b in boxes[:i]:  # to a pixel, which text that is drawn does not fill
            assert min(a[2], b[2]) < max(a[0], b[0]) + 1 or min(a[3], b[3]) < max(a[1], b[1]) + 1


def test_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench, "_SIZES", {"cpu": (64, 2**12)})
    plot, table = tmp_path / "chart.svg", tmp_path / "chart.csv"
    argv = ["compare", "lenet*", "--data", "mnist", "--out", str(plot), "--csv", str(table)]
    assert main([*argv, "--measure", "lenet5", "--batch-size", "2"]) == 0
    out = capsys.readouterr().out
    assert "lenet5_1998" in out and "images/s" in out
    assert plot.read_text().count("<svg") == 1 and (tmp_path / "chart_measured.svg").is_file()
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(table.read_text()))}
    assert rows["lenet5_1998"]["top1_accuracy"] == "99.05" and not rows["lenet5_1998"]["batch"]
    assert rows["lenet5_modern"]["batch"] == "2"
    assert float(rows["lenet5_modern"]["images_per_s"]) > 0

    pictures = ["--out", str(tmp_path / "h.png"), "--csv", str(tmp_path / "h.csv")]
    assert main(["history", *pictures]) == 0
    assert (tmp_path / "h.png").read_bytes()[:4] == b"\x89PNG"
    assert "Hu et al. 2018" in (tmp_path / "h.csv").read_text()


@pytest.mark.parametrize(
    "argv, word",
    [
        (["compare", "--out", "x.gif"], ".svg"),
        (["compare", "--csv", "nowhere/x.csv"], "nowhere"),
        (["compare", "resnex50"], "resnet50"),
        (["compare", "--measure", "resnex50"], "resnet50"),
        (["history", "--out", "nowhere/x.png"], "nowhere"),
    ],
)
def test_mistakes(argv, word, capsys):
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert word in err and err.count("\n") == 1
