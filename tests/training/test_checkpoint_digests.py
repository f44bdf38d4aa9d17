"""Bits that storage has changed are found: in a checkpoint's files, and in exported weights."""

import json
import shutil

import jax
import numpy as np
import pytest
from small import run, small_config, tiny_network  # noqa: F401
from test_checkpoints import assert_same, data_files, like, make_state

from jaxcnn.cli import main
from jaxcnn.training.output.checkpoints import Checkpoints
from jaxcnn.training.output.trained import load_run, read_state
from jaxcnn.weights import files

SUMS = {"log": {"loss": [0.25, 3.0]}}


def flip(path, place, bit=3):
    """Changes one bit of a file, at a share of its length."""
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1 << bit
    path.write_bytes(content)


def save_two(folder):
    with Checkpoints(folder, keep=3) as store:
        for step in (1, 2):
            store.save(make_state(step, step), step, SUMS)


@pytest.mark.parametrize("place", [0.02, 0.2, 0.4, 0.6, 0.8, 0.98])
def test_a_bit_of_the_arrays(tmp_path, place):
    save_two(tmp_path / "c")
    flip(data_files(tmp_path / "c" / "2" / "state")[0], place)
    with Checkpoints(tmp_path / "c", keep=3) as store:
        step, state, meta, notices = store.restore_newest(like())
    assert meta == SUMS and len(notices) == 2 - step
    assert_same(state, make_state(step, step))  # no array lies at some places


def test_a_value_that_can_be_read_and_is_another_is_named(tmp_path):
    """What a store without compression shows: the array is read, with another value in it."""
    save_two(tmp_path / "c")
    digests = next((tmp_path / "c" / "2" / "digests").glob("metadata"))
    saved = json.loads(digests.read_text())
    assert "params/fc/kernel" in saved and saved["params/fc/kernel"].startswith("float32 [64, 32]")
    saved["params/fc/kernel"] = saved["params/fc/kernel"][:-1] + "x"
    digests.write_text(json.dumps(saved))
    match = r"^params/fc/kernel differs from what was saved: "
    with Checkpoints(tmp_path / "c") as store, pytest.raises(ValueError, match=match):
        store.restore(2, like())
    with pytest.raises(ValueError) as caught:
        read_state(tmp_path / "c")
    assert str(caught.value) == (
        f"checkpoint {tmp_path / 'c' / '2'} cannot be read (params/fc/kernel differs from what was "
        "saved: wrong checksum); move it away to use the one of step 1"
    )
    assert read_state(tmp_path / "c", 1)[0] == 1


@pytest.mark.parametrize("fault", ["another number", "another step", "no checksums left", "swap"])
def test_more_than_the_arrays_is_compared(tmp_path, fault):
    save_two(tmp_path / "c")
    folder = tmp_path / "c" / "2"
    if fault == "another number":
        meta = folder / "meta" / "metadata"
        meta.write_text(meta.read_text().replace("0.25", "0.75"))
    elif fault == "another step":
        folder.rename(tmp_path / "c" / "3")
    elif fault == "no checksums left":
        (folder / "digests" / "metadata").write_text("{}")
    else:  # a state of another checkpoint
        shutil.rmtree(folder / "state")
        shutil.copytree(tmp_path / "c" / "1" / "state", folder / "state")
    with Checkpoints(tmp_path / "c", keep=3) as store:
        assert store.restore_newest(like())[0] == 1


def test_a_checkpoint_of_before_is_read_without(tmp_path):
    save_two(tmp_path / "c")
    shutil.rmtree(tmp_path / "c" / "2" / "digests")
    with Checkpoints(tmp_path / "c", keep=3) as store:
        step, state, _, notices = store.restore_newest(like())
    assert (step, notices) == (2, [])
    assert_same(state, make_state(2, 2))


@pytest.mark.usefixtures("tiny_network")
def test_whoever_reads_a_run_is_told(tmp_path, capsys):
    """Best and newest checkpoint, from Python and by `jaxcnn export`: one line, and no file."""
    run(small_config(), tmp_path / "run")
    whole = load_run(tmp_path / "run", "newest")
    for name in ("best", "checkpoints"):
        newest = max((tmp_path / "run" / name).iterdir(), key=lambda path: int(path.name))
        for file in data_files(newest):
            flip(file, 0.5)
    with pytest.raises(ValueError, match=r"checkpoint .*/best/\d+ cannot be read .*newest"):
        load_run(tmp_path / "run")
    out = tmp_path / "o.safetensors"
    assert main(["export", str(tmp_path / "run"), str(out), "--checkpoint", "newest"]) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error and not out.exists()
    assert f"checkpoint {tmp_path / 'run' / 'checkpoints' / '12'} cannot be read (" in error
    assert error.endswith("; move it away to use the one of step 8")
    reports = run(small_config(), tmp_path / "run", resume=True)
    assert reports[0].step == 8, "the run goes on from the older one"
    again = load_run(tmp_path / "run", "newest")
    jax.tree.map(np.testing.assert_array_equal, again.variables, whole.variables)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_every_bit_of_a_weights_file(tmp_path, suffix):
    """A file that is changed anywhere is refused, or its arrays are what was written."""
    path = tmp_path / f"w{suffix}"
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3, np.int32)}
    metadata = {"model": "lenet5", "num_classes": "10"}
    files.write(path, arrays, metadata)
    whole = path.read_bytes()
    first = whole.index(arrays["a"].tobytes())
    values = range(first, first + arrays["a"].nbytes)
    refused = set()
    for place in range(len(whole)) if suffix == ".safetensors" else values:
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        try:
            found, said = files.read(path)
        except ValueError as error:
            assert str(path) in str(error)
            refused.add(place)
            continue
        assert metadata.items() <= said.items() and found.keys() == arrays.keys()
        for key, array in arrays.items():
            np.testing.assert_array_equal(found[key], array, strict=True)
    assert refused.issuperset(values)
