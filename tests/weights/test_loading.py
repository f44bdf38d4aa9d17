"""Networks from files and from the hub's cache, and other heads."""

import http.server
import json
import logging
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hub_client import set_constant
from torch_like import equal, state_dict

import jaxcnn
from jaxcnn import weights
from jaxcnn.models import registry
from jaxcnn.weights import files, hub, layout, pretrained

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty hub cache, and no network."""
    set_constant(monkeypatch, "HF_HUB_CACHE", str(tmp_path / "hub"))
    set_constant(monkeypatch, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def put_in_cache(cache, name, arrays):
    """Lays weights down as the hub's client does after a download."""
    folder = cache / f"models--timm--{name}"
    snapshot = folder / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(REVISION)
    files.write(snapshot / "model.safetensors", arrays, {"format": "pt"})


def test_published_weights_come_from_the_cache(cache):
    state = state_dict("resnet18")
    put_in_cache(cache, "resnet18.tv_in1k", state)
    model, variables = jaxcnn.load_pretrained("resnet18.tv_in1k")
    assert model == jaxcnn.create_model("resnet18")
    assert equal(variables, weights.from_torch("resnet18", state))
    model, variables = jaxcnn.load_pretrained("resnet18.tv_in1k", num_classes=0, dtype=jnp.bfloat16)
    assert model == jaxcnn.create_model("resnet18", num_classes=0, dtype=jnp.bfloat16)
    assert "fc" not in variables["params"]


def test_what_is_not_in_the_cache_is_named_with_its_address(cache):
    with pytest.raises(ValueError) as error:
        jaxcnn.load_pretrained("resnet50.a1_in1k")
    text = str(error.value)
    assert "'resnet50.a1_in1k' are not in the cache" in text and str(cache) in text
    assert "HF_HUB_OFFLINE is set" in text and "\n" not in text
    assert "timm/resnet50.a1_in1k/resolve/main/model.safetensors" in text


@pytest.mark.usefixtures("cache")
def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch, capfd):
    import huggingface_hub

    asked = []

    class Busy(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            asked.append(self.path)
            self.send_error(503)

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Busy)
    url = f"http://127.0.0.1:{server.server_port}/model.safetensors"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(huggingface_hub, "hf_hub_url", lambda repo, file: url)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with pytest.raises(ValueError, match=rf"the hub refused \(HfHubHTTPError\): download {url}"):
        hub.fetch(pretrained.find("vgg16.tv_in1k"))
    server.shutdown()
    thread.join()
    server.server_close()
    with pytest.raises(ValueError, match=r"the hub cannot be reached \(\w+\): download http"):
        hub.fetch(pretrained.find("vgg16.tv_in1k"))
    assert len(asked) == 1
    assert capfd.readouterr() == ("", "")


def test_published_weights_of_another_network(cache):
    with pytest.raises(ValueError, match="are weights of 'vgg_d', not of 'vgg19'"):
        jaxcnn.load_pretrained("vgg16.tv_in1k", model="vgg19")
    with pytest.raises(
        ValueError, match=r"'resnet18' is a network; its weights are resnet18\.a1_in1k"
    ):
        jaxcnn.load_pretrained("resnet18")
    with pytest.raises(ValueError, match=r"did you mean 'resnet50\.tv_in1k'"):
        jaxcnn.load_pretrained("resnet50.tv_in2k")


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
@pytest.mark.parametrize("to", ["jaxcnn", "torch"])
def test_saved_weights_are_loaded_without_saying_what_they_are(tmp_path, suffix, to):
    path = tmp_path / f"weights{suffix}"
    options = {"act": "tanh"}
    variables = weights.from_torch("lenet5", state_dict("lenet5", 7), **options)
    how = weights.Preprocessing(28, 1.0, "bicubic", (0.1,), (0.3,))
    names = [f"digit {i}" for i in range(7)]
    weights.save(path, "lenet5", variables, to=to, preprocessing=how, class_names=names, **options)
    model, loaded = jaxcnn.load_pretrained(path)
    assert model == jaxcnn.create_model("lenet5", num_classes=7, act="tanh")
    assert equal(loaded, variables)
    opened = weights.loading.open_weights(path)
    assert (opened.preprocessing, opened.class_names) == (how, tuple(names))
    _, metadata = files.read(path)
    assert metadata["model"] == "lenet5_modern" and metadata["num_classes"] == "7"
    assert metadata["jaxcnn"] == jaxcnn.__version__
    assert json.loads(metadata["preprocessing"])["size"] == 28


def test_batch_statistics_are_saved_in_our_layout(tmp_path):
    variables = weights.from_torch("resnet20_cifar", state_dict("resnet20_cifar"))
    weights.save(tmp_path / "w.safetensors", "resnet20_cifar", variables)
    arrays, _ = files.read(tmp_path / "w.safetensors")
    kernel = arrays["params/stage1_block1/conv1/kernel"]
    assert np.array_equal(kernel, variables["params"]["stage1_block1"]["conv1"]["kernel"])
    assert "batch_stats/stage1_block1/bn1/var" in arrays
    assert equal(jaxcnn.load_pretrained(tmp_path / "w.safetensors")[1], variables)


def test_a_head_of_another_size_is_made_anew_with_one_line(tmp_path, caplog):
    state = state_dict("googlenet_bn")
    files.write(tmp_path / "w.safetensors", state)
    with caplog.at_level(logging.WARNING):
        model, variables = jaxcnn.load_pretrained(
            tmp_path / "w.safetensors", model="googlenet_bn", num_classes=12
        )
    (record,) = caplog.records
    assert "of 1000 classes is dropped, a new one of 12 is initialized" in record.getMessage()
    assert model.num_classes == 12
    kept = weights.to_torch("googlenet_bn", variables)
    assert all(np.array_equal(kept[k], v) for k, v in state.items() if kept[k].shape == v.shape)
    assert sorted(k for k, v in state.items() if kept[k].shape != v.shape) == [
        "aux1.fc2.bias", "aux1.fc2.weight", "aux2.fc2.bias", "aux2.fc2.weight",
        "fc.bias", "fc.weight",
    ]  # fmt: skip


def test_weights_of_timm_without_a_classifier(tmp_path, caplog):
    state = {k: v for k, v in state_dict("resnet20_cifar").items() if not k.startswith("fc.")}
    files.write(tmp_path / "model.safetensors", state, {"format": "pt"})
    config = {"architecture": "resnet20_cifar", "num_classes": 0}
    (tmp_path / "config.json").write_text(json.dumps(config))
    for classes in (None, 0):
        model, variables = jaxcnn.load_pretrained(
            tmp_path / "model.safetensors", num_classes=classes
        )
        assert model.num_classes == 0 and "fc" not in variables["params"]
    assert not caplog.records
    for classes in (4, 10):  # 10 are the network's own
        model, variables = jaxcnn.load_pretrained(
            tmp_path / "model.safetensors", num_classes=classes
        )
        assert variables["params"]["fc"]["bias"].shape == (classes,)
        message = f"has no classifier, a new one of {classes} is initialized"
        assert message in caplog.records.pop().getMessage()
        kept = weights.to_torch("resnet20_cifar", variables)
        assert all(np.array_equal(kept[key], value) for key, value in state.items())


def test_a_new_head_has_the_values_of_a_new_network(tmp_path):
    files.write(tmp_path / "w.npz", state_dict("lenet5"))
    model, variables = jaxcnn.load_pretrained(tmp_path / "w.npz", model="lenet5", num_classes=12)
    wanted = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 1)))["params"]["fc3"]
    assert np.std(wanted["kernel"]) > 0
    for leaf, value in wanted.items():
        np.testing.assert_allclose(variables["params"]["fc3"][leaf], value, rtol=1e-6)


def test_the_same_size_and_no_head_say_nothing(tmp_path, caplog):
    files.write(tmp_path / "w.npz", state_dict("lenet5", 7))
    for classes in (None, 7, 0):
        jaxcnn.load_pretrained(tmp_path / "w.npz", model="lenet5", num_classes=classes)
    assert not caplog.records


def test_files_that_cannot_be_loaded(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        jaxcnn.load_pretrained(tmp_path / "none.safetensors", model="lenet5")
    path = tmp_path / "w.safetensors"
    files.write(path, state_dict("lenet5"), {"format": "pt", "model": "another program's"})
    with pytest.raises(ValueError, match="does not state its network"):
        jaxcnn.load_pretrained(path)
    with pytest.raises(ValueError, match="do not fit lenet_caffe"):
        jaxcnn.load_pretrained(path, model="lenet_caffe")
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match="not a complete safetensors file"):
        jaxcnn.load_pretrained(path, model="lenet5")
    with pytest.raises(ValueError, match="layout is 'onnx'; it must be one of jaxcnn, torch"):
        weights.save(path, "lenet5", {}, to="onnx")
    with pytest.raises(ValueError, match=r"images is 'caffe'; it is only for files of Caffe"):
        jaxcnn.load_pretrained(path, model="lenet5", images="caffe")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_classes": 10}, "'num_classes' is not an option"),
        ({"class_names": ["a"]}, "class_names has 1 names; there are 10 classes"),
        ({"dtype": jnp.bfloat16}, "cannot be stored"),
    ],
)
def test_what_could_not_be_loaded_again_is_not_saved(tmp_path, given, message):
    variables = weights.from_torch("lenet5", state_dict("lenet5"))
    with pytest.raises(ValueError, match=message):
        weights.save(tmp_path / "w.safetensors", "lenet5", variables, **given)
    assert not list(tmp_path.iterdir())


def test_the_table_names_networks_that_are_here():
    known = set(registry.list_models())
    for entry in weights.WEIGHTS.values():
        assert entry.model in known and entry.repository == f"timm/{entry.name}"
        how = entry.preprocessing
        assert 0.5 < how.crop <= 1 and how.interpolation in ("bilinear", "bicubic")
        assert len(how.mean) == len(how.std) == 3
        assert how.size >= registry.model_info(entry.model).min_size


def test_preprocessing_of_some_weights():
    imagenet = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    half = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    dpn = tuple(v / 255 for v in (124, 117, 104)), (1 / (0.0167 * 255),) * 3
    for name, expected in {
        "resnet50.tv_in1k": (224, 0.875, "bilinear", *imagenet),
        "resnet50.tv2_in1k": (224, 0.965, "bilinear", *imagenet),
        "resnet50.a1_in1k": (288, 1.0, "bicubic", *imagenet),
        "resnet50.a3_in1k": (224, 0.95, "bicubic", *imagenet),
        "vgg16.tv_in1k": (224, 0.875, "bilinear", *imagenet),
        "inception_v3.tv_in1k": (299, 0.875, "bicubic", *half),
        "inception_v4.tf_in1k": (299, 0.875, "bicubic", *half),
        "inception_resnet_v2.tf_in1k": (299, 0.8975, "bicubic", *half),
        "dpn92.mx_in1k": (224, 0.875, "bicubic", *dpn),
        "dpn68b.ra_in1k": (288, 1.0, "bicubic", *imagenet),
        "legacy_senet154.in1k": (224, 0.875, "bilinear", *imagenet),
        "legacy_seresnet18.in1k": (224, 0.875, "bicubic", *imagenet),
    }.items():
        assert weights.WEIGHTS[name].preprocessing == weights.Preprocessing(*expected), name


def test_weights_without_a_word_get_the_networks_own_preprocessing():
    assert pretrained.default_preprocessing("inception_v4").mean == (0.5, 0.5, 0.5)
    assert pretrained.default_preprocessing("resnet20_cifar").crop == 1.0


def test_lists_from_json_are_tuples():
    assert layout.frozen({"a": [1, [2, 3]], "b": "x"}) == {"a": (1, (2, 3)), "b": "x"}
    variables = weights.from_torch(
        "resnet20_cifar", state_dict("resnet20_cifar", blocks=[1, 1, 1]), blocks=[1, 1, 1]
    )
    assert "stage1_block2" not in variables["params"]


def test_import_is_light():
    import subprocess
    import sys

    script = (
        "import sys, jaxcnn; names = {'jax', 'safetensors', 'huggingface_hub', 'torch', 'PIL'}\n"
        "assert not names & set(sys.modules), names & set(sys.modules)\n"
        "import jaxcnn.weights; names.remove('jax')\n"
        "assert not names & set(sys.modules), names & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
