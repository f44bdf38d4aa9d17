"""SENets like those of WMW, the winner of ILSVRC 2017 classification (arXiv 1709.01507, sec. 5.4).

    jaxcnn train configs/ensembles/senet.py --workdir runs/senets
    jaxcnn evaluate --as configs/ensembles/senet.py runs/senets
    jaxcnn train configs/ensembles/senet.py:smoke --workdir runs/small        # narrow, five steps
    jaxcnn evaluate --as configs/ensembles/senet.py runs/small

The paper mentions "a small ensemble of SENets" with multi-scale and multi-crop testing, and names
one member, SENet-154. The other three, the scales and the seeds are this project's choice. All are
trained by the recipe of SE-ResNet-50; SENet-154's own has a batch size of 2,048, a rate of 1.0,
label smoothing and BatchNorm that is frozen for the last epochs.

Published top-5 error: 2.251 % on the test set; of SENet-154 alone, one crop of 320 pixels, 3.79 %
on the validation set.
"""

from jaxcnn.training import Ensemble, Member

VIEW = "10crop:224:256,288,320"
NETWORKS = ("senet154", "se_resnext101_32x4d", "se_resnet152", "se_resnext50_32x4d")
GROUPED = [name for name in NETWORKS if "resnet1" not in name]


def get_ensemble():
    """Describes the ensemble."""
    return Ensemble(
        [
            Member(
                name,
                "../senet.py",
                overrides={"model.name": name, "train.seed": str(seed)},
                view=VIEW,
                smoke={"groups": 4, "base_width": 16} if name in GROUPED else {},
            )
            for seed, name in enumerate(NETWORKS)
        ],
        combination="mean of probabilities",
        published="2.251 % top-5 on ILSVRC-2017's test set (Hu et al. 2018, section 5.4)",
        unverified="the members other than SENet-154, the scales and the crops were not "
        "published. The recipe is that of SE-ResNet-50",
    )
