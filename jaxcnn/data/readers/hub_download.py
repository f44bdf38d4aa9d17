"""Downloads the Parquet files of a dataset from the Hugging Face hub, through its client and cache.

The client's environment variables apply: HF_HOME and HF_HUB_CACHE set the cache, HF_TOKEN the
access token, HF_ENDPOINT the address of the hub, and HF_HUB_OFFLINE disables the network.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxcnn._checks import note_once
from jaxcnn._files import local_path
from jaxcnn.data.readers import hub_layout

README = "README.md"
# The hub converts datasets of other formats to Parquet in this branch.
_REVISIONS = ("main", "refs/convert/parquet")
_TIMEOUT = 10.0  # seconds until the hub has to answer
# Splits without labels, which are not downloaded.
_UNLABELED = {"ILSVRC/imagenet-1k": ("test",)}
# Errors of the cache's disk, not of the network.
_OF_DISKS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.ENOTDIR}


class _Unreachable(Exception):
    """The hub does not answer, or the network is disabled."""


class _NoRevision(ValueError):
    """The dataset has no such revision."""


def fetch(
    repo: str, revision: str | None, config: str | None, cache: str | os.PathLike | None
) -> Path:
    """Returns the folder of a dataset in the hub's cache; downloads what is missing.

    If the hub does not answer, the files in the cache are used as they are.

    Args:
      repo: OWNER/NAME or NAME.
      revision: branch, tag or commit; None for the newest version.
      config: configuration to download; None for the only one or the default.
      cache: directory of the cache; None for the hub's own.

    Raises:
      FileNotFoundError: the dataset has no Parquet files.
      ValueError: there is no such dataset, access is denied, or it can neither be downloaded nor
        found in the cache.
    """
    from huggingface_hub import constants

    folder = local_path(cache) if cache else Path(constants.HF_HUB_CACHE)
    revisions = (revision,) if revision else _REVISIONS
    try:
        found, names = _find_files(repo, revisions)
    except _Unreachable as error:
        failure = error
    else:
        return _download(repo, found, names, config, folder)
    for name in revisions:
        snapshot = _cached(repo, name, folder)
        if snapshot and any(snapshot.rglob("*.parquet")):
            note_once(f"{failure}; hf:{repo} is used as it is in {snapshot}")
            return snapshot
    raise ValueError(
        f"hf:{repo} is not in the cache {folder}, and {failure}: run `hf download {repo} "
        "--repo-type dataset --local-dir DIR` where you can, and use hf:DIR"
    )


def _download(repo: str, revision: str, names: list[str], config: str | None, cache: Path) -> Path:
    """Downloads the files of a configuration that are not in the cache; returns their folder."""
    from huggingface_hub import hf_hub_download, snapshot_download

    where: dict[str, Any] = {"repo_type": "dataset", "revision": revision, "cache_dir": cache}
    card: dict[str, Any] = {}
    try:
        with _explained(repo, revision):
            if README in names:
                card = hub_layout.read_card(Path(hf_hub_download(repo, README, **where)).parent)
        config, files = hub_layout.split_files(names, card, config, f"hf:{repo}")
        for split in _UNLABELED.get(repo, ()):
            files.pop(split, None)
        patterns = [_literal(name) for name in (README, *itertools.chain(*files.values()))]
        with _explained(repo, revision):
            return Path(snapshot_download(repo, allow_patterns=patterns, **where))
    except _Unreachable as error:
        raise ValueError(
            f"hf:{repo} is not complete, and {error}; repeat the command to continue"
        ) from error


def _find_files(repo: str, revisions: tuple[str, ...]) -> tuple[str, list[str]]:
    """(revision, names of all files) of the first revision that has Parquet files."""
    from huggingface_hub import HfApi

    others: list[str] = []
    for revision in revisions:
        try:
            with _explained(repo, revision):
                info = HfApi().dataset_info(repo, revision=revision, timeout=_TIMEOUT)
        except _NoRevision:
            if revision == revisions[0]:
                raise
            continue
        names = [file.rfilename for file in info.siblings or ()]
        if any(name.endswith(".parquet") for name in names):
            return revision, names
        others += names
    raise FileNotFoundError(f"hf:{repo} has no Parquet files; it has {', '.join(others[:8])}")


def _literal(name: str) -> str:
    """The pattern that only this name matches."""
    return name.replace("[", "[[]").replace("*", "[*]").replace("?", "[?]")


@contextlib.contextmanager
def _explained(repo: str, revision: str) -> Iterator[None]:
    """Translates the errors of the hub's client."""
    from huggingface_hub import constants
    from huggingface_hub.utils import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    login = "log in with `hf auth login` (or set HF_TOKEN)"
    try:
        yield
    except GatedRepoError:
        raise ValueError(
            f"hf:{repo} is gated: accept its terms at {constants.ENDPOINT}/datasets/{repo}, then "
            f"{login}"
        ) from None
    except RepositoryNotFoundError:
        raise ValueError(
            f"the hub has no dataset {repo!r}, or it is private: {login}; a folder is written as "
            "hf:./PATH"
        ) from None
    except RevisionNotFoundError:
        raise _NoRevision(f"hf:{repo} has no revision {revision!r}") from None
    except HfHubHTTPError as error:
        raise _Unreachable(f"the hub refused ({type(error).__name__})") from error
    except LocalEntryNotFoundError as error:
        raise _Unreachable("the hub cannot be reached") from error
    except (ValueError, FileNotFoundError):
        raise
    except Exception as error:  # of whatever the client uses for HTTP
        if isinstance(error, OSError) and error.errno in _OF_DISKS:
            raise
        if constants.HF_HUB_OFFLINE:
            raise _Unreachable("HF_HUB_OFFLINE is set") from error
        raise _Unreachable(f"the hub cannot be reached ({type(error).__name__})") from error


def _cached(repo: str, revision: str, cache: Path) -> Path | None:
    """The folder of a downloaded version of a dataset in the cache of the hub."""
    folder = cache / f"datasets--{repo.replace('/', '--')}"
    reference = folder / "refs" / revision
    commit = reference.read_text("utf-8").strip() if reference.is_file() else revision
    snapshot = folder / "snapshots" / commit
    return snapshot if snapshot.is_dir() else None
