"""Downloads weights from the Hugging Face Hub, through its client and its cache."""

from __future__ import annotations

from pathlib import Path

from jaxcnn.weights.pretrained import Weights


def fetch(weights: Weights) -> Path:
    """Returns the path of published weights in the Hub's cache; downloads them if necessary.

    Cached files are used without contacting the Hub. The client's environment variables apply:
    HF_HOME and HF_HUB_CACHE set the cache, HF_HUB_OFFLINE disables the network.

    Args:
      weights: to be fetched.

    Raises:
      ValueError: the weights are not in the cache and cannot be downloaded; the message contains
        the URL.
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
