"""Checkpoints in a bucket: Orbax writes and reads them in a local folder, and they are copied.

A checkpoint in a bucket has the files of a local one. `commit_success.txt` is written last and
deleted first: without it a checkpoint is not complete, and does not count. The copies are made in
the background.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from jaxcnn import _files
from jaxcnn.runtime import distributed
from jaxcnn.training.output.checkpoints import Checkpoints
from jaxcnn.training.output.records import COMMIT_MARK, complete_steps, files_by_step

_COPIES = 8  # at a time


class BucketCheckpoints(Checkpoints):
    """The newest `keep` checkpoints in a directory of a bucket, by step.

    The first process writes; every process reads by itself.

    Args:
      directory: as for `Checkpoints`.
      keep: likewise.
      check: raises OSError if this process may no longer write.
    """

    def __init__(
        self,
        directory: str | Path,
        keep: int | None = None,
        check: Callable[[], None] | None = None,
    ):
        import orbax.checkpoint as ocp

        self.directory = _files.any_path(directory)
        self._check = check or (lambda: None)
        self._scratch = _files.Spool(None)
        number = distributed.number()
        alone = ocp.options.MultiprocessingOptions(
            primary_host=number, active_processes={number}, barrier_sync_key_prefix=f"p{number}"
        )
        # The folder exists already; Orbax refuses to create one for a process by itself.
        options: dict[str, Any] = {"max_to_keep": keep and 1, "create": False}
        if distributed.count() > 1:
            options["multiprocessing_options"] = alone
        if keep is not None and distributed.is_first():
            self._delete_incomplete()
        self._open(self._scratch.folder, keep, distributed.is_first(), **options)

    def _complete(self) -> Iterable[int]:
        return complete_steps(self.directory)

    def restore(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        """Reads the checkpoint of a step, see `Checkpoints.restore`."""
        with self._local_copy(step):
            return super().restore(step, like)

    def shapes(self, step: int) -> Any:
        """Returns the state of a checkpoint as a tree of shapes and dtypes."""
        with self._local_copy(step):
            return super().shapes(step)

    def close(self) -> None:
        """Waits as `wait`, then deletes the local folder; nothing more can be saved."""
        try:
            super().close()
        finally:
            self._scratch.close()

    def _write(self, state: Any, step: int, meta: dict[str, Any]) -> None:
        """Saves a checkpoint, copies it to the bucket, and deletes older ones there."""
        if not distributed.is_first():
            return
        kept = self._known
        super()._write(state, step, meta)
        folder = self._scratch.folder / str(step)
        if not (folder / COMMIT_MARK).exists():
            (folder / COMMIT_MARK).write_text("complete\n", "utf-8")
        files = [path for path in _files.files_below(folder) if path != folder / COMMIT_MARK]
        target = self.directory / str(step)
        self._check()
        with ThreadPoolExecutor(_COPIES) as pool:
            list(pool.map(lambda path: _upload(path, target / path.relative_to(folder)), files))
        self._check()
        _upload(folder / COMMIT_MARK, target / COMMIT_MARK)
        self._manager.delete(step)
        for old in sorted(set(complete_steps(self.directory)) - kept):
            self._delete_files(old)

    @contextlib.contextmanager
    def _local_copy(self, step: int) -> Iterator[None]:
        """Has the checkpoint in the local folder, where Orbax reads it; a reader keeps it there."""
        folder = self._folder / str(step)
        if not folder.exists():
            self._download(self.directory / str(step), folder)
            self._manager.reload()
        try:
            yield
        finally:
            if self._keep is not None:
                _files.delete_folder(folder)
                self._manager.reload()

    def _download(self, source: Path, folder: Path) -> None:
        part = self._folder.with_name("part")

        def download(path: Any) -> None:
            local = part / path.relative_to(source)
            local.parent.mkdir(parents=True, exist_ok=True)
            path.download(local)

        if part.exists():  # left by an error
            _files.delete_folder(part)
        part.mkdir()
        with ThreadPoolExecutor(_COPIES) as pool:
            list(pool.map(download, _files.files_below(source)))
        part.rename(folder)

    def _delete_files(self, step: int) -> None:
        if distributed.is_first():
            folder = self.directory / str(step)
            (folder / COMMIT_MARK).unlink(missing_ok=True)
            _files.delete_folder(folder)

    def _complete_after_error(self) -> list[int]:
        with contextlib.suppress(OSError):
            return complete_steps(self.directory)
        return []

    def _delete_incomplete(self) -> None:
        """Deletes what a killed process has left; the lock ensures that no other one is saving."""
        for step, names in files_by_step(self.directory).items():
            if COMMIT_MARK not in names:
                self._delete_files(step)


def _upload(path: Path, target: Any) -> None:
    target.upload(path)
