"""Checkpoints of a run: the newest ones to resume from, and the best one in a separate directory.

Orbax writes them, in a background thread if there is a single process. A checkpoint also holds the
few numbers that resuming needs besides the state, so that both are saved or neither. It holds
checksums of all arrays and of these numbers, which reading verifies: storage may corrupt bits
silently. For checkpoints in a bucket see `bucket_checkpoints`.
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
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxcnn import _files
from jaxcnn.runtime import distributed
from jaxcnn.training import parallel
from jaxcnn.training.output import written
from jaxcnn.training.output.records import complete_steps

UNREADABLE = "unreadable"
_DIGESTS = "digests"  # the item of a checkpoint that holds its checksums


class Checkpoints:
    """The newest `keep` checkpoints in a directory, by step.

    Close it, or use it in a `with` statement: checkpoints are written in the background, and the
    last one is lost if the process ends before it is complete.

    Args:
      directory: directory of the checkpoints, within that of a run; created if it does not exist.
      keep: number of checkpoints to keep. None opens the directory for reading only; this changes
        no file, and is safe while another process writes.
    """

    def __init__(self, directory: str | Path, keep: int | None = None):
        self.directory = Path(directory).absolute()
        # With several processes, Orbax waits for the others when it saves; two threads would mix
        # up their barriers.
        alone = distributed.count() == 1
        self._open(self.directory, keep, alone, max_to_keep=keep, create=keep is not None)

    def _open(self, folder: Path, keep: int | None, in_background: bool, **options: Any) -> None:
        """Opens the manager of Orbax of a local folder, with further options of it."""
        import orbax.checkpoint as ocp

        self._folder, self._keep = folder, keep
        manager_options = ocp.CheckpointManagerOptions(
            read_only=keep is None,
            save_interval_steps=0 if keep is None else 1,  # Orbax warns about 1 where it only reads
            enable_async_checkpointing=False,
            # Left by a process that was killed while saving: the lock on the directory ensures
            # that no other process is saving now.
            cleanup_tmp_directories=keep is not None,
            **options,
        )
        with without_warnings() if keep is None else contextlib.nullcontext():
            self._manager = ocp.CheckpointManager(folder, options=manager_options)
        self._args = ocp.args
        self._writer = ThreadPoolExecutor(1, "jaxcnn checkpoints") if in_background else None
        self._writing: Future[None] | None = None
        self._saving: int | None = None  # step of the last checkpoint that was passed to `save`
        self._known = set(self._complete())  # and the one being saved, of a writer

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        """Closes; suppresses errors of closing if another error is already propagating."""
        with contextlib.suppress(Exception) if kind else contextlib.nullcontext():
            self.close()

    def steps(self) -> list[int]:
        """Returns the steps of the complete checkpoints and of the one being saved, ascending."""
        return sorted(self._complete() if self._keep is None else self._known)

    def _complete(self) -> Iterable[int]:
        """The steps of the complete checkpoints."""
        return self._manager.all_steps()

    def save(self, state: Any, step: int, meta: Mapping[str, Any]) -> bool:
        """Starts to save a checkpoint in the background.

        Args:
          state: the training state.
          step: the step of the checkpoint.
          meta: plain numbers, saved with the state.

        Returns:
          False if a checkpoint of this step exists already; nothing is saved then.

        Raises:
          OSError: this checkpoint, or the previous one in the background, cannot be written.
        """
        self.wait()
        if step in self.steps():
            return False
        self._saving = step
        with self._one_line_errors():
            if distributed.is_first():
                written.note(self.directory.parent, f"{self.directory.name}/{step}")
            self._known = set(sorted({*self._known, step})[-(self._keep or 1) :])
            if self._writer is None:
                self._write(state, step, dict(meta))
            else:
                # Copied, since the next step reuses the memory of `state`.
                copy = jax.tree.map(np.array, jax.device_get(state))
                self._writing = self._writer.submit(self._write, copy, step, dict(meta))
        return True

    def _write(self, state: Any, step: int, meta: dict[str, Any]) -> None:
        args = self._args
        items = {
            "state": args.StandardSave(state),
            "meta": args.JsonSave(meta),
            _DIGESTS: args.JsonSave(_digests(state, step, meta)),
        }
        self._manager.save(step, args=args.Composite(**items), force=True)

    def check(self) -> None:
        """Raises OSError if saving in the background has failed. Does not wait."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def restore(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        """Reads the checkpoint of a step.

        Args:
          step: one of `steps()`.
          like: tree of `jax.ShapeDtypeStruct`, see `abstract`.

        Returns:
          (state, meta).

        Raises:
          ValueError: a checksum differs. Orbax raises other errors if it cannot read the files.
        """
        folder, args = self._folder / str(step), self._args
        distributed.on_first_process(functools.partial(_check_arrays, folder / "state"))
        items = {"state": args.StandardRestore(like), "meta": args.JsonRestore()}
        if (folder / _DIGESTS).is_dir():  # checkpoints of early versions have none
            items[_DIGESTS] = args.JsonRestore()
        restored = self._manager.restore(step, args=args.Composite(**items))
        if _DIGESTS in items:
            actual = _digests(restored.state, step, restored.meta)
            distributed.on_first_process(lambda: _compare(restored[_DIGESTS], actual))
        return restored.state, restored.meta

    def restore_newest(self, like: Any) -> tuple[int, Any, dict[str, Any], list[str]] | None:
        """Reads the newest readable checkpoint.

        Newer unreadable checkpoints are moved to the sibling directory "unreadable".

        Args:
          like: as in `restore`.

        Returns:
          (step, state, meta, notices), with one notice for each unreadable checkpoint; None if
          there are no checkpoints.

        Raises:
          ValueError: none of the checkpoints can be read, or one is of another network. None of
            them is moved.
        """
        failed: dict[int, str] = {}
        for step in reversed(self.steps()):
            try:
                state, meta = self.restore(step, like)
            except Exception as error:  # Orbax passes on errors of any type
                failed[step] = reason(error)
                self._check_fits(step, like)
                continue
            return step, state, meta, [self._set_aside(s, step, why) for s, why in failed.items()]
        if failed:
            step, why = next(iter(failed.items()))
            raise ValueError(
                f"none of the {len(failed)} checkpoints in {self.directory} can be read; the "
                f"newest, of step {step}: {why}"
            )
        return None

    def _check_fits(self, step: int, like: Any) -> None:
        """Raises ValueError if a checkpoint holds parameters of other shapes than the network."""
        try:
            saved = self.shapes(step)
        except Exception:  # it cannot be read at all
            return
        like = {"params": like.params, "batch_stats": like.batch_stats}
        if difference := first_difference({name: saved.get(name) for name in like}, like):
            raise ValueError(
                f"the checkpoint of step {step} in {self.directory} is of another network: "
                f"{difference}; has its code changed?"
            )

    def shapes(self, step: int) -> Any:
        """Returns the state of a checkpoint as a tree of shapes and dtypes."""
        import orbax.checkpoint as ocp

        with without_warnings(), ocp.StandardCheckpointer() as reader:
            return reader.metadata(self._folder / str(step) / "state").item_metadata.tree

    def delete_after(self, step: int) -> None:
        """Deletes the checkpoints of later steps."""
        for later in self.steps():
            if later > step:
                self._delete(later)

    def _delete(self, step: int) -> None:
        self._known.discard(step)
        self._delete_files(step)

    def _delete_files(self, step: int) -> None:
        self._manager.delete(step)

    def wait(self) -> None:
        """Waits until all checkpoints are written. Raises OSError if one cannot be written."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            with self._one_line_errors():
                writing.result()

    def close(self) -> None:
        """Waits as `wait`, then releases the directory; nothing more can be saved."""
        try:
            self.wait()
        finally:
            if self._writer is not None:
                self._writer.shutdown()
            with self._one_line_errors():
                self._manager.close()

    @contextlib.contextmanager
    def _one_line_errors(self) -> Iterator[None]:
        """Converts any error of Orbax to a one-line OSError that names the last good checkpoint."""
        try:
            yield
        except Exception as error:
            good = self._complete_after_error()
            rest = (
                f"the newest good one is of step {max(good)}" if good else "there is no earlier one"
            )
            raise OSError(
                f"the checkpoint of step {self._saving} cannot be written to {self.directory} "
                f"({reason(error)}); {rest}"
            ) from error

    def _reload(self) -> None:
        """Takes notice of files that have been moved."""
        self._manager.reload()
        self._known = set(self._complete())

    def _complete_after_error(self) -> list[int]:
        """The steps of the complete checkpoints, if they can be listed after an error."""
        return complete_steps(self.directory)

    def _set_aside(self, step: int, good: int, why: str) -> str:
        target = _unused(self.directory.parent / UNREADABLE / f"step_{step}")

        def move() -> None:
            written.note(self.directory.parent, f"{UNREADABLE}/{target.name}")
            _files.move_folder(self.directory / str(step), target)

        distributed.on_first_process(move)
        self._reload()
        return (
            f"the checkpoint of step {step} cannot be read ({why}) and was moved to {target}; "
            f"continuing from step {good}"
        )


def abstract(shapes: Any, mesh: Mesh) -> Any:
    """Returns the `like` of `restore` for a state that is replicated on the mesh."""
    return parallel.abstract_state(shapes, mesh)


def _check_arrays(folder: Path) -> None:
    """Reads every stored chunk, one after another; raises at the first broken one.

    Orbax reads all chunks concurrently; if one fails, the others print tracebacks to stderr.
    """
    import tensorstore

    if not (folder / "manifest.ocdbt").is_file():
        raise ValueError(f"{folder / 'manifest.ocdbt'} is missing")
    base = {"driver": "file", "path": f"{folder}/"}  # a URL would decode % and end at ? and #
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
    for key in store.list().result():
        store.read(key).result()


def _unused(path: Path) -> Path:
    candidates: Iterable[Path] = (path.with_name(f"{path.name}_{n}") for n in range(2, 1000))
    return path if not path.exists() else next(p for p in candidates if not p.exists())


def reason(error: Exception) -> str:
    """Returns the reason of an error of Orbax in one line, such as "No space left on device"."""
    code = error.errno if isinstance(error, OSError) else None
    if match := re.search(r"os_error_code='(\d+)'", str(error)):
        code = int(match[1])
    if code:
        return os.strerror(code)
    lines = str(error).strip().splitlines() or [""]
    text = lines[0] if type(error) is ValueError else f"{type(error).__name__}: {lines[0]}"
    return text if len(text) <= 160 else text[:157] + "..."


def first_difference(saved: Any, wanted: Any) -> str | None:
    """Describes the first array whose shape differs between two trees; None if all are equal.

    Args:
      saved: tree of arrays, or of their shapes, of a checkpoint.
      wanted: that of the network.
    """
    there, here = (
        {path: tuple(leaf.shape) for path, leaf in _by_path(tree).items()}
        for tree in (saved, wanted)
    )
    for path in sorted(here | there, key=lambda path: not path.startswith("params")):
        if here.get(path) != there.get(path):
            old, new = (str(shapes.get(path, "missing")) for shapes in (there, here))
            return f"{path} is {old} in the checkpoint and {new} in the network"
    return None


def _digests(state: Any, step: int, meta: Mapping[str, Any]) -> dict[str, str]:
    """Returns {path of an array: its dtype, shape and CRC-32}, and "meta" for step and numbers."""
    digests = {path: _digest(leaf) for path, leaf in _by_path(jax.device_get(state)).items()}
    numbers = json.dumps([step, dict(meta)], sort_keys=True)
    return digests | {"meta": f"{zlib.crc32(numbers.encode()):08x}"}


def _by_path(tree: Any) -> dict[str, Any]:
    """Returns {path of a leaf, such as "params/fc/kernel": leaf}."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _digest(leaf: Any) -> str:
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended):
        leaf = jax.random.key_data(leaf)
    array = np.ascontiguousarray(leaf)
    return f"{array.dtype} {list(np.shape(leaf))} {zlib.crc32(array.view(np.uint8).data):08x}"


def _compare(saved: Mapping[str, str], actual: Mapping[str, str]) -> None:
    """Raises ValueError that names the first array that differs."""
    for name in {**saved, **actual}:
        if saved.get(name) != actual.get(name):
            raise ValueError(f"{name} differs from what was saved: wrong checksum")


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Suppresses warnings of Orbax about intended use: reading only, or reading a single item."""
    log = logging.getLogger("absl")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
