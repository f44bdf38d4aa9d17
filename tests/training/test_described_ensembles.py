"""Ensembles of different networks: all described can be built, one is trained and tested."""

import json
from pathlib import Path

import pytest

from jaxcnn.cli import main
from jaxcnn.evaluation import protocols, tables
from jaxcnn.models.registry import create_model, model_info
from jaxcnn.training import train
from jaxcnn.training.ensemble import described
from jaxcnn.training.state import abstract_variables
from jaxcnn.weights import layout

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "configs" / "ensembles").glob("*.py"))

ENTRY = '''
from jaxcnn.training.ensemble.described import Ensemble, Member

def get_ensemble():
    """Two networks of one program and one of another."""
    def one(name, seed, view):
        changed = {"model.name": name, "train.seed": str(seed)}
        return Member(f"{name} {seed}", "RECIPE", overrides=changed, view=view)

    return Ensemble(
        [
            one("lenet5_modern", 0, "center"),
            one("lenet5_1998", 0, "flip"),
            one("lenet5_modern", 1, "10crop:32:36"),
        ],
        combination="mean of logits",
        published="1 % top-1 (nowhere)",
        unverified="everything",
    )
'''


LONG = {"senet", "inception_v4", "trimps_soushen"}


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, marks=[pytest.mark.slow] * (p.stem in LONG), id=p.stem) for p in FILES],
)
def test_what_is_described_can_be_built(path):
    ensemble = described.read_ensemble(str(path))
    assert ensemble.combination in tables.COMBINATIONS + tables.LEARNED
    for member in ensemble.members:
        protocols.parse_view(member.view)
    full = described.ensemble_configs(str(path))
    small = described.ensemble_configs(f"{path}:smoke", ["train.devices=1"])
    assert len(full) == len(small) == len(ensemble.members)
    assert {config.data.source for config in full} == {"tfds:imagenet2012"}
    networks = {}
    for big, config in zip(full, small, strict=True):
        assert (config.train.length_steps, config.data.test_split) == (5, "test[:8]")
        own = int(config.data.source.removeprefix("synthetic:"))
        for one, side in ((big, model_info(big.model.name).input_size[0]), (config, own)):
            options = layout.frozen(dict(one.model.options))
            network = create_model(one.model.name, num_classes=10, **options)
            assert not one.loss.get("aux_weight") or getattr(network, "aux_heads", False)
            networks[network] = side
    for network, side in networks.items():
        abstract_variables(network, (1, side, side, 3))
    text = path.read_text("utf-8").split('"""')[1]
    assert f"--as configs/ensembles/{path.name}" in text and f"{path.name}:smoke" in text


def test_options_on_the_command_line_reach_every_member():
    path = str(ROOT / "configs/ensembles/inception_v4.py")
    for spec, text, value in (
        (path, "aux_heads=false", False),
        (f"{path}:smoke", "width=0.25", 0.25),
    ):
        configs = described.ensemble_configs(spec, [f"model.options.{text}"])
        name = text.partition("=")[0]
        assert [config.model.options[name] for config in configs] == [value] * 4


def test_winners_are_as_many_as_is_told():
    counts = {path.stem: len(described.read_ensemble(str(path)).members) for path in FILES}
    assert counts["alexnet"] == counts["googlenet"] == 7 and counts["trimps_soushen"] == 6
    google = described.ensemble_configs(str(ROOT / "configs/ensembles/googlenet.py"))
    assert {c.train.init_seed for c in google} == {0} and len({c.train.seed for c in google}) == 7
    assert [dict(c.model.options) for c in google] == [{}] * 6 + [{"width": 1.25}]
    alex = described.ensemble_configs(str(ROOT / "configs/ensembles/alexnet.py"))
    assert [bool(c.model.weights) for c in alex] == [False] * 5 + [True] * 2


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The file of an ensemble, and where its smoke form was trained from the command line."""
    folder = tmp_path_factory.mktemp("ensemble")
    entry = folder / "entry.py"
    entry.write_text(ENTRY.replace("RECIPE", str(ROOT / "configs" / "lenet_digits.py")), "utf-8")
    where = folder / "runs"
    given = [f"{entry}:smoke", "train.devices=1", "--workdir", str(where)]
    assert main(["train", *given]) == 0
    return entry, where


def test_ensemble_is_trained_and_tested(trained, tmp_path, capsys):
    entry, where = trained
    out = tmp_path / "e.json"
    assert main(["evaluate", "--as", str(entry), str(where), "--json", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "lenet5_modern 1@10crop:32:36" in printed and "several protocols" in printed
    assert "published: 1 % top-1 (nowhere)" in printed and "unverified: everything" in printed
    found = json.loads(out.read_text())
    assert [row.get("protocol") for row in found["rows"][:3]] == ["center", "flip", "10crop:32:36"]
    assert found["rows"][-1]["name"] == found["combination"] == "mean of logits"
    assert {row["examples"] for row in found["rows"]} == {64}
    # the first member is the run alone
    [config] = described.ensemble_configs(f"{entry}:smoke", ["train.devices=1"])[:1]
    last = list(train(config, tmp_path / "alone"))[-1].values
    assert found["rows"][0]["top1_error"] == pytest.approx(last["top1_error"])


def test_ensemble_goes_on_and_members_stand_alone(trained, capsys):
    entry, where = trained
    given = [f"{entry}:smoke", "train.devices=1", "--workdir", str(where)]
    assert main(["train", *given]) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert main(["train", *given, "--resume"]) == 0
    assert main(["train", "--workdir", str(where), "--resume"]) == 2
    assert "--resume needs CONFIG" in capsys.readouterr().err
    assert main(["evaluate", str(where / "member_1"), f"{where}/member_2@flip"]) == 0
    assert "member_2@flip" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("return members", "line 2: name 'members' is not defined"),
        ("return [1]", "returned list; it must return a jaxcnn.training.Ensemble"),
    ],
)
def test_mistakes_in_the_file_are_one_line(tmp_path, monkeypatch, capsys, text, message):
    monkeypatch.chdir(tmp_path)
    Path("entry.py").write_text(f"def get_ensemble():\n    {text}\n")
    assert main(["train", "entry.py", "--workdir", str(tmp_path / "x")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.strip().count("\n") == 0


def test_mistakes_are_one_line(trained, capsys):
    entry, where = trained
    for arguments, text in (
        (
            ["evaluate", "--as", str(entry), str(where / "member_0")],
            "has 3 members, but got 1 network",
        ),
        (["evaluate", f"{where}@10corp"], "did you mean '10crop'"),
        (["evaluate", f"{where}@10crop:no"], "'no' in '10crop:no' is not a number of pixels"),
        (["evaluate", f"{where}@10crop:40:32"], "cannot crop 40 pixels from a side of 32"),
        (["evaluate", f"{where}@10crop:40:48:2"], "write PROTOCOL:SIZE:SIDE,SIDE"),
        (["train", f"{entry}:smoky", "--workdir", str(where / "x")], "it must be 'smoke'"),
        (["train", str(entry), "train.sed=1", "--workdir", str(where / "x")], "train.seed"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert text in error and error.strip().count("\n") == 0
