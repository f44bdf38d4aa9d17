"""One training step of torchvision's and timm's networks: loss, gradients, updated statistics.

The files in `golden/train` hold what PyTorch computed in float64, with dropout off, for weights and
images that `golden/weights.py` makes. Of each gradient they have the norm and 16 elements.
"""

import numpy as np
import pytest
import scipy.special
from golden import weights
from whole_step import as_type, build, compiled_step, precision

from jaxcnn.weights import from_torch, to_torch

pytestmark = pytest.mark.optimized

# file -> id, where they differ
IDS = {
    "alexnet": "alexnet_owt",
    "googlenet": "googlenet_bn",
    "legacy_seresnet50": "se_resnet50",
    "resnetv2_50": "resnet50_v2",
    "vgg11_bn": "vgg_a_bn",
}
FILES = sorted(path.stem for path in (weights.HERE / "train").glob("*.npz"))
QUICK = ("resnet18",)
FLOAT32 = ("resnet18", "vgg11_bn")  # the others' ReLUs flip


def step(name, dtype):
    """The golden file's entries, and those computed here under torch's names and layouts."""
    arrays, meta = weights.load(f"train/{name}")
    images = np.concatenate([weights.drawn_images(text, meta["size"]) for text in meta["images"]])
    ours = IDS.get(name, name)
    variables = from_torch(ours, weights.state_dict(meta))
    model = build(ours, dtype)
    labels = np.asarray(arrays["labels"], np.int32)
    with precision(dtype):
        run = compiled_step(model, meta["aux_weight"])
        found = run(*as_type((variables, images), dtype), labels)
    tensors = to_torch(ours, {"params": found["gradients"], "batch_stats": found["statistics"]})
    return arrays, meta, found, tensors


def probes(a):
    flat = np.ravel(np.asarray(a, np.float64))
    return flat[np.arange(16) * (flat.size - 1) // 15]


def worst(names, tensors, norms, expected_probes):
    """The largest error of a norm or a probe, over the tensor's norm or largest probe."""
    errors = {}
    for name, norm, expected in zip(names, norms, expected_probes, strict=True):
        a = tensors[name]
        of_norm = abs(np.linalg.norm(np.ravel(a).astype(np.float64)) - norm) / norm
        of_probes = np.abs(probes(a) - expected).max() / np.abs(expected).max()
        errors[name] = max(of_norm, of_probes)
    return max(errors.items(), key=lambda item: item[1])


def cross_entropy(logits, labels):
    """Mean over the batch, in float64."""
    logits = np.asarray(logits, np.float64)
    return -scipy.special.log_softmax(logits, -1)[np.arange(len(labels)), labels].mean()


def check(name, dtype, limit):
    arrays, meta, found, tensors = step(name, dtype)
    live = [meta["parameters"].index(parameter) for parameter in meta["live"]]
    # The step reports the loss without the auxiliary heads, whose part the gradients have.
    loss = arrays["loss"] - meta["aux_weight"] * sum(
        cross_entropy(arrays[key], arrays["labels"]) for key in arrays if key.startswith("aux_")
    )
    errors = {
        "loss": abs(found["loss"] - loss) / loss,
        "gradients": worst(
            meta["live"], tensors, arrays["gradient_norms"][live], arrays["gradient_probes"][live]
        ),
        "images": worst(
            ["images"], {"images": np.moveaxis(found["images"], -1, 1)},
            [arrays["image_gradient_norm"]], [arrays["image_gradient_probes"]],
        ),
    }  # fmt: skip
    if meta["buffers"]:
        errors["statistics"] = worst(
            meta["buffers"], tensors, arrays["statistics_norms"], arrays["statistics_probes"]
        )
    print(name, np.dtype(dtype).name, errors)
    for kind, error in errors.items():
        assert (error[1] if isinstance(error, tuple) else error) <= limit, (kind, error)


def marked(names):
    return [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in names]


@pytest.mark.parametrize("name", marked(FILES))
def test_step_in_float64(name):
    check(name, np.float64, 1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("name", FLOAT32)
def test_step_in_float32(name):
    check(name, np.float32, 1e-4)
