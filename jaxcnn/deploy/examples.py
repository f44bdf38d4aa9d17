"""Programs of a few lines that use an exported network without jaxcnn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxcnn.weights.pretrained import WEIGHTS

_OPEN = '''"""Classifies a photo: python example.py cat.jpg (needs {needs})."""

import json
import sys
from pathlib import Path

import numpy as np
{imports}
from PIL import Image

folder = Path(__file__).parent
about = json.loads((folder / "model.json").read_text("utf-8"))
preprocessing = about["preprocessing"]
size, mean, std = (preprocessing[name] for name in ("size", "mean", "std"))
'''
# As `jaxcnn.evaluation.preprocess`.
_READ = """
image = Image.open(sys.argv[1]).convert("L" if len(mean) == 1 else "RGB")
short = int(size / preprocessing["crop"])
image = image.resize(
    [short * n // min(image.size) for n in image.size],
    Image.Resampling[preprocessing["interpolation"].upper()],
)
left, top = (round((n - size) / 2) for n in image.size)
pixels = np.asarray(image.crop((left, top, left + size, top + size)))
"""
_NORMALIZE = 'images = ((pixels.reshape(1, size, size, -1) / 255 - mean) / std).astype("float32")\n'
_SOFTMAX = """scores = np.exp(logits - logits.max())
scores /= scores.sum()
"""
_PRINT = """
for i in np.argsort(-scores, kind="stable")[:5]:
    print(f"{100 * scores[i]:6.2f} %  {about['classes'][i]}")
"""
_RUN = {
    "stablehlo": (
        "jax",
        "from jax import export",
        'program = export.deserialize(bytearray((folder / about["file"]).read_bytes()))\n'
        "{output} = np.asarray(program.call(images))[0]\n",
    ),
    "onnx": (
        "onnxruntime",
        "import onnxruntime",
        'session = onnxruntime.InferenceSession(folder / about["file"])\n'
        '{output} = session.run(None, {{"images": images}})[0][0]\n',
    ),
    "torchvision": (
        "torchvision",
        "import torch\nimport torchvision\nfrom safetensors.torch import load_file",
        'model = torchvision.models.{model}(num_classes=len(about["classes"])).eval()\n',
    ),
    "timm": (
        "timm",
        "import timm\nimport torch\nfrom safetensors.torch import load_file",
        'model = timm.create_model("{model}", num_classes=len(about["classes"])).eval()\n',
    ),
}
_LOAD = 'weights = load_file(folder / about["file"])\n'
_WITHOUT_AUXILIARY_HEADS = """for name in list(weights):
    if name.lower().startswith("aux"):  # heads that help in training
        del weights[name]
"""
_APPLY = """model.load_state_dict(weights)
logits = model(torch.from_numpy(images).permute(0, 3, 1, 2))[0].detach().numpy()
"""
# Options that change neither the arrays nor the results of a trained network.
_OF_TRAINING = {
    "aux_heads",
    "axis_name",
    "bn_group",
    "bn_momentum",
    "drop_path",
    "dropout",
    "remat",
    "zero_gamma",
}
_LIST = '''"""Lists the arrays of the network: python example.py (needs safetensors)."""

import json
from pathlib import Path

from safetensors.numpy import load_file

folder = Path(__file__).parent
about = json.loads((folder / "model.json").read_text("utf-8"))
arrays = load_file(folder / about["file"])
for name, array in arrays.items():
    print(f"{name}  {array.dtype}{list(array.shape)}")
print(f"{about['model']}: {sum(array.size for array in arrays.values()):,} numbers")
'''


def example(to: str, model: str, options: Mapping[str, Any], pixels: bool) -> str:
    """Returns the source of a program that uses an exported network.

    Args:
      to: format of the network, see `export_model`.
      model: id of the network.
      options: fields of its module.
      pixels: whether the network takes pixels and returns probabilities.
    """
    kind, architecture = to, None
    if to == "torch" and set(options) <= _OF_TRAINING:
        architecture = timm_architecture(model)
    if architecture:
        kind = "torchvision" if architecture.startswith("vgg") else "timm"
    if kind not in _RUN:
        return _LIST
    needs, imports, run = _RUN[kind]
    images = "images = pixels.reshape(1, size, size, -1)\n" if pixels else _NORMALIZE
    run = run.format(output="scores" if pixels else "logits", model=architecture)
    if architecture:
        has_auxiliary = architecture.startswith("inception")
        run += _LOAD + (_WITHOUT_AUXILIARY_HEADS if has_auxiliary else "") + _APPLY
    opened = _OPEN.format(needs=f"{needs} and pillow", imports=imports)
    return opened + _READ + images + run + ("" if pixels else _SOFTMAX) + _PRINT


def timm_architecture(model: str) -> str | None:
    """Returns timm's name of a network of which it publishes weights; None for others."""
    found = (name for name, weights in WEIGHTS.items() if weights.model == model)
    return next((name.partition(".")[0] for name in found), None)
