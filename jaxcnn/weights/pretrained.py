"""Published weights: where they are, and the preprocessing of their images.

A few small networks come with the package; the others are on the Hugging Face Hub, where the names
are timm's: an architecture, and a tag that identifies the training and the dataset. Sizes, crops,
interpolations and normalizations are those of timm's `default_cfgs`; where it has a larger size for
testing than for training, the size for testing is used.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path

from jaxcnn._checks import near
from jaxcnn.data.preprocessing import HALF, IMAGENET, Preprocessing, from_dict
from jaxcnn.models import registry
from jaxcnn.weights import files


@dataclasses.dataclass(frozen=True)
class Weights:
    """Published weights.

    Attributes:
      name: timm's architecture and tag.
      model: id of the network in jaxcnn.
      preprocessing: of their images.
    """

    name: str
    model: str
    preprocessing: Preprocessing

    @property
    def repository(self) -> str:
        """Repository on the Hugging Face Hub."""
        return f"timm/{self.name}"

    @property
    def license(self) -> str:
        """License of the weights, as timm states it."""
        tag = self.name.partition(".")[2].removesuffix("_in1k")
        if tag in _FACEBOOK:
            return "cc-by-nc-4.0"
        torchvision = tag in ("tv", "tv2") and not self.name.startswith("inception")
        return "bsd-3-clause" if torchvision else "apache-2.0"

    @property
    def file(self) -> str:
        """Name of the weights file in the repository."""
        return "model.safetensors"


_DPN = ((124 / 255, 117 / 255, 104 / 255), (1 / (0.0167 * 255),) * 3)

_TORCHVISION = Preprocessing(224, 0.875, "bilinear", *IMAGENET)
_TORCHVISION_2 = Preprocessing(224, 0.965, "bilinear", *IMAGENET)
_BICUBIC = Preprocessing(224, 0.875, "bicubic", *IMAGENET)
_TIMM = Preprocessing(288, 0.95, "bicubic", *IMAGENET)
_TIMM_320 = Preprocessing(320, 1.0, "bicubic", *IMAGENET)
# Wightman, Touvron, Jegou 2021, "ResNet strikes back" (arXiv 2110.00476), procedures A1 to D.
_STRIKES_BACK = Preprocessing(288, 1.0, "bicubic", *IMAGENET)
_STRIKES_BACK_A3 = Preprocessing(224, 0.95, "bicubic", *IMAGENET)
_RESNET_V2 = Preprocessing(288, 1.0, "bicubic", *HALF)
_INCEPTION_299 = Preprocessing(299, 0.875, "bicubic", *HALF)
_INCEPTION_RESNET = Preprocessing(299, 0.8975, "bicubic", *HALF)
_DPN_224 = Preprocessing(224, 0.875, "bicubic", *_DPN)

# Mahajan et al. 2018 (arXiv 1805.00932), weakly supervised, and Yalniz et al. 2019 (arXiv
# 1905.00546), semi-supervised: trained on other images and fine-tuned on ImageNet.
_FACEBOOK = ("fb_ssl_yfcc100m_ft", "fb_swsl_ig1b_ft", "fb_wsl_ig1b_ft")

_TAGS = {
    "tv_in1k": _TORCHVISION,
    "tv2_in1k": _TORCHVISION_2,
    "gluon_in1k": _BICUBIC,
    "am_in1k": _BICUBIC,
    **{f"{tag}_in1k": _STRIKES_BACK for tag in ("a1h", "a1", "a2", "b1k", "b2k", "c1", "c2", "d")},
    "a3_in1k": _STRIKES_BACK_A3,
    **{f"{tag}_in1k": _TIMM for tag in ("bt", "ra", "ra2", "ram", "racm")},
    "mx_in1k": _DPN_224,
    "ra4_e3600_r224_in1k": _RESNET_V2,
    **{f"{tag}_in1k": _TORCHVISION for tag in _FACEBOOK},
}

# Architecture in timm, id in jaxcnn if it differs, and tags. The preprocessing of a tag is in
# `_TAGS`, unless `_EXCEPTIONS` has one for the full name.
_LISTED = """
resnet18            -                   a1 a2 a3 gluon tv fb_ssl_yfcc100m_ft fb_swsl_ig1b_ft
resnet34            -                   a1 a2 a3 bt gluon ra4_e3600_r224 tv
resnet50            -                   a1 a1h a2 a3 am b1k b2k bt c1 c2 d gluon ra ram tv tv2
resnet50            -                   fb_ssl_yfcc100m_ft fb_swsl_ig1b_ft
resnet101           -                   a1 a1h a2 a3 gluon tv tv2
resnet152           -                   a1 a1h a2 a3 gluon tv tv2
resnet50c           -                   gluon
resnet101c          -                   gluon
resnet152c          -                   gluon
resnet18d           -                   ra2 ra4_e3600_r224
resnet34d           -                   ra2
resnet50d           -                   a1 a2 a3 gluon ra2 ra4_e3600_r224
resnet101d          -                   gluon ra2
resnet152d          -                   gluon ra2
resnet50s           -                   gluon
resnet101s          -                   gluon
resnet152s          -                   gluon
resnetv2_18         resnet18_v2         ra4_e3600_r224
resnetv2_34         resnet34_v2         ra4_e3600_r224
resnetv2_50         resnet50_v2         a1h
resnetv2_101        resnet101_v2        a1h
wide_resnet50_2     -                   racm tv tv2
wide_resnet101_2    -                   tv tv2
resnext50_32x4d     -                   a1 a1h a2 a3 gluon ra tv tv2
resnext50_32x4d     -                   fb_ssl_yfcc100m_ft fb_swsl_ig1b_ft
resnext101_32x4d    -                   gluon fb_ssl_yfcc100m_ft fb_swsl_ig1b_ft
resnext101_32x8d    -                   tv tv2 fb_ssl_yfcc100m_ft fb_swsl_ig1b_ft fb_wsl_ig1b_ft
resnext101_64x4d    -                   c1 gluon tv
seresnet50          se_resnet50_v1_5    a1 a2 a3 ra2
vgg11               vgg_a               tv
vgg13               vgg_b               tv
vgg16               vgg_d               tv
vgg19               vgg_e               tv
vgg11_bn            vgg_a_bn            tv
vgg13_bn            vgg_b_bn            tv
vgg16_bn            vgg_d_bn            tv
vgg19_bn            vgg_e_bn            tv
inception_v3        -                   gluon tf tf_adv tv
inception_v4        -                   tf
inception_resnet_v2 -                   tf tf_ens_adv
dpn68               -                   mx
dpn68b              -                   mx ra
dpn92               -                   mx
dpn98               -                   mx
dpn107              -                   mx
dpn131              -                   mx
"""

_EXCEPTIONS = {
    "resnet50.a1h_in1k": dataclasses.replace(_STRIKES_BACK, size=224),
    "resnet101d.ra2_in1k": _TIMM_320,
    "resnet152d.ra2_in1k": _TIMM_320,
    "resnetv2_50.a1h_in1k": _RESNET_V2,
    "resnetv2_101.a1h_in1k": _RESNET_V2,
    "inception_v3.gluon_in1k": Preprocessing(299, 0.875, "bicubic", *IMAGENET),
    **{f"inception_v3.{tag}_in1k": _INCEPTION_299 for tag in ("tf", "tf_adv", "tv")},
    "inception_v4.tf_in1k": _INCEPTION_299,
    "inception_resnet_v2.tf_in1k": _INCEPTION_RESNET,
    "inception_resnet_v2.tf_ens_adv_in1k": _INCEPTION_RESNET,
    "dpn68b.ra_in1k": _STRIKES_BACK,
}

# The SENets of the original release, under the tag "in1k".
_LEGACY = {
    "legacy_seresnet18": "se_resnet18",
    "legacy_seresnet34": "se_resnet34",
    "legacy_seresnet50": "se_resnet50",
    "legacy_seresnet101": "se_resnet101",
    "legacy_seresnet152": "se_resnet152",
    "legacy_seresnext50_32x4d": "se_resnext50_32x4d",
    "legacy_seresnext101_32x4d": "se_resnext101_32x4d",
    "legacy_senet154": "senet154",
}


def _rows() -> Iterator[Weights]:
    for line in _LISTED.strip().splitlines():
        architecture, model, *tags = line.split()
        for tag in tags:
            name = f"{architecture}.{tag}_in1k"
            preprocessing = _EXCEPTIONS.get(name) or _TAGS[f"{tag}_in1k"]
            yield Weights(name, architecture if model == "-" else model, preprocessing)
    for architecture, model in _LEGACY.items():
        preprocessing = _BICUBIC if model == "se_resnet18" else _TORCHVISION
        yield Weights(f"{architecture}.in1k", model, preprocessing)


WEIGHTS = {weights.name: weights for weights in _rows()}
# Files of weights that come with the package, by name; `shipped/README.md` has their origin.
SHIPPED = {
    path.stem: path for path in sorted((Path(__file__).parent / "shipped").glob("*.safetensors"))
}


def shipped(name: str) -> Weights:
    """Reads the network and the preprocessing of weights that come with the package.

    Args:
      name: a key of `SHIPPED`.
    """
    _, metadata = files.read(SHIPPED[name])
    prepare = from_dict(json.loads(metadata["preprocessing"]))
    return Weights(name, metadata["model"], prepare)


def find(name: str) -> Weights:
    """Looks up published weights.

    Args:
      name: architecture and tag, such as "resnet50.tv_in1k".

    Raises:
      ValueError: there are no such weights; the message lists those of the network, or suggests
        similar names. Or they are in a file of another framework; the message says where.
    """
    if name in WEIGHTS:
        return WEIGHTS[name]
    from jaxcnn.weights import elsewhere  # of no use to a run

    if name in elsewhere.FILES:
        file = elsewhere.FILES[name]
        raise ValueError(
            f"the weights {name!r} are in a file of {file.format}: download {file.url}, and give "
            f"the path of that file (unpacked), with the model {file.model!r}"
        )
    of_model = [w.name for w in WEIGHTS.values() if name in (w.model, w.name.partition(".")[0])]
    of_model += [key for key in SHIPPED if name == key.partition(".")[0]]
    if of_model:
        raise ValueError(f"{name!r} is a network; its weights are {', '.join(of_model)}")
    if "/" in name or os.sep in name:
        state = "is not a file of weights" if os.path.exists(name) else "does not exist"
        raise ValueError(
            f"{name} {state}; weights are a .safetensors, .npz or .pth file, or have a name such "
            "as resnet50.tv_in1k"
        )
    known = [*WEIGHTS, *SHIPPED, *elsewhere.FILES]
    raise ValueError(
        f"unknown weights {name!r}; a name is an architecture and a tag, as in resnet50.tv_in1k, "
        "a file ends in .safetensors, .npz or .pth, and there is no directory of a run of this "
        f"name{near(name, known)}"
    )


def default_preprocessing(model: str) -> Preprocessing:
    """Returns the preprocessing for weights that do not define theirs.

    It has the network's own input size and normalization, a crop of 0.875, and bilinear
    interpolation. Inputs of at most 64 pixels show the whole image.

    Args:
      model: id or alias of the network.
    """
    info = registry.model_info(model)
    size = info.known_input_size()[0]
    return Preprocessing(size, 0.875 if size > 64 else 1.0, "bilinear", info.mean, info.std)
