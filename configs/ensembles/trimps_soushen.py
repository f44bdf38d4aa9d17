"""Six networks like those of Trimps-Soushen, the winner of ILSVRC 2016 classification.

    jaxcnn train configs/ensembles/trimps_soushen.py --workdir runs/trimps
    jaxcnn evaluate --as configs/ensembles/trimps_soushen.py runs/trimps --fit 0.2
    jaxcnn train configs/ensembles/trimps_soushen.py:smoke --workdir runs/small
    jaxcnn evaluate --as configs/ensembles/trimps_soushen.py runs/small --fit 0.5

There is no paper. According to unverified accounts, the entry consisted of Inception-v3 (two of
them in one account, which makes six networks), Inception-v4, Inception-ResNet-v2, a pre-activation
ResNet-200 and "WRN-68-3", weighted by their accuracy. Here the accuracy is measured on the fraction
`--fit` of the examples.

WRN-68-3 has no public definition. Here it is a pre-activation network of two-layer blocks, three
times as wide as ResNet-34: 8 blocks in each of four stages have 64 convolutions, which together
with the first one and the projections of stages 2 to 4 make 68. (Stage 1 starts with a projection
here, too, from 64 to 192 channels.) This is a guess. Inception networks have no narrow variant, so
the smoke variant uses narrow GoogLeNets instead.

Published top-5 error of the entry: 2.991 % on the test set.
"""

from jaxcnn.training import Ensemble, Member

INCEPTION, RESNET, VIEW = "../inception_v3.py", "../resnet_imagenet.py", "144crop"


def get_ensemble():
    """Describes the ensemble."""

    def inception(name, words, seed):
        return Member(
            words,
            INCEPTION,
            options={"aux_heads": True},
            overrides={"model.name": name, "train.seed": str(seed)},
            view=VIEW,
            stand_in="googlenet_bn",
            smoke={"width": 0.125},
        )

    members = [
        inception("inception_v3", "Inception-v3", 0),
        inception("inception_v3", "Inception-v3, again", 1),
        inception("inception_v4", "Inception-v4", 2),
        inception("inception_resnet_v2", "Inception-ResNet-v2", 3),
        Member(
            "pre-activation ResNet-200",
            RESNET,
            overrides={"model.name": "resnet200_v2"},
            view="dense5",
        ),
        Member(
            "WRN-68-3, a guess",
            RESNET,
            options={"blocks": (8, 8, 8, 8), "width": 192},
            overrides={"model.name": "resnet34_v2"},
            view="dense5",
        ),
    ]
    return Ensemble(
        members,
        combination="weighted by accuracy",
        published="2.991 % top-5 on ILSVRC-2016's test set (the challenge's results)",
        unverified="members, their number, protocols and weighting are hearsay, and WRN-68-3 is a "
        "guess. The recipes are those of Inception-v3 and ResNet",
    )
