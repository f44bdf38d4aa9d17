"""Image files as a network sees them, against the same in NumPy."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxcnn
from jaxcnn import cli
from jaxcnn.data.decode import decode
from jaxcnn.evaluation import predict, protocols
from jaxcnn.weights import Preprocessing, loading

HOW = Preprocessing(32, 0.875, "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def picture(width, height, channels=3):
    """A smooth pattern with noise, u8[H,W,C]."""
    random = np.random.default_rng(width * height)
    y, x = np.mgrid[:height, :width]
    wave = 127 + 90 * np.sin(x / 9)[..., None] * np.cos(y[..., None] / 7 + np.arange(channels))
    return np.clip(wave + random.normal(0, 12, wave.shape), 0, 255).astype(np.uint8)


def filter_weights(length, target, kind):
    """Rows of an antialiased resizing, f64[target, length]: the filter stretched by the scale."""
    scale = length / target
    stretch = max(scale, 1.0)
    centers = (np.arange(target) + 0.5) * scale
    t = np.abs(np.arange(length)[None] + 0.5 - centers[:, None]) / stretch
    if kind == "bilinear":
        w = np.maximum(1 - t, 0)
    else:  # Keys's cubic with a = -0.5
        a = -0.5
        near = ((a + 2) * t - (a + 3)) * t**2 + 1
        far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
        w = np.where(t < 1, near, np.where(t < 2, far, 0))
    return w / w.sum(1, keepdims=True)


def expected(pixels, how):
    height, width, _ = pixels.shape
    short = math.floor(how.size / how.crop)
    new_h, new_w = (
        (short, int(short * width / height))
        if height < width
        else (int(short * height / width), short)
    )
    across = filter_weights(width, new_w, how.interpolation)
    down = filter_weights(height, new_h, how.interpolation)
    x = np.einsum("ph,hwc->pwc", down, np.einsum("qw,hwc->hqc", across, pixels.astype(float)))
    x = np.clip(x, 0, 255)
    top, left = (round((n - how.size) / 2.0) for n in (new_h, new_w))
    x = x[top : top + how.size, left : left + how.size]
    return (x / 255 - how.mean) / how.std


@pytest.mark.parametrize("size", [(90, 60), (61, 140), (32, 32), (20, 25), (100, 100)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("crop", [0.875, 0.965, 1.0])
def test_preprocessing_is_its_definition(size, interpolation, crop):
    how = Preprocessing(32, crop, interpolation, HOW.mean, HOW.std)
    pixels = picture(*size)
    got = predict.preprocess(Image.fromarray(pixels), how)
    assert got.shape == (32, 32, 3) and got.dtype == np.float32
    off = np.abs(got - expected(pixels, how)) * np.array(how.std) * 255
    # Pillow rounds to whole gray values after each of its two passes.
    assert off.max() < 1.6 and off.mean() < 0.5


def test_sizes_and_crops_of_published_weights():
    # (size, crop) to the shorter side
    for (size, crop), short in {
        (224, 0.875): 256, (224, 0.965): 232, (299, 0.875): 341, (299, 0.8975): 333,
        (288, 1.0): 288, (288, 0.95): 303,
    }.items():  # fmt: skip
        image = Image.fromarray(picture(short, short + 51))
        how = Preprocessing(size, crop, "bilinear", (0.0,) * 3, (1.0,) * 3)
        top, left = (round((n - size) / 2) for n in (short + 51, short))
        inside = np.asarray(image)[top : top + size, left : left + size]
        # The shorter side is right already: nothing is resized.
        np.testing.assert_array_equal(predict.preprocess(image, how), np.float32(inside) / 255)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "CMYK", "P", "1", "I;16"])
def test_any_kind_of_image_becomes_rgb(tmp_path, mode):
    rgb = Image.fromarray(picture(50, 40))
    image = rgb.convert("I").convert("I;16") if mode == "I;16" else rgb.convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(picture(50, 40, 1)[..., 0]))
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    image.save(path, quality=100) if mode == "CMYK" else image.save(path)
    read = predict.read_image(path)
    assert read.mode == "RGB" and read.size == (50, 40)
    if mode in ("RGB", "RGBA"):  # alpha is dropped, not blended
        np.testing.assert_array_equal(np.asarray(read), np.asarray(rgb))
    elif mode == "L":
        np.testing.assert_array_equal(np.asarray(read)[..., 1], np.asarray(image))
    assert np.isfinite(predict.preprocess(read, HOW)).all()
    gray = predict.read_image(path, 1)
    how = Preprocessing(28, 1.0, "bilinear", (0.5,), (0.5,))
    assert gray.mode == "L" and predict.preprocess(gray, how).shape == (28, 28, 1)


def test_rotation_in_exif_is_ignored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(50, 40)).save(tmp_path / "x.jpg", exif=exif)
    assert predict.read_image(tmp_path / "x.jpg").size == (50, 40)


def test_files_that_are_no_images_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.png does not exist"):
        predict.read_image(tmp_path / "none.png")
    path = tmp_path / "x.png"
    Image.fromarray(picture(50, 40)).save(path)
    for content in (b"", b"text", path.read_bytes()[:200]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"x.png cannot be read as an image"):
            predict.read_image(path)


def test_answers_are_the_networks_in_order(tmp_path):
    paths = []
    for i in range(5):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(picture(40 + i, 50)).save(paths[-1])
    model = jaxcnn.create_model("resnet20_cifar", blocks=(1, 1, 1))
    variables = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    names = [f"name {i}" for i in range(10)]
    found = list(predict.predict_files(model, variables, paths, HOW, names, top=3, batch_size=2))
    inputs = np.stack([predict.preprocess(predict.read_image(p), HOW) for p in paths])
    logits = np.asarray(model.apply(variables, inputs), np.float64)
    wanted = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert len(found) == 5
    for answers, row in zip(found, wanted):
        assert [a.index for a in answers] == list(np.argsort(-row)[:3])
        assert [a.name for a in answers] == [names[a.index] for a in answers]
        np.testing.assert_allclose(
            [a.probability for a in answers], np.sort(row)[:-4:-1], rtol=1e-4
        )


def test_what_training_decodes_is_what_is_predicted_of(tmp_path):
    gray = np.linspace(0, 65535, 64)[None].repeat(48, 0)
    for name, pixels in {"a.png": np.uint16(gray), "b.tif": np.float32(gray / 65535)}.items():
        Image.fromarray(pixels).save(tmp_path / name)
    Image.fromarray(picture(50, 40)).save(tmp_path / "c.jpg", quality=70)
    for path in tmp_path.iterdir():
        pixels = decode(path.read_bytes())
        np.testing.assert_array_equal(predict.read_image(path), pixels)
        assert len(np.unique(pixels)) >= 64
    (tmp_path / "page.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(ValueError, match=r"page.png cannot be .* an image: it is not an image"):
        predict.read_image(tmp_path / "page.png")


def test_a_narrow_image_is_refused_before_it_is_enlarged(tmp_path):
    """A file of some hundred bytes: at 32 pixels in height it would be 6,400,000 wide."""
    Image.fromarray(np.zeros((1, 200_000), np.uint8)).save(tmp_path / "narrow.png")
    text = "is too narrow: resized to {}, it has more than 100,000,000 pixels"
    wide = text.format("7200000 x 36")  # the shorter side of a crop of 32 pixels / 0.875
    with pytest.raises(ValueError, match=rf"narrow.png cannot be used: it {wide}"):
        predict.preprocess_file(tmp_path / "narrow.png", HOW)
    with pytest.raises(ValueError, match=text.format("6400000 x 32")):
        protocols.shorter_side(np.zeros((1, 200_000, 1), np.uint8), 32)


def small_network():
    model = jaxcnn.create_model("resnet20_cifar", blocks=(1, 1, 1))
    return model, model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))


def test_what_cannot_be_read_is_named_and_the_others_are_answered(tmp_path, capsys):
    for name in ("a", "c", "e"):
        Image.fromarray(picture(40, 50)).save(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_bytes(b"text")
    (tmp_path / "d.jpg").write_bytes(b"")
    (tmp_path / "._a.png").write_bytes(b"text")
    model, variables = small_network()
    paths = predict.image_paths([str(tmp_path)], [])
    bad, names = [], [f"name {i}" for i in range(10)]
    found = list(
        predict.predict_files(
            model, variables, paths, HOW, names, batch_size=2, on_bad=lambda *what: bad.append(what)
        )
    )
    assert [len(answers) for answers in found] == [5, 0, 5, 0, 5]
    assert found[0] == found[2] == found[4]
    assert [Path(path).name for path, _ in bad] == ["b.png", "d.jpg"]
    weights = tmp_path / "w.safetensors"
    loading.save(weights, "resnet20_cifar", variables, blocks=(1, 1, 1))
    assert cli.main(["predict", str(weights), str(tmp_path), "--top", "1"]) == 2
    printed = capsys.readouterr()
    assert [line for line in printed.out.splitlines() if line[0] != " "] == [
        str(tmp_path / f"{name}.png") for name in "ace"
    ]
    assert printed.err.count("cannot be read as an image") == printed.err.count("\n") == 2


def test_inputs_that_are_not_finite_are_refused(tmp_path):
    """A network may answer them: XLA may drop a NaN at a ReLU."""
    Image.fromarray(picture(40, 50)).save(tmp_path / "a.png")
    model, variables = small_network()
    how = Preprocessing(32, 0.875, "bilinear", (0.5, 0.5, float("nan")), (0.2, 0.2, 0.2))
    names = [f"name {i}" for i in range(10)]
    with pytest.raises(ValueError, match="images are not finite after normalization"):
        list(predict.predict_files(model, variables, [tmp_path / "a.png"], how, names))


def test_imagenet_names():
    names = predict.imagenet_names()
    assert len(set(names)) == 1000 and list(names) == sorted(names)
    assert names[0] == "n01440764 tench" and names[999] == "n15075141 toilet tissue"
    assert predict.default_names(1000) == names and predict.default_names(2) == (
        "class 0",
        "class 1",
    )


def test_files_folders_and_standard_input_are_named(tmp_path):
    for name in ("b.jpg", "sub/a.PNG", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    inside = [str(tmp_path / "b.jpg"), str(tmp_path / "sub" / "a.PNG")]
    found = predict.image_paths(["x.jpg", str(tmp_path), "-"], ["one.jpg\n", "\n", "two.jpg"])
    assert found == ["x.jpg", *inside, "one.jpg", "two.jpg"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty contains no image"):
        predict.image_paths([str(tmp_path / "empty")], [])
    with pytest.raises(ValueError, match="no image is given"):
        predict.image_paths(["-"], ["\n"])
