"""The cache of compiled programs: its place, who may change it, and that the bits are the same."""

import os
import subprocess
import sys

import pytest

from jaxcnn.runtime import compilation_cache


@pytest.fixture
def without_jax(monkeypatch):
    """As in a process that has not imported JAX yet."""
    monkeypatch.delitem(sys.modules, "jax")


def test_a_folder_of_the_users_and_of_the_machine(without_jax, tmp_path):
    environment = {"XDG_CACHE_HOME": str(tmp_path)}
    folder = compilation_cache.use(environment)
    assert folder.parent == tmp_path / "jaxcnn" / "xla" and folder.is_dir()
    assert environment["JAX_COMPILATION_CACHE_DIR"] == str(folder)
    assert compilation_cache.use({"XDG_CACHE_HOME": str(tmp_path)}) == folder


def test_another_processor_has_another_folder(without_jax, tmp_path, monkeypatch):
    here = compilation_cache.use({"XDG_CACHE_HOME": str(tmp_path)})
    monkeypatch.setattr(compilation_cache.platform, "machine", lambda: "riscv64")
    assert compilation_cache.use({"XDG_CACHE_HOME": str(tmp_path)}) != here


def test_what_was_not_used_for_longest_goes_first(without_jax, tmp_path, monkeypatch):
    folder = compilation_cache.use({"XDG_CACHE_HOME": str(tmp_path)})
    for age in range(10):
        (folder / f"{age}-cache").write_bytes(bytes(100))
        os.utime(folder / f"{age}-cache", (1e9 - age, 1e9 - age))
    os.utime(folder / "9-cache", (2e9, 1e9 - 9))  # the oldest, and read since
    monkeypatch.setattr(compilation_cache, "_MOST_BYTES", 1000)
    compilation_cache.use({"XDG_CACHE_HOME": str(tmp_path)})
    assert len(list(folder.iterdir())) == 10
    monkeypatch.setattr(compilation_cache, "_MOST_BYTES", 900)
    compilation_cache.use({"XDG_CACHE_HOME": str(tmp_path)})
    assert sorted(path.name[0] for path in folder.iterdir()) == ["0", "1", "2", "9"]


@pytest.mark.parametrize("system", ["linux", "darwin", "win32"])
def test_the_platforms_own_place(without_jax, tmp_path, monkeypatch, system):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = compilation_cache.use({"LOCALAPPDATA": str(tmp_path / "Local")})
    place = {"linux": ".cache", "darwin": "Library/Caches", "win32": "Local"}[system]
    assert folder.is_relative_to(tmp_path / place)


def test_xla_is_quiet_also_under_a_process_of_jax(without_jax, tmp_path):
    for before, after in (("1", "3"), ("0", "0"), ("2", "2")):
        environment = {"JAXCNN_CACHE": "0", "TF_CPP_MIN_LOG_LEVEL": before}
        compilation_cache.use(environment)
        assert environment["TF_CPP_MIN_LOG_LEVEL"] == after


def test_what_the_user_says_stays(without_jax, tmp_path):
    (tmp_path / "file").write_text("")
    for said in (
        {"JAXCNN_CACHE": "0"},
        {"JAX_COMPILATION_CACHE_DIR": "elsewhere"},
        {"XDG_CACHE_HOME": str(tmp_path / "file")},  # no folder can be made in it
    ):
        environment = dict(said)
        assert compilation_cache.use(environment) is None
        assert environment == said | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    asked = {"XDG_CACHE_HOME": str(tmp_path), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "9"}
    assert compilation_cache.use(asked)
    assert asked["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "9"


def test_a_program_that_has_jax_is_left_alone(tmp_path):
    environment = {"XDG_CACHE_HOME": str(tmp_path)}
    assert compilation_cache.use(environment) is None
    assert environment == {"XDG_CACHE_HOME": str(tmp_path)} and not list(tmp_path.iterdir())


def test_the_second_run_reads_what_the_first_compiled_with_the_same_bits(tmp_path):
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
    own = ("JAX_COMPILATION_CACHE_DIR", "TF_CPP_MIN_LOG_LEVEL", "XLA_FLAGS")
    environment = {k: v for k, v in os.environ.items() if k not in own}
    environment |= {"XDG_CACHE_HOME": str(tmp_path)}
    outputs = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")
        outputs.append(done.stdout.split())
    (cold, first), (warm, second) = outputs
    assert cold == "0" and int(warm) >= 2 and first == second
