"""Networks at different sizes and protocols in one call; dense forms; photos that stream."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import photos
import pytest
from PIL import Image

from jaxcnn import create_model
from jaxcnn.cli import main
from jaxcnn.data import catalog
from jaxcnn.data.catalog import open_encoded
from jaxcnn.data.preprocessing import Preprocessing
from jaxcnn.evaluation import evaluate, protocols, request
from jaxcnn.weights import loading

GREY = ((0.5,) * 3, (0.25,) * 3)


def entry_of(name, size, **options):
    """A network with drawn weights, as `open_entry` gives it."""
    model = create_model(name, num_classes=5, **options)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, size, size, 3)))
    variables = jax.tree.map(lambda x: 3 * x, variables)
    how = Preprocessing(size, 1.0, "bilinear", *GREY)
    return evaluate.Entry("drawn", lambda **more: model.clone(**more), variables, how, 5)


@pytest.fixture(scope="module")
def vgg():
    return entry_of("vgg_a", 32, min_size=32, fc_width=16, widths=(4, 8, 8, 8, 8))


def answers(entry, views, test_set):
    networks = [request.Network("drawn", protocols.parse_view(view), view) for view in views]
    found, labels = request.predict_all(networks, [entry] * len(views), test_set)
    np.testing.assert_array_equal(labels, test_set.labels)
    return np.stack(found)


def test_views_are_read():
    for text in ("center", "10crop:320", "dense::256,384", "144crop:299:300,400"):
        assert str(protocols.parse_view(text)) == text
    view = protocols.parse_view("dense::256,384")
    assert (view.size, view.protocol.sides, view.protocol.dense) == (None, (256, 384), True)


def test_sides_are_those_that_were_asked_for():
    image = np.zeros((40, 60, 3), np.uint8)
    view = protocols.parse_view("dense:32:48,64").protocol
    assert [v.shape[1:3] for v in protocols.all_views(image, view, 32, 1.0)] == [(48, 72), (64, 96)]
    view = protocols.parse_view("10crop:32:36").protocol
    assert [v.shape for v in protocols.all_views(image, view, 32, 1.0)] == [(10, 32, 32, 3)]


def test_dense_form_equals_the_crop_at_the_network_s_own_size(vgg):
    test_set = catalog.load("synthetic", "test[:3]")
    crop, dense, large = answers(vgg, ["flip:32:32", "dense:32:32", "dense:32:64"], test_set)
    np.testing.assert_allclose(dense, crop, atol=1e-5)
    assert large.shape == crop.shape and np.abs(large - crop).max() > 1e-4  # another question


def test_crops_larger_than_the_network_take_its_dense_form(vgg):
    assert not vgg.model_for(protocols.PROTOCOLS["center"], 32).dense
    assert vgg.model_for(protocols.PROTOCOLS["center"], 48).dense
    assert vgg.model_for(protocols.PROTOCOLS["dense"], 32).dense


def test_boxes_are_those_of_the_network_s_own_size():
    """Its dense form, which larger crops take, has no boxes."""
    options = {"min_size": 32, "fc_width": 16, "widths": (4, 8, 8, 8, 8), "box_head": "scr"}
    entry = entry_of("vgg_a", 32, **options)
    test_set = catalog.load("synthetic_boxes:48", "test[:8]")
    own, large = (
        request.Network("drawn", protocols.parse_view(view), view)
        for view in ("center", "center:40")
    )
    errors = request.localization_errors([own, large], [entry, entry], test_set)
    assert errors["center:40"] == errors["center"]


def test_classes_in_another_order_are_refused(vgg):
    test_set = catalog.load("synthetic", "test[:3]")
    other = dataclasses.replace(vgg, classes=10, class_names=test_set.class_names[::-1])
    with pytest.raises(ValueError, match="in another order"):
        other.check_classes(test_set, "synthetic")
    with pytest.raises(ValueError, match="predicts 5 classes, but synthetic has 10"):
        vgg.check_classes(test_set, "synthetic")
    same = dataclasses.replace(vgg, classes=10, class_names=test_set.class_names)
    same.check_classes(test_set, "synthetic")


@pytest.mark.parametrize("kind", ["folder", pytest.param("archive", marks=pytest.mark.slow)])
def test_photos_that_stream_by_several_protocols(kind, tmp_path, capsys):
    """The command's counts are those of answers worked out image by image."""
    names = ("ant", "bee", "cat", "dog", "elk")
    counts = {"train": dict.fromkeys(names, 1), "val": dict(zip(names, (4, 3, 2, 1, 3)))}
    root = photos.write_folder(tmp_path / "set", counts, 40, 60)
    source = f"folder:{root}"
    if kind == "archive":
        assert main(["prepare", source, str(tmp_path / "archived")]) == 0
        source = f"archive:{tmp_path / 'archived'}"
    options = {"width": 4, "blocks": (1,), "stem": (4,)}
    drawn = entry_of("resnet18", 32, **options)
    weights, out = str(tmp_path / "w.safetensors"), tmp_path / "e.json"
    loading.save(weights, "resnet18", drawn.variables, preprocessing=drawn.preprocessing, **options)
    views = ("center", "10crop:40", "dense:32:36,48")
    given = [f"{weights}@{view}" for view in views]
    assert main(["evaluate", *given, "--data", source, "--ensemble", "--json", str(out)]) == 0
    assert f"{source} (test), several protocols, 13 examples" in capsys.readouterr().out
    rows = json.loads(out.read_text())["rows"]
    assert [row.get("protocol") for row in rows[:4]] == [*views, None]
    test_set = open_encoded(source, "test")
    apply = jax.jit(create_model("resnet18", num_classes=5, **options).apply)

    def wrong(sides, crop=None):
        count = 0
        for i in range(len(test_set)):
            data, label = test_set.read(i)
            (tmp_path / "one.jpg").write_bytes(data)
            picture = Image.open(tmp_path / "one.jpg").convert("RGB")
            total = 0
            for side in sides:
                width, height = picture.size
                short = min(width, height)
                new = picture.resize((side * width // short, side * height // short), 2)
                x = np.asarray(new, np.float32) / 255
                if crop:
                    top, left = (round((n - crop) / 2) for n in x.shape[:2])
                    x = x[top : top + crop, left : left + crop]
                both = np.stack([x, x[:, ::-1]] if not crop else [x])
                logits = apply(drawn.variables, (both - 0.5) / 0.25)
                total = total + jax.nn.softmax(logits, -1).mean(0)
            count += int(np.argmax(total) != label)
        return count

    assert rows[0]["wrong"] == wrong([32], 32) and rows[2]["wrong"] == wrong([36, 48])
    assert {row["examples"] for row in rows} == {13}
