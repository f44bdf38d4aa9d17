"""Checkpoints of a run: the newest few to resume from, and in a directory of its own the best one.

Orbax writes them in the background. What resuming needs beside the state are a few numbers, which
lie in the same checkpoint: both are there or neither. So does a checksum of every array and of the
numbers, which are compared when the checkpoint is read: storage may change bits unnoticed.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxcnn.runtime import distributed
from jaxcnn.training import parallel
from jaxcnn.training.output import written

UNREADABLE = "unreadable"
_DIGESTS = "digests"  # the item of a checkpoint that holds its checksums


class Checkpoints:
    """The newest `keep` checkpoints in a directory, by step.

    Close it, or use it in a `with` statement: a checkpoint is written in the background and the
    last one is lost if the process ends before.

    Args:
      directory: of the checkpoints, in that of a run; made if it is not there.
      keep: None to read only, which changes nothing there and does not disturb who writes.
    """

    def __init__(self, directory: str | Path, keep: int | None = None):
        import orbax.checkpoint as ocp

        self.directory = Path(directory).absolute()
        # Where two stores of several processes write at once, Orbax mixes up their barriers.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            read_only=keep is None,
            create=keep is not None,
            enable_async_checkpointing=distributed.count() == 1,
            # Folders that cannot be made are an error here and now. In the background Orbax's
            # threads would wait for them for minutes, and the process with them.
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            # Of a process that was killed while it wrote: the directory is locked, so none does.
            cleanup_tmp_directories=keep is not None,
        )
        with without_warnings() if keep is None else contextlib.nullcontext():
            self._manager = ocp.CheckpointManager(self.directory, options=options)
        self._args = ocp.args
        self._written: int | None = None
        self._in_background = False

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        """As `close`; but where an error is on its way already, that is the one to be told."""
        with contextlib.suppress(Exception) if kind else contextlib.nullcontext():
            self.close()

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, state: Any, step: int, meta: Mapping[str, Any]) -> bool:
        """Begins to write the state and plain numbers; False if this step is there already.

        Raises:
          OSError: this checkpoint, or the one before in the background, could not be written.
        """
        with self._told_as_one_error():
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
            if step in self._manager.all_steps():
                return False
            self._written = step
            self._note(f"{self.directory.name}/{step}")
            args = self._args
            items = {
                "state": args.StandardSave(state),
                "meta": args.JsonSave(dict(meta)),
                _DIGESTS: args.JsonSave(_digests(state, step, meta)),
            }
            self._manager.save(step, args=args.Composite(**items), force=True)
            self._in_background = distributed.count() == 1
        return True

    def check(self) -> None:
        """Raises OSError if the checkpoint that was written in the background has failed.

        Waits for nothing.
        """
        if self._in_background and not self._manager.is_saving_in_progress():
            self._in_background = False
            self.wait()

    def restore(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        """(state, meta) of a step; `like` is a tree of `jax.ShapeDtypeStruct`, see `abstract`.

        Raises:
          ValueError: it is not what was saved. Orbax raises other errors where it cannot read.
        """
        folder, args = self.directory / str(step), self._args
        distributed.on_first_process(functools.partial(_check_arrays, folder / "state"))
        items = {"state": args.StandardRestore(like), "meta": args.JsonRestore()}
        if (folder / _DIGESTS).is_dir():  # those of before 0.3 have none
            items[_DIGESTS] = args.JsonRestore()
        restored = self._manager.restore(step, args=args.Composite(**items))
        if _DIGESTS in items:
            found = _digests(restored.state, step, restored.meta)
            distributed.on_first_process(lambda: _compare(restored[_DIGESTS], found))
        return restored.state, restored.meta

    def restore_newest(self, like: Any) -> tuple[int, Any, dict[str, Any], list[str]] | None:
        """(step, state, meta, notices) of the newest checkpoint that can be read.

        A newer one that cannot be read is moved to "unreadable" beside the directory, and a notice
        says so. None if there are no checkpoints at all.

        Raises:
          ValueError: there are checkpoints, and none can be read. All stay where they are.
        """
        failed: dict[int, str] = {}
        for step in reversed(self.steps()):
            try:
                state, meta = self.restore(step, like)
            except Exception as error:  # Orbax raises whatever its parts raise
                failed[step] = reason(error)
                continue
            return step, state, meta, [self._set_aside(s, step, why) for s, why in failed.items()]
        if failed:
            step, why = next(iter(failed.items()))
            raise ValueError(
                f"none of the {len(failed)} checkpoints in {self.directory} can be read; the "
                f"newest, of step {step}: {why}"
            )
        return None

    def delete_after(self, step: int) -> None:
        """Deletes the checkpoints of later steps."""
        for later in self.steps():
            if later > step:
                self._manager.delete(later)

    def wait(self) -> None:
        """Waits until all is written. Raises OSError if it could not be."""
        with self._told_as_one_error():
            self._manager.wait_until_finished()
            self._manager.check_for_errors()

    def close(self) -> None:
        """As `wait`; then nothing more can be saved."""
        with self._told_as_one_error():
            self._manager.close()

    @contextlib.contextmanager
    def _told_as_one_error(self) -> Iterator[None]:
        """Orbax raises whatever its parts raise: as OSError, with what is left to go on from."""
        try:
            yield
        except Exception as error:
            good = [int(p.name) for p in self.directory.glob("*") if p.name.isdigit()]
            left = f"the newest good one is of step {max(good)}" if good else "there is none before"
            raise OSError(
                f"the checkpoint of step {self._written} cannot be written to {self.directory} "
                f"({reason(error)}); {left}"
            ) from error

    def _note(self, entry: str) -> None:
        """Adds a folder that is about to be written to the list of what the run writes."""
        if distributed.is_first():
            with open(self.directory.parent / written.LIST, "a", encoding="utf-8") as file:
                file.write(f"\n{entry}")

    def _set_aside(self, step: int, good: int, why: str) -> str:
        target = _unused(self.directory.parent / UNREADABLE / f"step_{step}")

        def move() -> None:
            target.parent.mkdir(exist_ok=True)
            self._note(f"{UNREADABLE}/{target.name}")
            (self.directory / str(step)).rename(target)

        distributed.on_first_process(move)
        self._manager.reload()
        return (
            f"the checkpoint of step {step} cannot be read ({why}) and is now {target}; going on "
            f"from step {good}"
        )


def abstract(shapes: Any, mesh: Mesh) -> Any:
    """The tree of shapes that `restore` takes, for a state that every device holds in full."""
    held = parallel.sharding(mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=held), shapes)


def _check_arrays(folder: Path) -> None:
    """Reads every stored chunk once, one after the other; raises at the first that is broken.

    Orbax reads all at once, and when one fails those under way fill stderr with tracebacks.
    """
    import tensorstore

    if not (folder / "manifest.ocdbt").is_file():
        raise ValueError(f"{folder / 'manifest.ocdbt'} is missing")
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": f"file://{folder}/"}).result()
    for key in store.list().result():
        store.read(key).result()


def _unused(path: Path) -> Path:
    candidates: Iterable[Path] = (path.with_name(f"{path.name}_{n}") for n in range(2, 1000))
    return path if not path.exists() else next(p for p in candidates if not p.exists())


def reason(error: Exception) -> str:
    """Why a checkpoint cannot be read or written, in one line, however Orbax says it.

    Such as "No space left on device".
    """
    code = error.errno if isinstance(error, OSError) else None
    if found := re.search(r"os_error_code='(\d+)'", str(error)):
        code = int(found[1])
    if code:
        return os.strerror(code)
    lines = str(error).strip().splitlines() or [""]
    text = lines[0] if type(error) is ValueError else f"{type(error).__name__}: {lines[0]}"
    return text if len(text) <= 160 else text[:157] + "..."


def _digests(state: Any, step: int, meta: Mapping[str, Any]) -> dict[str, str]:
    """{path of an array: its type, shape and CRC-32}, and as "meta" that of step and numbers."""
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(state))
    found = {
        jax.tree_util.keystr(path, simple=True, separator="/"): _digest(leaf)
        for path, leaf in leaves
    }
    numbers = json.dumps([step, dict(meta)], sort_keys=True)
    return found | {"meta": f"{zlib.crc32(numbers.encode()):08x}"}


def _digest(leaf: Any) -> str:
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended):
        leaf = jax.random.key_data(leaf)
    array = np.ascontiguousarray(leaf)
    return f"{array.dtype} {list(np.shape(leaf))} {zlib.crc32(array.view(np.uint8).data):08x}"


def _compare(saved: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Raises ValueError that names the first array that differs."""
    for name in {**saved, **found}:
        if saved.get(name) != found.get(name):
            raise ValueError(f"{name} is not what was saved: its checksum differs")


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Orbax warns of what is as it should be: that it only reads, or reads a single item."""
    log = logging.getLogger("absl")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
