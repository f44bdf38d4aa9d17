"""Published weights in files of other frameworks: where they are, and what their publishers state.

`jaxcnn convert` reads these files after a download. The sources are the readme files of BVLC's
models (github.com/BVLC/caffe/tree/master/models), the table of TF-Slim's
(github.com/tensorflow/models/tree/master/research/slim), and, for Keras, keras.io/api/applications
and the addresses and checksums in the code of `keras.applications`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator


@dataclasses.dataclass(frozen=True)
class PublishedFile:
    """A file of published weights.

    Attributes:
      name: network and tag.
      model: id of the network in jaxcnn.
      format: framework whose file it is.
      url: of the file, or of an archive that contains it.
      top1, top5: accuracy in percent on the validation images of ImageNet, of a single crop.
      checksum: "sha1:..." or "md5:..."; "" if none is stated.
      license: "" if none is stated with the file.
    """

    name: str
    model: str
    format: str
    url: str
    top1: float
    top5: float
    checksum: str = ""
    license: str = ""


_CAFFE = "http://dl.caffe.berkeleyvision.org"
_SLIM = "http://download.tensorflow.org/models"
_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications"

# Network, file, top-1 and top-5, SHA-1.
_OF_CAFFE = """
alexnet_2gpu      bvlc_alexnet             57.1 80.2 9116a64c0fbe4459d18f4bb6b56d647b63920377
alexnet_caffenet  bvlc_reference_caffenet  57.4 80.4 4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46
googlenet         bvlc_googlenet           68.7 88.9 405fc5acd08a3bb12de8ee5e23a96bec22f08204
"""

# Network, file, top-1 and top-5.
_OF_SLIM = """
googlenet_bn         inception_v1_2016_08_28         69.8 89.6
bn_inception         inception_v2_2016_08_28         73.9 91.8
inception_v3         inception_v3_2016_08_28         78.0 93.9
inception_v4         inception_v4_2016_09_09         80.2 95.2
inception_resnet_v2  inception_resnet_v2_2016_08_30  80.4 95.3
resnet50             resnet_v1_50_2016_08_28         75.2 92.2
resnet101            resnet_v1_101_2016_08_28        76.4 92.9
resnet152            resnet_v1_152_2016_08_28        76.8 93.2
resnet50_v2          resnet_v2_50_2017_04_14         75.6 92.8
resnet101_v2         resnet_v2_101_2017_04_14        77.0 93.7
resnet152_v2         resnet_v2_152_2017_04_14        77.8 94.1
vgg_d                vgg_16_2016_08_28               71.5 89.8
vgg_e                vgg_19_2016_08_28               71.1 89.8
"""

# Network (- for that of the file's name), folder/file, top-1 and top-5, MD5.
_OF_KERAS = """
vgg_d vgg16/vgg16 71.3 90.1 64373286793e3c8b2b4e3219cbf3544b
vgg_e vgg19/vgg19 71.3 90.0 cbe5617147190e668d6c5d5026f83318
resnet50 resnet/resnet50 74.9 92.1 2cb95161c43110f7111970584f804107
resnet101 resnet/resnet101 76.4 92.8 f1aeb4b969a6efcfb50fad2f0c20cfc5
resnet152 resnet/resnet152 76.6 93.1 100835be76be38e30d865e96f2aaae62
resnet50_v2 resnet/resnet50v2 76.0 93.0 3ef43a0b657b3be2300d5770ece849e0
resnet101_v2 resnet/resnet101v2 77.2 93.8 6343647c601c52e1368623803854d971
resnet152_v2 resnet/resnet152v2 78.0 94.2 a49b44d1979771252814e80f8ec446f9
- inception_v3/inception_v3 77.9 93.7 9a0d58056eeedaa3f26cb7ebd46da564
- inception_resnet_v2/inception_resnet_v2 80.3 95.3 e693bd0210a403b3192acc6073ad2e96
"""


def _rows() -> Iterator[PublishedFile]:
    for line in _OF_CAFFE.strip().splitlines():
        model, file, top1, top5, digest = line.split()
        yield PublishedFile(
            f"{model}.bvlc_in1k", model, "Caffe", f"{_CAFFE}/{file}.caffemodel",
            float(top1), float(top5), f"sha1:{digest}", "unrestricted",
        )  # fmt: skip
    for line in _OF_SLIM.strip().splitlines():
        model, file, top1, top5 = line.split()
        url = f"{_SLIM}/{file}.tar.gz"
        name = f"{model}.slim_in1k"
        yield PublishedFile(name, model, "TF-Slim", url, float(top1), float(top5))
    for line in _OF_KERAS.strip().splitlines():
        model, file, top1, top5, digest = line.split()
        model = file.rpartition("/")[2] if model == "-" else model
        url = f"{_KERAS}/{file}_weights_tf_dim_ordering_tf_kernels.h5"
        name = f"{model}.keras_in1k"
        yield PublishedFile(name, model, "Keras", url, float(top1), float(top5), f"md5:{digest}")


FILES = {file.name: file for file in _rows()}
