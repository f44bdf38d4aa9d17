"""The chart of accuracy against operations, and the history of ILSVRC."""

import csv

import pytest

import jaxcnn
from jaxcnn.analysis import complexity, history
from jaxcnn.cli import main


def test_rows_are_the_registrys_facts():
    rows = complexity.rows()
    by_name = {row["name"]: row for row in rows}
    assert by_name["vgg_d"]["top1_accuracy"] == pytest.approx(100 - 25.6)
    assert by_name["vgg_d"]["macs"] == 15_470_264_320
    accuracies = [row["top1_accuracy"] for row in rows]
    assert accuracies == sorted(accuracies, reverse=True) and rows[0]["name"] == "senet154"
    assert "resnet20_cifar" not in by_name and "googlenet" not in by_name  # no top-1 published
    assert {row["name"] for row in complexity.rows(["vgg1?"])} == {
        "vgg_a",
        "vgg_b",
        "vgg_d",
        "vgg_e",
    }
    with pytest.raises(ValueError, match="'lenet\\*' is no network with a published top-1 error"):
        complexity.rows(["lenet*"])


def test_labels_do_not_cover_each_other(tmp_path):
    from jaxcnn.training.plots import make_figure

    figure = make_figure(11, 7.5)
    axes = figure.add_subplot()
    rows = complexity.rows()
    axes.scatter([row["macs"] / 1e9 for row in rows], [row["top1_accuracy"] for row in rows])
    axes.set_xscale("log")
    complexity._label(figure, axes, rows)
    boxes = [text.get_window_extent() for text in axes.texts if text.get_text()]
    assert len(boxes) > 0.8 * len(rows)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_compare_measures_and_writes(tmp_path, capsys):
    figure, table = tmp_path / "c.svg", tmp_path / "c.csv"
    arguments = ["--dataset", "cifar10", "--figure", str(figure), "--csv", str(table)]
    code = main(
        ["compare", "resnet20_cifar", *arguments, "--measure", "resnet20_cifar", "--batch", "2"]
    )
    assert code == 0 and figure.read_text().startswith("<?xml")
    (row,) = csv.DictReader(table.open())
    assert row["params"] == "269722" and float(row["images_per_s"]) > 0 and row["batch"] == "2"
    assert "resnet20_cifar" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, text",
    [
        (["compare", "vgg16", "--figure", "x.gif"], "must end in .png, .svg, .pdf"),
        (["compare", "vgg16", "--figure", "no/x.png"], "there is no directory 'no'"),
        (["compare", "vgg16", "--measure", "resnet18"], "not among the networks"),
        (["history", "--figure", "x"], "must end in"),
    ],
)
def test_mistakes(arguments, text, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert text in error and error.count("\n") == 1 and not list(tmp_path.iterdir())


def test_history(tmp_path, capsys):
    figure = tmp_path / "h.png"
    assert main(["history", "--figure", str(figure)]) == 0
    assert figure.stat().st_size > 10_000
    assert "SuperVision (AlexNet)" in capsys.readouterr().out
    errors = [entry.top5_error for entry in history.ENTRIES]
    assert errors == sorted(errors, reverse=True)
    assert all(entry.model is None or jaxcnn.model_info(entry.model) for entry in history.ENTRIES)
