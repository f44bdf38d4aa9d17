"""Downloads weights from the Hugging Face Hub, through its client and its cache."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from jaxcnn.weights.pretrained import Weights


def fetch(weights: Weights) -> Path:
    """Returns the path of published weights in the Hub's cache; downloads them if necessary.

    Cached files are used without contacting the Hub. Otherwise one request without retries finds
    out whether the Hub answers; the download itself would retry several times first. The client's
    environment variables apply: HF_HOME and HF_HUB_CACHE set the cache, HF_HUB_OFFLINE disables the
    network.

    Args:
      weights: to be fetched.

    Raises:
      ValueError: the weights are not in the cache and cannot be downloaded; the message contains
        the URL.
    """
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub.utils import HfHubHTTPError, LocalEntryNotFoundError

    repo, file = weights.repository, weights.file
    url, offline = huggingface_hub.hf_hub_url(repo, file), constants.HF_HUB_OFFLINE
    try:
        return Path(huggingface_hub.hf_hub_download(repo, file, local_files_only=True))
    except LocalEntryNotFoundError as error:
        failure: Exception = error
    reason = "HF_HUB_OFFLINE is set"
    if not offline:
        try:
            with _quiet_client():
                huggingface_hub.get_hf_file_metadata(url)
                return Path(huggingface_hub.hf_hub_download(repo, file))
        except HfHubHTTPError as error:
            failure, reason = error, f"the hub refused ({type(error).__name__})"
        except Exception as error:  # of whatever the client uses for HTTP
            failure, reason = error, f"the hub cannot be reached ({type(error).__name__})"
    raise ValueError(
        f"the weights {weights.name!r} are not in the cache {constants.HF_HUB_CACHE}, and "
        f"{reason}: download {url} where you can, and give the file's path"
    ) from failure


@contextlib.contextmanager
def _quiet_client() -> Iterator[None]:
    """Hides the client's log messages; what matters is raised."""
    from huggingface_hub.utils import logging as client

    before = client.get_verbosity()
    client.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        client.set_verbosity(before)
