"""Settings of the Hugging Face Hub's client, for a test."""

import sys

import huggingface_hub.file_download
import huggingface_hub.hf_api  # noqa: F401  so that what it holds can be replaced


def set_constant(monkeypatch, name, value):
    """Sets a constant; older clients import it into each of their modules."""
    client = [m for n, m in sys.modules.items() if n.split(".")[0] == "huggingface_hub"]
    for module in client:
        if name in vars(module):
            monkeypatch.setattr(module, name, value)
