"""One Inception-v4 and three Inception-ResNet-v2 (Szegedy et al. 2016, arXiv 1602.07261, table 5).

    jaxcnn train configs/ensembles/inception_v4.py --workdir runs/inception4
    jaxcnn evaluate --as configs/ensembles/inception_v4.py runs/inception4
    jaxcnn train configs/ensembles/inception_v4.py:smoke --workdir runs/small
    jaxcnn evaluate --as configs/ensembles/inception_v4.py runs/small

144 crops each; the probabilities are averaged. Inception networks have no narrow variant, so the
smoke variant uses narrow GoogLeNets instead.

Published error: 16.5 % top-1 and 3.1 % top-5 on the validation set, 3.08 % top-5 on the test set.
"""

from jaxcnn.training import Ensemble, Member

RECIPE, VIEW = "../inception_v3.py", "144crop"


def get_ensemble():
    """Describes the ensemble."""

    def one(name, words, seed):
        return Member(
            words,
            RECIPE,
            options={"aux_heads": True},
            overrides={"model.name": name, "train.seed": str(seed)},
            view=VIEW,
            stand_in="googlenet_bn",
            smoke={"width": 0.125},
        )

    three = [
        one("inception_resnet_v2", f"Inception-ResNet-v2, seed {seed}", seed) for seed in range(3)
    ]
    return Ensemble(
        [one("inception_v4", "Inception-v4", 3), *three],
        combination="mean of probabilities",
        published="3.08 % top-5 on ILSVRC-2012's test set (Szegedy et al. 2016, section 5)",
        unverified="how the three networks differed was not published; here they differ in the "
        "seed. They use Inception-v3's recipe",
    )
