"""The box head, its loss and the challenge's error; a run from end to end."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxcnn.cli import main
from jaxcnn.evaluation import evaluate
from jaxcnn.evaluation.localization import locate
from jaxcnn.metrics import localization
from jaxcnn.models.registry import create_model, endpoints
from jaxcnn.training import train
from jaxcnn.training.config.files import read_config
from jaxcnn.training.optim.losses import box_loss

CONFIG = Path(__file__).parents[2] / "configs" / "localization.py"
IMAGES = jax.ShapeDtypeStruct((2, 32, 32, 1), "float32")
NONE = [0.0] * 4


def test_head_is_an_endpoint_and_leaves_the_logits():
    model, width = create_model("lenet5_modern", box_head="pcr"), 40
    images = jnp.ones((2, 32, 32, 1))
    variables = jax.jit(model.init)(jax.random.key(0), images)
    assert variables["params"]["box_fc"]["kernel"].shape == (84, width)
    assert endpoints(model, variables, images)["box"].shape == (2, width)
    without = {"params": {k: v for k, v in variables["params"].items() if k != "box_fc"}}
    plain = create_model("lenet5_modern").apply(without, images)
    np.testing.assert_array_equal(model.apply(variables, images), plain)


def test_every_family_of_networks_can_have_one():
    for name, size in (
        ("resnet20_cifar", 32),
        ("googlenet", 224),
        ("alexnet", 224),
        ("vgg_a", 224),
    ):
        model = create_model(name, num_classes=3, box_head="pcr")
        images = jax.ShapeDtypeStruct((1, size, size, 3), "float32")
        assert "box_fc" in jax.eval_shape(model.init, jax.random.key(0), images)["params"], name
    shared = create_model("lenet5_modern", box_head="scr")
    params = jax.eval_shape(shared.init, jax.random.key(0), IMAGES)["params"]
    assert params["box_fc"]["kernel"].shape == (84, 4)
    with pytest.raises(ValueError, match="box_head is 'prc'; did you mean 'pcr'"):
        wrong = create_model("lenet5_modern", box_head="prc")
        jax.eval_shape(wrong.init, jax.random.key(0), IMAGES)


def test_loss_in_closed_form():
    labels = jnp.array([0, 1, 1])
    truth = jnp.array([[[0.2, 0.1, 0.6, 0.5], NONE], [NONE, [0, 0, 1, 1]], [NONE, NONE]])
    shared = jnp.array([[0.3, 0.4, 0.4, 0.4], [0.5, 0.5, 1, 0], [9, 9, 9, 9]])
    np.testing.assert_allclose(box_loss(shared, labels, truth), [0, 1, 0], atol=1e-6)
    each = jnp.array([[0.4, 0.4, 0.4, 0.4, 7, 7, 7, 7], [7, 7, 7, 7, 0.5, 0.5, 1, 0.8], [7] * 8])
    found = box_loss(each, labels, truth)
    np.testing.assert_allclose(found, [0.01, 0.04, 0], atol=1e-6)
    assert np.isnan(box_loss(each, jnp.array([2, 1, 1]), truth)[0])


def by_hand(logits, boxes, label, truth, k):
    """The challenge's rule, one guess after another."""
    for guess in np.argsort(-logits, kind="stable")[:k]:
        x, y, w, h = boxes[4 * guess : 4 * guess + 4] if len(boxes) > 4 else boxes
        for top, left, bottom, right in truth:
            across = max(0, min(right, x + w / 2) - max(left, x - w / 2))
            down = max(0, min(bottom, y + h / 2) - max(top, y - h / 2))
            union = (bottom - top) * (right - left) + w * h - across * down
            if guess == label and union > 0 and across * down / union >= 0.5:
                return 0
    return 1


@pytest.mark.parametrize("width", [4, 32])
def test_error_equals_the_rule_by_hand(width):
    random = np.random.RandomState(0)
    logits = random.normal(size=(200, 8))
    labels = np.where(random.rand(200) < 0.5, logits.argmax(-1), random.randint(0, 8, 200))
    corner = random.uniform(0.1, 0.4, (200, 3, 2))
    truth = np.concatenate([corner, corner + random.uniform(0.3, 0.6, corner.shape)], -1)
    truth[:100, 1:] = 0
    near = np.tile([0.5, 0.5, 0.45, 0.45], (200, width // 4))
    boxes = near + random.uniform(-0.1, 0.1, near.shape)
    arguments = (jnp.array(a) for a in (logits, boxes, labels, truth))
    found = localization.errors(*arguments)
    for name, k in zip(localization.ERRORS, (1, 5)):
        rows = zip(logits, boxes, labels, truth)
        right = [by_hand(*row, k) for row in rows]
        assert 20 < sum(right) < 180
        np.testing.assert_array_equal(found[name], right)


def test_any_of_the_boxes_counts_and_a_broken_network_is_wrong():
    logits = jnp.array([[1.0, 0]])
    boxes = jnp.array([[0.5, 0.5, 1, 0.5]])  # half of the image: 0.5 of the whole counts
    for truth, right in (([NONE, [0, 0, 1, 1]], 0), ([NONE, [0, 0, 0.5, 0.5]], 1), ([NONE], 1)):
        found = localization.errors(logits, boxes, jnp.array([0]), jnp.array([truth], float))
        assert found["localization_top1_error"] == right
    broken = localization.errors(
        logits.at[0, 1].set(jnp.nan), boxes, jnp.array([0]), jnp.array([[[0, 0, 1, 1.0]]])
    )
    assert broken["localization_top5_error"] == 1


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(workdir, reports) of a run that is cut short, on two devices."""
    workdir = tmp_path_factory.mktemp("located")
    changed = {
        "train.length_steps": "240",
        "train.batch_size": "64",
        "train.devices": "2",
        "data.train_split": "train[:2048]",
        "data.test_split": "test[:100]",
        "eval.every_steps": "120",
        "eval.batch_size": "64",
    }
    config = read_config(str(CONFIG), changed)
    return workdir, list(train(config, workdir))


def test_learns_and_reports(run):
    _, reports = run
    rows = [r.values for r in reports if r.kind == "eval"]
    assert rows[-1]["box_loss"] < 0.05  # 0.06 and more is the best that one box for all could do
    assert rows[-1]["localization_top5_error"] < 0.8
    assert all(r["localization_top1_error"] >= r["top1_error"] for r in rows)
    assert all(r["localization_top5_error"] <= r["localization_top1_error"] for r in rows)
    assert not [r for r in reports if r.kind == "notice"]


def test_evaluate_agrees_with_training(run, capsys):
    workdir, reports = run
    row = min(
        (r.values for r in reports if r.kind == "eval"), key=lambda r: r["localization_top1_error"]
    )
    report = workdir / "evaluated.json"
    assert main(["evaluate", str(workdir), "--json", str(report)]) in (0, None)
    top1 = 100 * row["localization_top1_error"]
    assert f"localization error of {workdir}: top-1 {top1:.2f} %" in capsys.readouterr().out
    found = json.loads(report.read_text())["rows"][0]
    for name in (*localization.ERRORS, "top1_error"):
        assert found[name] == pytest.approx(row[name], abs=1e-6), name


def test_predict_gives_and_draws_boxes_of_the_photo(run, tmp_path, capsys):
    workdir, _ = run
    image = np.random.RandomState(0).randint(0, 100, (32, 48, 3)).astype(np.uint8)
    image[8:24, 16:32] = (230, 120, 120)
    photo = tmp_path / "photo.png"
    Image.fromarray(image).save(photo)
    asked = ["predict", str(photo), "--weights", str(workdir), "--top", "2", "--json"]
    assert main([*asked, "--draw", str(tmp_path / "drawn")]) in (0, None)
    first = json.loads(capsys.readouterr().out)[0]["top"][0]
    entry = evaluate.open_entry(str(workdir))
    model = entry.make()
    view = image[None, :, 8:40]
    _, _, found = locate(model, entry.variables, list(view), entry.preprocessing, 1)
    top, left, bottom, right = np.clip(found[0, 0], 0, 1) * 32
    np.testing.assert_allclose(first["box"], [left + 8, top, right + 8, bottom], atol=0.06)
    drawn = np.asarray(Image.open(tmp_path / "drawn" / "photo.png"))
    assert drawn.shape == image.shape and (drawn == [255, 48, 48]).all(-1).sum() > 20

    before = photo.read_bytes()
    assert main([*asked, "--draw", str(tmp_path / "drawn" / "..")]) == 2
    assert f"the drawing of {photo} would replace the image" in capsys.readouterr().err
    assert photo.read_bytes() == before


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["data.source=synthetic"], "has no boxes"),
        (["model.options={'channels': 3}"], r"set config.model.options\['box_head'\] to 'scr'"),
        (["loss={'name': 'cross_entropy'}"], "set config.loss.box_weight"),
        (["data.mixup=0.2"], "must be 0 when boxes are learned"),
        (["data.augment=(('trivial_augment', 31),)"], "cannot be combined with boxes"),
    ],
)
def test_refuses_what_does_not_go_together(changed, message, tmp_path):
    config = read_config(str(CONFIG))
    with config.unlocked():
        for text in changed:
            field, value = text.split("=", 1)
            section, name = field.split(".") if "." in field else (None, field)
            value = value if value.startswith("syn") else eval(value)
            if section:
                config[section][name] = value
            else:
                config[name] = value
    with pytest.raises(ValueError, match=message):
        next(iter(train(config, tmp_path / "run")))
