import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import last_checkpoint, run, small_config

import jaxcnn
from jaxcnn.training.config import set_duration
from jaxcnn.weights import save


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
