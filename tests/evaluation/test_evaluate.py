"""Views of every protocol, metrics in closed form, and the command on real runs."""

import io
import json
import math
from pathlib import Path

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxcnn.cli import main
from jaxcnn.data.decode import BadImage
from jaxcnn.data.preprocessing import Preprocessing
from jaxcnn.data.sets import Dataset, FileShard, ImageFileDataset
from jaxcnn.evaluation import inference, protocols, tables
from jaxcnn.metrics import classification
from jaxcnn.training import read_config, train

HOW = Preprocessing(size=224, crop=0.875, interpolation="bilinear", mean=(0.0,), std=(1.0,))


def ramp(height, width, channels=1):
    """An image whose pixels say where they are: rows count in steps of 1, columns of 0."""
    rows = np.arange(height, dtype=np.uint8)[:, None, None]
    return np.broadcast_to(rows, (height, width, channels)).copy()


class MeanPixel(nn.Module):
    """Logits (mean pixel of 0 to 255, 0): its answer to any view is known by hand."""

    @nn.compact
    def __call__(self, images, *, train=False):
        means = 255 * images.mean((1, 2, 3))
        return jnp.stack([means, jnp.zeros_like(means)], -1)


def as_set(images):
    count = len(images)
    return Dataset(
        images=np.stack(images),
        labels=np.zeros(count, np.int32),
        num_classes=2,
        class_names=("a", "b"),
        mean=(0.0,),
        std=(1.0,),
    )


def test_places_of_crops():
    """Of a 6x8 image whose pixel (y, x) is 10 y + x, crops of 4."""
    image = (10 * np.arange(6)[:, None, None] + np.arange(8)[None, :, None]).astype(np.uint8)
    first = {
        "center": [12],
        "flip": [12, 15],
        "10crop": [0, 4, 20, 24, 12, 3, 7, 23, 27, 15],
    }
    for name, pixels in first.items():
        protocol = protocols.PROTOCOLS[name]
        views = protocol.views(image, 4)
        views = protocols.mirrored(views) if protocol.mirror else views
        assert views.shape == (len(pixels), 4, 4, 1) and views[:, 0, 0, 0].tolist() == pixels
    corners = protocols.grid(image, 4)[:, 0, 0, 0]
    assert corners.tolist() == [10 * y + x for y in (0, 0, 1, 2, 2) for x in (0, 1, 2, 3, 4)]
    views = protocols.squares(image, 4)
    assert views[:, 0, 0, 0].tolist()[:5] == [0, 2, 20, 22, 11]  # the left square, 6x6 from (0, 0)
    assert views[6:11, 0, 0, 0].tolist() == [1, 3, 21, 23, 12]  # from (0, 1)
    assert views[12, 0, 0, 0] == 2 and len(views) == 18
    with pytest.raises(ValueError, match="the image is 6x8; a crop needs 7"):
        protocols.center(image, 7)


def test_the_squares_are_resized_as_the_image():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    (views, *_) = protocols.all_views(image, protocols.PROTOCOLS["144crop"], 32, 0.875, "bicubic")
    resized = protocols.shorter_side(image, 37, "bicubic")  # 256 * 32 / 224
    assert np.array_equal(views[5], protocols.resize(resized[:, :37], (32, 32), "bicubic"))


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        *(("center", [1]), ("flip", [2]), ("10crop", [10]), ("144crop", [36] * 4)),
        *(("150crop", [50] * 3), ("dense", [2]), ("dense3", [2] * 3), ("dense5", [2] * 5)),
    ],
)
def test_number_and_size_of_views(name, counts):
    protocol = protocols.PROTOCOLS[name]
    views = protocols.all_views(ramp(40, 60, 3), protocol, 28, 0.875)
    assert [len(v) for v in views] == counts
    sides = [round(s / 8) for s in protocol.scales] or [32]
    shapes = [(s, s * 60 // 40) if protocol.dense else (28, 28) for s in sides]
    assert [v.shape[1:3] for v in views] == shapes


def test_center_is_what_torchvision_shows():
    """Resized and cropped as `evaluation.predict.preprocess`, a second way to the same pixels."""
    from jaxcnn.evaluation.predict import preprocess

    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    how = Preprocessing(28, 0.875, "bicubic", (0.0,) * 3, (1.0,) * 3)
    protocol = protocols.PROTOCOLS["center"]
    (views,) = protocols.all_views(image, protocol, how.size, how.crop, how.interpolation)
    np.testing.assert_allclose(views[0] / 255, preprocess(Image.fromarray(image), how), atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_views_are_averaged_as_probabilities(batch_size):
    """Ten crops of a ramp: the mean of sigmoid(mean pixel), worked out for each of its crops."""
    images = [ramp(12, 12), 12 - ramp(12, 12), ramp(12, 12) // 2]
    how = Preprocessing(8, 8 / 12, "bilinear", (0.0,), (1.0,))
    found, labels = inference.probabilities(
        MeanPixel(), {}, as_set(images), how, protocols.PROTOCOLS["10crop"], batch_size=batch_size
    )
    for image, row in zip(images, found):
        means = [image[top : top + 8].mean() for top in (0, 0, 4, 4, 2)]
        assert row[0] == pytest.approx(np.mean([1 / (1 + math.exp(-m)) for m in means]), abs=1e-6)
    assert labels.tolist() == [0, 0, 0] and found.shape == (3, 2)


@pytest.mark.parametrize("name", protocols.PROTOCOLS)
def test_views_of_several_images_are_those_of_each(name):
    images = np.random.default_rng(0).integers(0, 256, (3, 36, 44, 3), np.uint8)
    together = protocols.all_views(images, protocols.PROTOCOLS[name], 24, 0.875)
    for i, image in enumerate(images):
        alone = protocols.all_views(image, protocols.PROTOCOLS[name], 24, 0.875)
        for many, one in zip(together, alone, strict=True):
            np.testing.assert_array_equal(many[i], one)


@pytest.mark.parametrize(
    ("name", "count"), [("center", 1), ("10crop", 10), ("144crop", 144), ("150crop", 150),
                        ("dense3", 6)],
)  # fmt: skip
def test_number_of_views(name, count):
    assert protocols.view_count(protocols.PROTOCOLS[name]) == count
    assert protocols.view_count(protocols.parse_view("10crop:24:28,32").protocol) == 20


def test_few_views_are_held_at_a_time(monkeypatch):
    """Of 150 views an image, no more images than cores are ahead, whatever the set's size."""
    monkeypatch.setattr(inference, "cores", lambda: 2)
    taken = []
    views = inference._views

    def counted(*args):
        taken.append(args[-1])
        return views(*args)

    monkeypatch.setattr(inference, "_views", counted)
    how = Preprocessing(8, 8 / 12, "bilinear", (0.0,), (1.0,))
    ahead = []
    inference.probabilities(
        MeanPixel(), {}, as_set([ramp(12, 12)] * 30), how, protocols.PROTOCOLS["150crop"],
        batch_size=75, progress=lambda done: ahead.append(len(taken) - done),
    )  # fmt: skip
    assert len(taken) == 30 and max(ahead) <= 4


def test_only_the_last_batch_is_padded(monkeypatch):
    """Ten views of 13 images in batches of 64: 130 views, three batches."""
    shapes = []

    def compiled(*network):
        def apply(variables, views):
            shapes.append(views.shape)
            return jnp.asarray(views[:, 0, 0] / 255.0)

        return apply

    monkeypatch.setattr(inference, "_compiled", compiled)
    images = [np.full((12, 12, 1), i, np.uint8) for i in range(13)]
    how = Preprocessing(8, 8 / 12, "bilinear", (0.0,), (1.0,))
    done = []
    found, _ = inference.probabilities(
        MeanPixel(), {}, as_set(images), how, protocols.PROTOCOLS["10crop"], progress=done.append
    )
    assert shapes == [(64, 8, 8, 1)] * 3
    np.testing.assert_allclose(found[:, 0], np.arange(13) / 255, rtol=1e-6)
    assert done == [6, 12, 13]


def test_a_bad_example_is_named():
    def read(index):
        if index == 2:
            raise BadImage("has no label")
        return picture.getvalue(), 0

    picture = io.BytesIO()
    Image.fromarray(ramp(12, 12, 3)).save(picture, "PNG")
    files = FileShard(5, read, lambda i: f"photo {i}")
    how = Preprocessing(8, 8 / 12, "bilinear", (0.0,) * 3, (1.0,) * 3)
    with pytest.raises(ValueError, match=r"^photo 2 has no label$"):
        inference.probabilities(
            MeanPixel(), {}, ImageFileDataset(files, 0, 5, ("a", "b")), how,
            protocols.PROTOCOLS["center"],
        )  # fmt: skip


def test_dense_answers_equal_crops_where_the_answer_is_the_same_everywhere():
    image = np.full((12, 20, 1), 3, np.uint8)
    how = Preprocessing(8, 8 / 12, "bilinear", (0.0,), (1.0,))
    rows = [
        inference.probabilities(MeanPixel(), {}, as_set([image]), how, protocols.PROTOCOLS[name])[0]
        for name in ("center", "10crop", "144crop", "dense", "dense3")
    ]
    np.testing.assert_allclose(rows, np.broadcast_to(rows[0], np.shape(rows)), atol=1e-5)


def test_metrics_in_closed_form():
    given = np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.4, 0.4, 0.2]])
    labels = np.array([0, 1, 2, 1])
    assert classification.is_wrong(given, labels).tolist() == [False, True, False, True]
    assert classification.is_wrong(given, labels, 2).tolist() == [False] * 4
    table = classification.confusion_matrix(given, labels)
    assert table.tolist() == [[1, 0, 0], [2, 0, 0], [0, 0, 1]]
    assert classification.class_errors(table).tolist() == [0, 1, 0]
    # bins of 0.2: 0.4 (wrong) | 0.6 to 0.8: 0.7 right, 0.7 wrong, 0.6 right
    expected = (abs(0 - 0.4) + abs(2 - 2.0)) / 4
    assert classification.calibration_error(given, labels, 5) == pytest.approx(expected)
    low, high = classification.bootstrap_interval(np.array([0.0] * 50 + [1.0] * 50), 2000)
    assert low == pytest.approx(0.5 - 1.96 * 0.05, abs=0.02)
    assert high == pytest.approx(0.5 + 1.96 * 0.05, abs=0.02)
    # Without errors in n examples the upper end is the rate at which that has 2.5 % probability.
    low, high = classification.bootstrap_interval(np.zeros(288), 100)
    assert low == 0 and (1 - high) ** 288 == pytest.approx(0.025)
    assert classification.bootstrap_interval(np.ones(288), 100) == pytest.approx((1 - high, 1))
    assert classification.is_wrong(np.array([[np.nan, 0.9]]), np.array([1])).tolist() == [True]


def test_precision_and_recall_of_each_class():
    predicted, labels = np.array([0, 1, 0, 0]), np.array([0, 0, 0, 1])
    text = tables.class_text(np.eye(3)[predicted], labels, ["cat", "dog", "cow"])
    assert [line.split()[:5] for line in text.splitlines()[-3:]] == [
        ["cat", "3", "1", "66.67", "66.67"],
        ["dog", "1", "1", "0.00", "0.00"],
        ["cow", "0", "0"],
    ]


def test_learnt_combinations_are_tested_on_other_examples():
    """A member that knows and one that guesses: learning finds it, on the share given for it."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    knows = np.full((200, 3), 0.05)
    knows[np.arange(200), labels] = 0.9
    guesses = rng.dirichlet(np.ones(3) / 5, 200)
    found, kept = tables.combinations(np.stack([guesses, knows]).astype(np.float32), labels, 0.5)
    assert [name for name, _ in found][3:] == list(tables.LEARNED)
    assert len(kept) == 100
    errors = {name: classification.is_wrong(p[kept], labels[kept]).mean() for name, p in found}
    assert errors["weighted"] == errors["greedy selection"] == 0


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        overrides = [f"train.seed={seed}", "train.devices=1", "data.test_split=test[:64]"]
        config = read_config("configs/lenet_digits.py:smoke", overrides)
        for report in train(config, folder / f"run{seed}"):
            last = report
    return folder, last.values["top1_error"]


def test_the_command(runs, tmp_path, capsys):
    folder, error = runs
    one, two = str(folder / "run0"), str(folder / "run1")
    weights, out, png = (str(tmp_path / n) for n in ("w.safetensors", "e.json", "c.png"))
    assert main(["export", one, weights]) == 0
    data = ["--data", "digits", "--split", "test[:64]"]
    capsys.readouterr()
    extra = ["--ensemble", "--bootstrap", "100", "--json", out, "--classes", "--confusion", png]
    assert main(["evaluate", weights, one, two, *data, *extra]) == 0
    printed = capsys.readouterr().out
    assert "digits (test[:64]), center, 64 examples" in printed and "mean of logits" in printed
    rows = json.loads(Path(out).read_text())["rows"]
    assert rows[0]["wrong"] == rows[1]["wrong"] and rows[0]["top5_error"] == rows[1]["top5_error"]
    assert rows[2]["top1_error"] == pytest.approx(error)  # what training itself found
    assert all(row["examples"] == 64 for row in rows) and len(rows) == 6
    assert Image.open(png).size[0] > 300


def test_mistakes_are_one_line(runs, tmp_path, capsys):
    one = str(runs[0] / "run0")
    for arguments, text in (
        ([one, "--protocol", "10corp"], "protocol is '10corp'; did you mean '10crop'"),
        ([str(tmp_path)], "is not a run directory"),
        ([one, "--data", "digitz"], "did you mean 'digits'"),
        ([one, "--data", "synthetic"], "channels; the network takes 1"),
        ([one, "--fit", "1.5"], "--fit is 1.5; it must be at least 0 and below 1"),
        ([one, "--json", "nowhere/x.json"], "there is no directory nowhere"),
        ([one, "--json", str(tmp_path)], "cannot be written: it is a directory"),
        ([one, "--confusion", "x.bmp"], "must end in .png, .svg or .pdf"),
        ([f"{one}@"], "has no view after @"),
        ([one, "--crop", "1.5"], "--crop is 1.5; it must be 0.01 to 1"),
        ([one, "--crop", "1e-300"], "--crop is 1e-300; it must be 0.01 to 1"),
        ([one, "--image-size", "0"], "size is 0; it must be 1 to 10,000 pixels"),
        ([one, "--image-size", f"{10**30}"], "it must be 1 to 10,000 pixels"),
        ([f"{one}@10crop:{10**30}"], "it must be 1 to 10,000"),
        ([one, "--as", "x.py", "--protocol", "center"], "append @VIEW to a network to replace it"),
        ([one, "--bootstrap", f"{10**30}"], "it must be 0 to 1,000,000"),
        ([one, "--bootstrap", "10"], "--bootstrap is 10; it must be 0, or at least 100"),
    ):
        assert main(["evaluate", *arguments]) == 2
        error = capsys.readouterr().err
        assert text in error and error.strip().count("\n") == 0
