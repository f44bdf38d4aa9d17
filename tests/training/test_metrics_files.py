"""The files of a run: rows, what a resumed run keeps of them, and figures."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from jaxcnn.reporting import curves, samples
from jaxcnn.training.output.metrics_files import (
    COLUMNS,
    CSV,
    JSONL,
    MetricsFiles,
    read_rows,
    score,
)


def train_row(step):
    return "train", step, step / 10, {"loss": 1 / step, "top1_error": 0.5, "learning_rate": 0.1}


def eval_row(step, error):
    values = {"loss": 0.3, "top1_error": error, "train_top1_error": error / 2}
    return "eval", step, step / 10, values


ROWS = [train_row(5), train_row(10), eval_row(10, 0.2), train_row(15), eval_row(20, 0.1)]


def write(workdir, rows, after=None):
    files = MetricsFiles(workdir, after)
    for row in rows:
        files.write(*row)
    files.close()
    return files


def test_both_files_say_the_same(tmp_path):
    files = write(tmp_path, ROWS)
    assert min(files.scores.values()) == 0.1
    rows = read_rows(tmp_path)
    assert [(r["kind"], r["step"]) for r in rows] == [(r[0], r[1]) for r in ROWS]
    assert rows[0]["loss"] == 0.2
    with open(tmp_path / CSV, newline="") as file:
        table = list(csv.DictReader(file))
    assert tuple(table[0]) == COLUMNS
    for row, line in zip(rows, table, strict=True):
        assert {k: str(v) for k, v in row.items()} == {k: v for k, v in line.items() if v}
    assert any(p.stat().st_size for p in (tmp_path / "tensorboard").iterdir())


def test_the_best_is_that_of_the_weights_that_are_loaded():
    row = {"top1_error": 0.4}
    assert score(row) == 0.4
    assert score(row := row | {"ema_top1_error": 0.3}) == 0.3
    assert score(row := row | {"localization_top1_error": 0.2}) == 0.2
    assert score(row | {"ema_localization_top1_error": 0.1}) == 0.1


@pytest.mark.parametrize("after", [0, 5, 10, 12, 20])
def test_a_resumed_run_leaves_the_files_of_an_undisturbed_one(tmp_path, after):
    (whole := tmp_path / "whole").mkdir()
    (broken := tmp_path / "broken").mkdir()
    write(whole, ROWS)
    write(broken, ROWS)
    with open(broken / JSONL, "a") as file:
        file.write('{"kind": "train", "step": 2')  # killed while it wrote
    later = [row for row in ROWS if row[1] > after]
    files = write(broken, later, after)
    for name in (JSONL, CSV):
        assert (broken / name).read_bytes() == (whole / name).read_bytes()
    assert min(files.scores.values()) == 0.1


def test_rows_with_the_former_names_of_columns_can_be_read_and_resumed(tmp_path):
    row = {"kind": "eval", "step": 10, "epoch": 1.0, "loss": 0.2, "top1_error": 0.3}
    text = json.dumps({**row, "localisation_top1_error": 0.4, "ema_localisation_top1_error": 0.5})
    (tmp_path / JSONL).write_text(text + "\n")
    [found] = read_rows(tmp_path)
    assert (found["localization_top1_error"], found["ema_localization_top1_error"]) == (0.4, 0.5)
    assert write(tmp_path, [], 10).scores == {10: 0.5}


def test_a_row_without_a_column_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no column for colour"):
        write(tmp_path, [("train", 1, 0.1, {"colour": 1.0})])


def test_curves_show_both_errors(tmp_path):
    write(tmp_path, [eval_row(10 * i, 0.5 / i) for i in range(1, 8)])
    path = tmp_path / curves.CURVES
    curves.plot_curves(read_rows(tmp_path), path, "title")
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    orange = (abs(pixels - [255, 127, 14]).sum(-1) < 30).sum()
    blue = (abs(pixels - [31, 119, 180]).sum(-1) < 30).sum()
    assert orange > 200 and blue > 100


def test_mistakes_are_drawn_first_and_marked(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (200, 8, 8, 1), np.uint8)
    labels = rng.integers(0, 10, 200)
    right, wrong = labels.copy(), labels.copy()
    wrong[[7, 150]] = (labels[[7, 150]] + 1) % 10
    assert samples.prediction_order(labels, wrong, 60)[:4].tolist() == [7, 150, 0, 1]
    assert len(samples.prediction_order(labels, (labels + 1) % 10, 60)) == 30
    red = []
    for predicted in (right, wrong):
        path = tmp_path / samples.PREDICTIONS
        samples.plot_predictions(images, labels, predicted, list("abcdefghij"), path)
        pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
        red.append((abs(pixels - [255, 0, 0]).sum(-1) < 30).sum())
        assert (abs(np.diff(pixels[..., 0], axis=1)) > 20).mean() > 0.02  # there are images in it
    assert red[0] == 0 and red[1] > 500


def test_names_that_are_not_utf8_or_hold_markup_are_drawn(tmp_path):
    images, labels = np.zeros((2, 8, 8, 1), np.uint8), np.array([0, 1])
    names = [b"chat\xe9".decode("utf-8", "surrogateescape"), "$x"]
    for predicted in (labels, 1 - labels):
        samples.plot_predictions(images, labels, predicted, names, tmp_path / "p.png")
        assert Image.open(tmp_path / "p.png").convert("L").getextrema() == (0, 255)


def test_events_that_cannot_be_written_are_an_error(tmp_path):
    """In the thread that trains: one in the background would die unseen."""
    files = MetricsFiles(tmp_path)
    files._events._events._py_recordio_writer._writer = open("/dev/full", "wb")  # noqa: SIM115
    files.write("train", 1, 0.1, {"loss": 1.0})
    with pytest.raises(OSError, match=r"cannot write TensorBoard's events \(No space left") as told:
        files.flush()
    assert told.value.filename == str(tmp_path / "tensorboard")
