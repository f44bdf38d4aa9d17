"""The cache of compiled programs: its place, who may change it, and that the bits are the same."""

import os
import subprocess
import sys
from unittest import mock

import pytest

from jaxcnn.runtime import compilation_cache

VARIABLES = ("JAX_COMPILATION_CACHE_DIR", "TF_CPP_MIN_LOG_LEVEL", "XLA_FLAGS")


@pytest.fixture
def caches(tmp_path):
    """The user's folder of caches, in an environment that is restored afterwards."""
    with mock.patch.dict(os.environ, XDG_CACHE_HOME=str(tmp_path)):
        for name in VARIABLES:
            os.environ.pop(name, None)
        yield tmp_path


@pytest.fixture
def without_jax(caches, monkeypatch):
    """As in a process that has not imported JAX yet."""
    monkeypatch.delitem(sys.modules, "jax")


def test_a_folder_of_the_users_and_of_the_machine(without_jax, caches):
    folder = compilation_cache.use()
    assert folder.parent == caches / "jaxcnn" / "xla" and folder.is_dir()
    assert os.environ.pop("JAX_COMPILATION_CACHE_DIR") == str(folder)
    assert compilation_cache.use() == folder


def test_another_processor_has_another_folder(without_jax, monkeypatch):
    here = compilation_cache.use()
    del os.environ["JAX_COMPILATION_CACHE_DIR"]
    monkeypatch.setattr(compilation_cache.platform, "machine", lambda: "riscv64")
    assert compilation_cache.use() not in (here, None)


def test_what_was_not_used_for_longest_goes_first(without_jax, monkeypatch):
    folder = compilation_cache.use()
    for age in range(10):
        (folder / f"{age}-cache").write_bytes(bytes(100))
        os.utime(folder / f"{age}-cache", (1e9 - age, 1e9 - age))
    os.utime(folder / "9-cache", (2e9, 1e9 - 9))  # the oldest, and read since

    def left(most, **variables):
        monkeypatch.setattr(compilation_cache, "_MOST_BYTES", most)
        with mock.patch.dict(os.environ, variables):
            os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
            compilation_cache.use()
        return sorted(path.name[0] for path in folder.iterdir())

    assert len(left(1000)) == 10
    # JAX deletes programs itself where the user has set its limit.
    assert len(left(900, JAX_COMPILATION_CACHE_MAX_SIZE="900")) == 10
    assert left(900) == ["0", "1", "2", "9"]


def test_an_account_without_a_home_has_no_cache(without_jax, monkeypatch):
    def no_home(*_, **__):
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr("platformdirs.user_cache_path", no_home)
    assert compilation_cache.use() is None and "JAX_COMPILATION_CACHE_DIR" not in os.environ


def test_xla_is_quiet_also_under_a_process_of_jax(without_jax):
    os.environ["JAXCNN_CACHE"] = "0"
    for before, after in (("1", "3"), ("0", "0"), ("2", "2")):
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = before
        compilation_cache.use()
        assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == after


def test_what_the_user_says_stays(without_jax, caches):
    (caches / "file").write_text("")
    for said in (
        {"JAXCNN_CACHE": "0"},
        {"JAX_COMPILATION_CACHE_DIR": "elsewhere"},
        {"XDG_CACHE_HOME": str(caches / "file")},  # no folder can be made in it
    ):
        with mock.patch.dict(os.environ, said):
            before = dict(os.environ)
            assert compilation_cache.use() is None
            assert os.environ == before | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "9"
    assert compilation_cache.use()
    assert os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "9"


def test_a_program_that_has_jax_is_left_alone(caches):
    before = dict(os.environ)
    assert compilation_cache.use() is None
    assert os.environ == before and not list(caches.iterdir())


def test_the_second_run_reads_what_the_first_compiled_with_the_same_bits(caches):
    script = """
import hashlib, os
before = dict(os.environ)
import jaxcnn
assert dict(os.environ) == before
from jaxcnn.runtime import compilation_cache
compilation_cache.use()
import jax, jax.numpy as jnp, optax
from jaxcnn.runtime import compilation
from jaxcnn.training import state, step
found = []
jax.monitoring.register_event_listener(lambda event, **_: found.append(event))
model, optimizer = jaxcnn.create_model("lenet5"), optax.sgd(0.1, 0.9)
now = state.create_state(model, optimizer, jax.random.key(0), (1, 32, 32, 1))
make = compilation.jit(step.make_train_step(model, optimizer), donate_argnums=(0,))
image = jax.random.normal(jax.random.key(1), (4, 32, 32, 1))
for _ in range(3):
    now, _ = make(now, {"image": image, "label": jnp.arange(4)}, jax.random.key(2))
bits = b"".join(jax.device_get(leaf).tobytes() for leaf in jax.tree.leaves(now.params))
hits = sum(event == "/jax/compilation_cache/cache_hits" for event in found)
print(hits, hashlib.sha256(bits).hexdigest())
"""
    # However fast this machine and version compile: by default, what takes a second is kept.
    kept = {**os.environ, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}
    outputs = []
    for _ in range(2):
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, env=kept)
        assert (done.returncode, done.stderr) == (0, "")
        outputs.append(done.stdout.split())
    (cold, first), (warm, second) = outputs
    assert cold == "0" and int(warm) >= 2 and first == second
