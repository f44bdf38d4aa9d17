"""Networks of one's own: by registration and by address."""

import functools
import os
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import jaxcnn
from jaxcnn import models
from jaxcnn.training.config.checks import check_options
from jaxcnn.weights import loading

SOURCE = """
import flax.linen as nn
from widths import WIDTH  # a file beside this one

class MyNet(nn.Module):
    num_classes: int = 10
    width: int = WIDTH

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.relu(nn.Conv(self.width, (3, 3), 2)(images))
        return nn.Dense(self.num_classes)(x.mean((1, 2)))

class Fixed(nn.Module):
    @nn.compact
    def __call__(self, images, *, train=False):
        return nn.Dense(10)(images.mean((1, 2)))

def make():
    return MyNet()
"""


class Own(nn.Module):
    num_classes: int = 7
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)

    @nn.compact
    def __call__(self, images, *, train=False):
        return nn.Dense(self.num_classes)(images.mean((1, 2)))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current directory, with my_nets.py and the package `pack`."""
    (tmp_path / "my_nets.py").write_text(SOURCE)
    (tmp_path / "widths.py").write_text("WIDTH = 6\n")
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("")
    (tmp_path / "pack" / "nets.py").write_text(SOURCE.replace("widths", "pack.widths"))
    (tmp_path / "pack" / "widths.py").write_text("WIDTH = 4\n")
    (tmp_path / "pack" / "nameless.py").write_text("import os\nclass MyNet(Module): ...\n")
    (tmp_path / "pack" / "importing.py").write_text("import pack.nameless\n")
    (tmp_path / "pack" / "broken.py").write_text("raise SystemExit(1)\n")
    (tmp_path / "broken.py").write_text("class MyNet(:\n")
    (tmp_path / "nameless.py").write_text("import os\nclass MyNet(Module): ...\n")
    (tmp_path / "importing.py").write_text("\nfrom widths import HEIGHT\n")
    (tmp_path / "ending.py").write_text("raise SystemExit('bye')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [n for n in sys.modules if n.split(".")[0] in ("pack", "widths")]:
        del sys.modules[name]


@pytest.fixture
def own():
    models.register("own", Own, input_size=(8, 8, 3), paper="Ours 2025", year=2025)
    yield
    models.unregister("own")


def test_address_of_a_file_and_of_a_module(folder):
    for address, width in (("my_nets.py:MyNet", 6), ("pack.nets:MyNet", 4)):
        model = jaxcnn.create_model(address, num_classes=3)
        assert (model.num_classes, model.width) == (3, width)
        assert jaxcnn.create_model(address, width=2) == type(model)(
            width=2
        )  # one class, loaded once
        params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
        assert params["Conv_0"]["kernel"].shape == (3, 3, 3, width)
    assert str(folder) not in sys.path[1:]


def test_a_file_that_changed_is_read_again(folder):
    assert jaxcnn.create_model("my_nets.py:MyNet").num_classes == 10
    (folder / "my_nets.py").write_text(
        SOURCE.replace("num_classes: int = 10", "num_classes: int = 4")
    )
    os.utime(folder / "my_nets.py", ns=(1, 1))
    assert jaxcnn.create_model("my_nets.py:MyNet").num_classes == 4


def test_training_options_are_left_out_where_there_is_no_field(folder):
    training = {"dtype": jnp.bfloat16, "axis_name": "data", "bn_group": None}
    assert jaxcnn.create_model("my_nets.py:MyNet", num_classes=3, **training).num_classes == 3
    with pytest.raises(ValueError, match=r"unknown option 'bn_group' of model 'my_nets.py:MyNet'"):
        jaxcnn.create_model("my_nets.py:MyNet", **training | {"bn_group": 32})


@pytest.mark.parametrize(
    ("address", "options", "message"),
    [
        ("my_net.py:MyNet", {}, "there is no file my_net.py in .*did you mean 'my_nets.py'"),
        ("my_nets.py:MyNets", {}, "my_nets.py has no 'MyNets'; did you mean 'MyNet'"),
        ("my_nets.py:", {}, "my_nets.py has no ''"),
        (
            "my_nets.py:make",
            {},
            "'my_nets.py:make' is a function; a network is a subclass of flax.linen.Module",
        ),
        ("nopack.nets:MyNet", {}, "there is no module 'nopack'"),
        ("pack.net:MyNet", {}, "there is no module 'pack.net'"),
        ("pack.nameless:MyNet", {}, "^[^\n]*nameless.py, line 2: name 'Module' is not defined$"),
        ("pack.importing:MyNet", {}, "importing.py, line 1: name 'Module' is not defined"),
        ("pack.broken:MyNet", {}, "broken.py, line 1: it exits the program"),
        (":MyNet", {}, "is neither file.py:name nor package.module:name"),
        ("broken.py:MyNet", {}, "broken.py, line 1: "),
        ("nameless.py:MyNet", {}, "nameless.py, line 2: name 'Module' is not defined"),
        ("importing.py:MyNet", {}, "importing.py, line 2: cannot import name 'HEIGHT'"),
        ("ending.py:MyNet", {}, r"ending.py, line 1: it exits the program \(bye\)"),
        ("my_nets.py:Fixed", {"num_classes": 3}, "has no field num_classes; Fixed needs"),
        ("my_nets.py:MyNet", {"widht": 3}, "unknown option 'widht'.*did you mean 'width'"),
        ("my_nets.py:MyNet", {"box_head": "scr"}, "unknown option 'box_head'"),
    ],
)
def test_mistakes_are_named(folder, address, options, message):
    with pytest.raises(ValueError, match=message):
        jaxcnn.create_model(address, **options)


@pytest.mark.parametrize("future", [False, True])
def test_options_have_the_types_of_the_fields(folder, future):
    """Annotations are types, or texts with the import from __future__."""
    if future:
        (folder / "my_nets.py").write_text(f"from __future__ import annotations\n{SOURCE}")
        os.utime(folder / "my_nets.py", ns=(2, 2))
    check_options("my_nets.py:MyNet", {"width": 8})
    with pytest.raises(ValueError, match=r"options.width is 'wide'; it must be int$"):
        check_options("my_nets.py:MyNet", {"width": "wide"})


def test_what_is_known_of_an_address(folder):
    info = jaxcnn.model_info("my_nets.py:MyNet")
    assert (info.name, info.family, info.num_classes) == ("my_nets.py:MyNet", "custom", 10)
    assert info.params is None and info.input_size is None
    with pytest.raises(ValueError, match=r"input size of 'my_nets.py:MyNet' is not known"):
        info.known_input_size()
    convolution, classifier = 3 * 3 * 3 * 6 + 6, 6 * 10 + 10
    assert jaxcnn.summarize("my_nets.py:MyNet", 8).total("params") == convolution + classifier


def test_registered_name_works_everywhere(own):
    assert jaxcnn.create_model("own", num_classes=2) == Own(num_classes=2)
    info = jaxcnn.model_info("own")
    assert (info.paper, info.year, info.input_size) == ("Ours 2025", 2025, (8, 8, 3))
    assert info.mean == (0.5, 0.5, 0.5) and info.num_classes == 7
    assert jaxcnn.list_models("own") == ["own"] and jaxcnn.list_models()[-1] == "own"
    assert jaxcnn.summarize("own").total("params") == 3 * 7 + 7
    with pytest.raises(ValueError, match=r"unknown model 'owm'; did you mean 'own'"):
        jaxcnn.create_model("owm")


def test_a_partial_is_registered_with_its_fields():
    models.register("own_small", functools.partial(Own, num_classes=3))
    try:
        assert jaxcnn.create_model("own_small") == Own(num_classes=3)
        assert jaxcnn.model_info("own_small").num_classes == 3
    finally:
        models.unregister("own_small")


def test_what_cannot_be_registered(own):
    for name, message in (
        ("own", "'own' is already registered; jaxcnn.models.unregister"),
        ("resnet50", "'resnet50' is a network of jaxcnn"),
        ("vgg16", "'vgg16' is a network of jaxcnn"),
        ("a:b", "must not contain a colon"),
    ):
        with pytest.raises(ValueError, match=message):
            models.register(name, Own)
    with pytest.raises(ValueError, match=r"unknown fact 'papers' of 'new'; did you mean 'paper'"):
        models.register("new", Own, papers="x")
    with pytest.raises(ValueError, match=r"'new' is a Own; a network is a subclass"):
        models.register("new", Own())
    with pytest.raises(ValueError, match=r"'new' is a partial with positional arguments"):
        models.register("new", functools.partial(Own, 3))
    with pytest.raises(ValueError, match=r"'new' is not registered"):
        models.unregister("new")


def test_weights_in_a_file_do_not_choose_code_to_run(folder):
    address = "my_nets.py:MyNet"
    model = jaxcnn.create_model(address, num_classes=3)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    how = jaxcnn.data.preprocessing.Preprocessing(8, 1.0, "bilinear", (0.5,) * 3, (0.5,) * 3)
    loading.save("own.safetensors", address, variables, preprocessing=how)
    with pytest.raises(
        ValueError, match=r"weights of my_nets.py:MyNet, a network that is not part"
    ):
        jaxcnn.load_pretrained("own.safetensors")
    loaded, found = jaxcnn.load_pretrained("own.safetensors", model=address)
    assert loaded == model
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), found, dict(variables)))
