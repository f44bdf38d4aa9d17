"""What is inside a network: filters, maps and features against the network's own functions."""

import io

import flax.linen as nn
import jax
import numpy as np
import pytest
from drawing import draw_images, draw_variables
from PIL import Image

import jaxcnn
from jaxcnn import weights
from jaxcnn.analysis import inside, inside_pictures
from jaxcnn.cli import main
from jaxcnn.evaluation.tables import confusion_figure
from jaxcnn.training import checkpoint_steps, load_run, read_config, set_duration, train


@pytest.fixture(scope="module")
def lenet():
    model = jaxcnn.create_model("lenet5")
    return model, draw_variables(model, (1, 32, 32, 1))


def test_first_filters_are_the_first_kernel(lenet):
    model, variables = lenet
    name, kernels = inside.first_filters(model, variables, 32)
    assert name == "conv1" and kernels.shape == (6, 5, 5, 1)
    kernel = np.asarray(variables["params"]["conv1"]["kernel"])
    np.testing.assert_array_equal(kernels[3, :, :, 0], kernel[:, :, 0, 3])
    figure = inside_pictures.draw_filters(name, kernels)
    shown = figure.axes[0].images[0].get_array()
    middle = np.ma.filled(shown[:5, :5], np.nan)
    np.testing.assert_allclose(middle, kernels[0, ..., 0] / (2 * abs(kernels[0]).max()) + 0.5)


def test_feature_maps_are_in_order_and_those_of_the_network(lenet):
    model, variables = lenet
    image = draw_images((32, 32, 1))
    maps = inside.feature_maps(model, variables, np.asarray(image))
    assert {name: m.shape for name, m in maps.items()} == {
        "conv1": (28, 28, 6), "stage1": (14, 14, 6), "conv2": (10, 10, 16), "stage2": (5, 5, 16)
    }  # fmt: skip
    stages = jaxcnn.endpoints(model, variables, image[None])
    np.testing.assert_allclose(maps["stage2"], stages["stage2"][0], rtol=1e-5, atol=1e-6)
    figure = inside_pictures.draw_feature_maps(np.zeros((32, 32, 1), np.uint8), maps)
    assert [axes.get_ylabel().split("\n")[0] for axes in figure.axes[1:]] == list(maps)


def test_features_are_the_input_of_the_classifier(lenet):
    model, variables = lenet
    images = draw_images((3, 32, 32, 1))
    features = jax.jit(inside.make_features(model))(variables, images)
    expected = jaxcnn.endpoints(model, variables, images)["pre_logits"]
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)


class Own(nn.Module):
    num_classes: int = 3

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Conv(self.num_classes, (3, 3), (2, 2))(x).mean((1, 2))


def test_a_network_without_endpoints_and_dense_layer():
    model, images = Own(), draw_images((2, 8, 8, 3))
    variables = model.init(jax.random.key(0), images)
    maps = inside.feature_maps(model, variables, np.asarray(images[0]))
    assert {name: m.shape for name, m in maps.items()} == {"Conv_0": (4, 4, 3)}
    features = inside.make_features(model)(variables, images)
    np.testing.assert_array_equal(features, model.apply(variables, images))


def test_neighbors_stay_neighbors():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    features = rng.normal(size=(60, 20)) + 10 * labels[:, None]
    places = inside.embed(features.astype(np.float32))
    distances = np.linalg.norm(places[:, None] - places[None], axis=-1) + 1e9 * np.eye(60)
    assert (labels[distances.argmin(1)] == labels).all()
    with pytest.raises(ValueError, match="4 examples are too few"):
        inside.embed(features[:4])


def test_most_certain():
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.01, 0.99], [0.8, 0.2]])
    labels = np.array([0, 1, 1, 0, 0])
    assert inside.most_certain(probabilities, labels, 2) == ([0, 4], [3, 1])


def test_confusion_shows_precision_and_recall():
    labels = np.array([0, 0, 0, 0, 1, 1, 2])
    predicted = np.array([0, 0, 0, 1, 1, 0, 1])
    figure = confusion_figure(np.eye(3)[predicted], labels, ["a", "b", "c"])
    texts = {tuple(t.get_position()): t.get_text() for t in figure.axes[0].texts}
    assert [texts[3.1, i] for i in range(3)] == ["75", "50", "0"]  # recall
    assert [texts[i, 3.1] for i in range(3)] == ["75", "33", "–"]  # precision
    assert texts[0, 0] == "3" and texts[1, 2] == "1"


def test_class_names_that_matplotlib_would_interpret(tmp_path):
    names = ["$a_{", "caf\udce9", "_x"]
    figure = confusion_figure(np.eye(3, dtype=np.float32), np.arange(3), names)
    figure.savefig(tmp_path / "confusion.png")
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == [r"\$a_{", "caf?", " _x", "recall %"]


def test_command(tmp_path, capsys, lenet):
    _, variables = lenet
    file = tmp_path / "lenet.safetensors"
    weights.save(file, "lenet5", variables)
    out = tmp_path / "out"
    argv = ["inspect", str(file), "--data", "digits", "--examples", "40", "--out", str(out)]
    assert main(argv) == 0
    names = ["filters", "maps_example", "confusion", "certain", "features"]
    assert capsys.readouterr().out.split() == [str(out / f"{name}.png") for name in names]
    assert all((out / f"{name}.png").read_bytes()[:4] == b"\x89PNG" for name in names)
    assert main([*argv[:2], "--examples", "4"]) == 2
    assert "--examples is 4" in capsys.readouterr().err


def test_images_of_one_name_and_one_that_cannot_be_read(tmp_path, capsys, lenet):
    _, variables = lenet
    weights.save(tmp_path / "lenet.safetensors", "lenet5", variables)
    images = [tmp_path / folder / "$a_{.png" for folder in ("cat", "dog")]
    for image in images:
        image.parent.mkdir()
        Image.new("L", (32, 32), 9).save(image)
    given = [str(images[0]), "missing.png", str(images[1])]
    out = tmp_path / "out"
    assert main(["inspect", str(tmp_path / "lenet.safetensors"), *given, "--out", str(out)]) == 2
    assert {path.name for path in out.iterdir()} == {
        "filters.png", "maps_$a_{.png", "maps_$a_{_2.png"
    }  # fmt: skip
    assert capsys.readouterr().err == "jaxcnn: error: missing.png does not exist\n"


def test_names_of_classes_in_pictures():
    names = {
        "n01855672": "n01855672",
        "n01855672 goose, honker": "goose",
        "nightingale": "nightingale",
    }
    assert [inside_pictures._short(name) for name in names] == list(names.values())


def test_an_animation_shows_each_step_on_one_scale():
    kernels = np.zeros((2, 3, 3, 1), np.float32)
    kernels[0, 0, 0] = 1
    frames = {0: kernels, 1000: -kernels, 2000: 0.5 * kernels}
    content = io.BytesIO(inside_pictures.animate_filters("conv1", frames))
    with Image.open(content) as animation:
        assert (animation.format, animation.n_frames, animation.info["loop"]) == ("GIF", 3, 0)
        shown = []
        for i in range(3):
            animation.seek(i)
            shown.append(np.asarray(animation.convert("L")))
    different = np.argwhere((shown[0] == 255) & (shown[1] == 0))  # the pixel of the first kernel
    y, x = np.median(different, axis=0).astype(int)
    assert shown[2][y, x] == pytest.approx(0.75 * 255, abs=2)


def test_filters_of_a_run_are_animated_over_its_checkpoints(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = read_config("lenet_digits:smoke", ["train.devices=1", "data.test_split=test[:40]"])
    set_duration(config.checkpoint, "every", steps=2)
    list(train(config, "run"))
    steps = checkpoint_steps("run")
    assert len(steps) > 1 and [load_run("run", step).step for step in steps] == steps
    with pytest.raises(ValueError, match=f"no checkpoint of step 77 in .*, but of {steps[0]}, "):
        load_run("run", 77)
    assert main(["inspect", "run", "--out", "out"]) == 0
    assert capsys.readouterr().out.split()[-1] == "out/filters.gif"
    with Image.open("out/filters.gif") as animation:
        assert animation.n_frames == len(steps)
