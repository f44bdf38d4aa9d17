from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import last_checkpoint, run, small_config

import jaxcnn
from jaxcnn.training.config import set_duration, validate
from jaxcnn.training.config.files import read_config
from jaxcnn.training.output.trained import load_run
from jaxcnn.training.state import TrainState
from jaxcnn.training.warm_start import open_weights, with_layers
from jaxcnn.weights import Preprocessing, save

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A trunk with seven classes in a file: (path, variables)."""
    model = jaxcnn.create_model("lenet5_modern", num_classes=7)
    variables = model.init(jax.random.key(5), jnp.zeros((1, 32, 32, 1)))
    path = tmp_path_factory.mktemp("weights") / "trunk.safetensors"
    save(path, "lenet5_modern", variables)
    return path, variables


def digits(path):
    config = small_config(steps=2, batch_size=16, model="lenet5_modern")
    config.data.source = "digits"
    config.model.weights = str(path)
    for section in (config.eval, config.checkpoint):
        set_duration(section, "every", steps=2)
    return config


def test_frozen_trunk_stays_and_the_new_head_learns(weights, tmp_path):
    path, variables = weights
    config = digits(path)
    heads = {name for name, leaf in variables["params"].items() if leaf["kernel"].shape[-1] == 7}
    assert len(heads) == 1
    (head,) = heads
    rates = ((f"(?!{head}/).*", 0.0), (f"{head}/.*", 1.0))
    config.optimizer = {"name": "sgd", "rates": rates}
    config.train.ema_decay = 0.5
    reports = run(config, tmp_path)
    assert reports[-1].kind == "end"
    assert [r.values["text"] for r in reports if r.kind == "notice"] == []
    _, state, _ = last_checkpoint(tmp_path)
    checked = 0
    for name, leaves in variables["params"].items():
        for leaf, value in leaves.items():
            for where in ("['params']", "['ema']['params']"):
                found = state[f"{where}['{name}']['{leaf}']"]
                if name == head:
                    assert found.shape[-1] == 10 and np.any(found)
                else:
                    np.testing.assert_allclose(found, value, rtol=1e-6)
                    checked += 1
    assert checked >= 8


def test_weights_of_another_network(weights, tmp_path):
    config = digits(weights[0])
    config.model.name = "lenet5_1998"
    with pytest.raises(ValueError, match="lenet"):
        run(config, tmp_path)


def test_a_run_begins_with_the_weights_of_another(tmp_path):
    first = digits("")
    first.model.weights = None
    run(first, tmp_path / "first")
    config = digits(tmp_path / "first")
    config.optimizer = {"name": "sgd", "rates": ((r"fc.*", 1.0), (r"(?!fc).*", 0.0))}
    run(config, tmp_path / "second")
    before, after = (load_run(tmp_path / name).variables["params"] for name in ("first", "second"))
    frozen = [name for name in before if not name.startswith("fc")]
    for name in frozen:
        jax.tree.map(np.testing.assert_array_equal, before[name], after[name])
    assert frozen
    config.model.name, config.optimizer = "lenet5_1998", {"name": "sgd"}
    with pytest.raises(ValueError, match="is a run of 'lenet5_modern', not of 'lenet5_1998'"):
        run(config, tmp_path / "third")


VGG = {"widths": (4, 8, 8, 8, 8), "fc_width": 32, "min_size": 32}


def test_some_layers_of_another_network(tmp_path):
    """The recipe's: net A's first four convolutions and three last layers, the others afresh."""
    config = read_config(str(ROOT / "configs" / "vgg.py") + ":d,staged", ["model.weights=x"])
    only = config.model.weights_only
    small, deep = (jaxcnn.create_model(name, num_classes=10, **VGG) for name in ("vgg_a", "vgg_d"))
    images = jnp.zeros((1, 32, 32, 3))
    path = tmp_path / "vgg_a.safetensors"
    stored = small.init(jax.random.key(1), images)
    save(path, "vgg_a", stored, **VGG)
    fresh = deep.init(jax.random.key(2), images)
    state = TrainState(step=0, params=fresh["params"], batch_stats={}, opt_state=(), ema=None)
    begun = with_layers(state, open_weights(str(path)), only).params
    of_a = {"block1/conv1", "block2/conv1", "block3/conv1", "block3/conv2", "fc6", "fc7", "fc8"}
    leaves = jax.tree_util.tree_leaves_with_path(begun)
    taken = set()
    for where, leaf in leaves:
        name = jax.tree_util.keystr(where, simple=True, separator="/")
        layer = name.rpartition("/")[0]
        source = stored["params"] if layer in of_a else fresh["params"]
        for key in name.split("/"):
            source = source[key]
        np.testing.assert_array_equal(leaf, source, err_msg=name)
        taken |= {layer} & of_a
    assert taken == of_a and len(leaves) == 2 * 16
    with pytest.raises(ValueError, match=r"weights_only is 'conv9'; no layer has such a path"):
        with_layers(state, open_weights(str(path)), "conv9")
    with pytest.raises(ValueError, match=r"block1/conv2/bias is not in .*vgg_a"):
        with_layers(state, open_weights(str(path)), "block1/conv2")


def test_weights_for_images_of_another_scale_are_told(weights, tmp_path, capfd):
    _, variables = weights
    path = tmp_path / "w.safetensors"
    how = Preprocessing(32, 1.0, "bilinear", (0.5,), (1 / 255,))
    save(path, "lenet5_modern", variables, preprocessing=how)
    state = TrainState(step=0, params=variables["params"], batch_stats={}, opt_state=(), ema=None)
    for std, told in ((0.3, True), (0.004, False)):
        with_layers(state, open_weights(str(path)), "conv1", (std,))
        assert ("was trained on images divided by" in capfd.readouterr().err) == told


def test_layers_need_weights():
    with pytest.raises(ValueError, match=r"weights_only is set, but config\.model\.weights is not"):
        validate(read_config(str(ROOT / "configs" / "vgg.py") + ":d,staged"))


def test_the_optimizer_begins_with_the_weights_of_the_warm_start(weights, tmp_path):
    """Schedule-free SGD keeps the parameters that it started from in its state."""
    path, variables = weights
    config = digits(path)
    config.optimizer = {"name": "optax.contrib:schedule_free_sgd"}
    config.schedule = {"name": "constant", "learning_rate": 1e-6}
    set_duration(config.train, "length", steps=1)
    run(config, tmp_path / "run")
    _, state, _ = last_checkpoint(tmp_path / "run")
    start = variables["params"]["conv1"]["kernel"]
    np.testing.assert_allclose(state["['params']['conv1']['kernel']"], start, atol=1e-4)


def test_the_names_of_layers_are_a_regular_expression_by_itself(weights):
    """With flags, which may only be at its beginning."""
    state = TrainState(0, {"conv1": {"kernel": jnp.zeros((5, 5, 1, 6))}}, {}, ())
    found = with_layers(state, open_weights(str(weights[0])), "(?i)CONV1")
    assert np.abs(found.params["conv1"]["kernel"]).max() > 0
