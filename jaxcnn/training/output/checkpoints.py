"""Checkpoints of a run: the newest few to resume from, and in a directory of its own the best one.

Orbax writes them in the background. What resuming needs beside the state are a few numbers, which
lie in the same checkpoint: both are there or neither.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from jaxcnn.runtime import distributed
from jaxcnn.training import parallel

UNREADABLE = "unreadable"


class Checkpoints:
    """The newest `keep` checkpoints in a directory, by step.

    Close it, or use it in a `with` statement: a checkpoint is written in the background and the
    last one is lost if the process ends before.
    """

    def __init__(self, directory: str | Path, keep: int):
        import orbax.checkpoint as ocp

        self.directory = Path(directory).absolute()
        # Where two stores of several processes write at once, Orbax mixes up their barriers.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            create=True,
            enable_async_checkpointing=distributed.count() == 1,
            # Folders that cannot be made are an error here and now. In the background Orbax's
            # threads would wait for them for minutes, and the process with them.
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            cleanup_tmp_directories=True,  # of a process that was killed while it wrote
        )
        self._manager = ocp.CheckpointManager(self.directory, options=options)
        self._args = ocp.args
        self._written: int | None = None

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
            args = self._args
            item = args.Composite(state=args.StandardSave(state), meta=args.JsonSave(dict(meta)))
            self._manager.save(step, args=item, force=True)
        return True

    def restore(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        """(state, meta) of a step; `like` is a tree of `jax.ShapeDtypeStruct`, see `abstract`."""
        args = self._args
        item = args.Composite(state=args.StandardRestore(like), meta=args.JsonRestore())
        restored = self._manager.restore(step, args=item)
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
                folder = self.directory / str(step) / "state"
                distributed.on_first_process(functools.partial(_check_arrays, folder))
                state, meta = self.restore(step, like)
            except Exception as error:  # Orbax raises whatever its parts raise
                failed[step] = _first_line(error)
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
                f"({_reason(error)}); {left}"
            ) from error

    def _set_aside(self, step: int, good: int, why: str) -> str:
        target = _unused(self.directory.parent / UNREADABLE / f"step_{step}")

        def move() -> None:
            target.parent.mkdir(exist_ok=True)
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


def _reason(error: Exception) -> str:
    """Such as "No space left on device", however Orbax says it."""
    code = error.errno if isinstance(error, OSError) else None
    if found := re.search(r"os_error_code='(\d+)'", str(error)):
        code = int(found[1])
    return os.strerror(code) if code else _first_line(error)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    text = f"{type(error).__name__}: {lines[0]}"
    return text if len(text) <= 160 else text[:157] + "..."
