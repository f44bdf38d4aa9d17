"""Files of the Hugging Face hub, through its own client and its cache."""

from __future__ import annotations

from pathlib import Path

from jaxcnn.weights.pretrained import Weights


def fetch(weights: Weights) -> Path:
    """Path of published weights in the hub's cache, downloaded if they are not there yet.

    What is in the cache is taken without asking the hub. The client's variables hold: HF_HOME and
    HF_HUB_CACHE (where the cache is), HF_HUB_OFFLINE (no network).

    Raises:
      ValueError: they are not in the cache and cannot be had; says what to download and where it
        belongs.
    """
    import huggingface_hub
    from huggingface_hub import constants

    where = {"repo_id": weights.repository, "filename": weights.file}
    try:
        return Path(huggingface_hub.hf_hub_download(**where, local_files_only=True))
    except OSError:  # not in the cache
        pass
    if not constants.HF_HUB_OFFLINE:
        try:
            return Path(huggingface_hub.hf_hub_download(**where))
        except Exception as error:  # of the client or of whatever it uses for HTTP
            reason = f"the hub did not give them ({_first_line(error)})"
            cause: Exception | None = error
    else:
        reason, cause = "HF_HUB_OFFLINE is set", None
    folder = Path(constants.HF_HUB_CACHE) / f"models--{weights.repository.replace('/', '--')}"
    raise ValueError(
        f"the weights {weights.name!r} are not in the cache {folder}, and {reason}: download "
        f"{huggingface_hub.hf_hub_url(**where)} elsewhere and give the path of the file"
    ) from cause


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:160]
