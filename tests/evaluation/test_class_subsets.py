"""Test sets that have a part of a network's classes: the other logits are masked."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import photos
import pytest

from jaxcnn.analysis import inside_report
from jaxcnn.data import catalog
from jaxcnn.data.preprocessing import Preprocessing
from jaxcnn.data.readers.imagenet import wordnet_ids
from jaxcnn.evaluation import evaluate, inference, protocols, request

HOW = Preprocessing(32, 1.0, "bilinear", (0.0,) * 3, (1.0,) * 3)
SCALES = np.linspace(-9, 9, 1000)
OWN = (0, 9, 10, 500)  # classes of the test set; class 999 always has the largest logit


class Lines(nn.Module):
    """Logits that are lines of the mean pixel."""

    @nn.compact
    def __call__(self, images, *, train=False):
        return images.mean((1, 2, 3))[:, None] * jnp.asarray(SCALES[None], jnp.float32)


ENTRY = evaluate.Entry("lines", lambda **_: Lines(), {}, HOW, 1000)


@pytest.fixture(scope="module")
def test_set(tmp_path_factory):
    root = tmp_path_factory.mktemp("imagenet-r")
    counts = {wordnet_ids()[k]: 2 for k in OWN}
    photos.write_folder(root, {"a": counts}, 32, 32)
    return catalog.open_encoded(f"imagenet:{root / 'a'}", "test")


def test_probabilities_are_those_of_a_network_without_the_others(test_set):
    network = request.Network("lines", protocols.parse_view("center"), "lines")
    (found,), labels = request.predict_all([network], [ENTRY], test_set)
    assert found.shape == (8, 4) and labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    means = np.array([image.mean() / 255 for image, _ in inference.examples(test_set)])
    logits = means[:, None] * SCALES[list(OWN)]
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert (found.argmax(1) == 3).all()
    data = ("imagenet:a", None, "test")
    (note,) = request.notes([network], [ENTRY], data, test_set)
    assert note == "lines: evaluated on 4 of its 1,000 classes, the others are masked"


def test_only_a_part_of_the_network_s_classes_is_one(test_set):
    ids = wordnet_ids()
    assert ENTRY.class_subset(test_set) == OWN
    named = dataclasses.replace(ENTRY, class_names=tuple(f"{i} word" for i in reversed(ids)))
    assert named.class_subset(test_set) == tuple(999 - k for k in OWN)
    ENTRY.check_classes(test_set, "x")
    few = dataclasses.replace(ENTRY, classes=6, class_names=ids[:6])
    with pytest.raises(ValueError, match="predicts 6 classes, but x has 4"):
        few.check_classes(test_set, "x")
    words = dataclasses.replace(test_set, class_names=("a", "b", "c", "d"))
    with pytest.raises(ValueError, match="predicts 1000 classes, but x has 4"):
        ENTRY.check_classes(words, "x")


def test_pictures_of_predictions_are_of_the_classes_of_the_set(test_set):
    probabilities = np.full((8, 1000), 1e-4, np.float32)
    probabilities[:, 999] = 0.5
    probabilities[np.arange(8), np.repeat(OWN, 2)] = 0.2
    found, names = inside_report.of_test_set(ENTRY, test_set, probabilities)
    assert len(names) == 4 and found.shape == (8, 4)
    assert found.argmax(1).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    np.testing.assert_allclose(found.max(1), 0.2 / 0.2003, rtol=1e-4)
