"""Every configuration runs for a few steps, and nothing in it is left unread."""

from pathlib import Path

import pytest

from jaxcnn import configs
from jaxcnn._checks import note_once
from jaxcnn.runtime import compilation
from jaxcnn.training import train
from jaxcnn.training.config import validate
from jaxcnn.training.config.files import read_config

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(path for path in (ROOT / "configs").glob("[!_]*.py"))


# Deep programs and states of tens of millions of numbers: half a minute and more each. And
# networks whose steps run elsewhere in the tests and differ little from cifar_resnet's.
SLOW = {"inception_v3", "googlenet", "resnet_modern", "dpn", "senet"}
SLOW |= {"cifar_plain", "cifar_preact", "cifar_resnext", "cifar_resnet18", "cifar_wrn", "finetune"}
SLOW |= {"vgg", "alexnet", "zfnet", "resnet_imagenet", "imagenette"}


def smoke_case(path):
    marks = [pytest.mark.slow] if path.stem in SLOW else []
    return pytest.param(path, marks=marks, id=path.stem)


@pytest.mark.parametrize("path", list(map(smoke_case, CONFIGS)))
def test_smoke_form_runs(path, tmp_path, monkeypatch):
    if path.stem != "lenet_digits":  # five steps: quick to compile
        monkeypatch.setattr(compilation, "CPU_STEP", compilation.CPU_INIT)
    config = read_config(f"{path}:smoke")
    config.train.devices = 1
    reports = list(train(config, tmp_path))
    assert [r.step for r in reports if r.kind == "step"] == [1, 2, 3, 4, 5]
    assert reports[-1].kind == "end"
    assert [r.values["text"] for r in reports if r.kind == "notice"] == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_is_valid_locked_and_explained(path):
    config = read_config(str(path))
    validate(config)
    with pytest.raises(AttributeError):
        config.train.bach_size = 1
    docstring = path.read_text("utf-8").split('"""')[1]
    assert "python train.py" in docstring and f"{path.name}:smoke" in docstring
    assert "error" in docstring
    with pytest.raises(ValueError, match="'smok' is unknown"):
        read_config(f"{path}:smok")


def test_cifar_recipe_is_the_papers():
    config = read_config(str(ROOT / "configs" / "cifar_resnet.py"))
    assert config.model.name == "resnet20_cifar"
    assert (config.train.batch_size, config.train.length_steps) == (128, 64_000)
    assert config.schedule.boundaries_steps == (32_000, 48_000)
    assert "warmup_steps" not in config.schedule
    config = read_config(str(ROOT / "configs" / "cifar_resnet.py:110,split"))
    assert (config.schedule.warmup_from, config.schedule.warmup_steps) == (0.01, 400)
    assert (config.data.train_split, config.data.test_split) == ("train[:45000]", "train[45000:]")
    config = read_config(str(ROOT / "configs" / "cifar_plain.py:56"))
    assert (config.model.name, config.data.train_split) == ("plain56_cifar", "train")


def test_the_short_form_of_the_wide_resnet18_is_complete():
    config = read_config(str(ROOT / "configs" / "cifar_resnet18.py:fast"))
    validate(config)
    assert (config.train.batch_size, config.model.dtype) == (256, "bfloat16")
    assert ("cutout", 16) in config.data.augment and config.schedule.name == "cosine"
    smoke = read_config(str(ROOT / "configs" / "cifar_resnet18.py:fast,smoke"))
    validate(smoke)
    assert smoke.model.options["width"] == 8


def test_former_names_of_recipes_work_with_one_notice(capsys):
    note_once.cache_clear()
    former, present = read_config("localisation:smoke"), read_config("localization:smoke")
    assert former.to_dict() == present.to_dict()
    assert configs.find("localisation") == configs.find("localization")
    assert capsys.readouterr().err == "note: the recipe localisation is now localization\n"
    assert "localisation" not in configs.names()
