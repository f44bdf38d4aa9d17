"""Files of the Hugging Face hub, through its own client and its cache."""

from __future__ import annotations

from pathlib import Path

from jaxcnn.weights.pretrained import Weights


def fetch(weights: Weights) -> Path:
    """Path of published weights in the hub's cache, downloaded if they are not there yet.

    What is in the cache is taken without asking the hub. The client's variables hold: HF_HOME and
    HF_HUB_CACHE (where the cache is), HF_HUB_OFFLINE (no network).

    Raises:
      ValueError: they are not in the cache and cannot be had; says what to download.
    """
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub.utils import LocalEntryNotFoundError

    repo, file = weights.repository, weights.file
    offline = constants.HF_HUB_OFFLINE
    try:
        return Path(huggingface_hub.hf_hub_download(repo, file, local_files_only=True))
    except LocalEntryNotFoundError as error:
        failure: Exception = error
    if not offline:
        try:
            return Path(huggingface_hub.hf_hub_download(repo, file))
        except Exception as error:  # of the client, or of whatever it uses for HTTP
            failure = error
    if isinstance(failure, LocalEntryNotFoundError):
        reason = "HF_HUB_OFFLINE is set" if offline else "the hub cannot be reached"
    else:
        reason = f"the hub refused ({type(failure).__name__})"
    raise ValueError(
        f"the weights {weights.name!r} are not in the cache {constants.HF_HUB_CACHE}, and "
        f"{reason}: download {huggingface_hub.hf_hub_url(repo, file)} where you can, and give the "
        "file's path"
    ) from failure
