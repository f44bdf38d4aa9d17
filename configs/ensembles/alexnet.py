"""AlexNet's 2012 entry: seven networks (Krizhevsky, Sutskever, Hinton 2012, section 6.1, table 2).

    jaxcnn train configs/ensembles/alexnet.py --workdir runs/alexnet7
    jaxcnn evaluate --as configs/ensembles/alexnet.py runs/alexnet7
    jaxcnn train configs/ensembles/alexnet.py:smoke --workdir runs/small      # narrow, five steps
    jaxcnn evaluate --as configs/ensembles/alexnet.py runs/small

Five networks were trained only on the challenge's data, and two were trained on the whole release
of fall 2011 (15 million images, 22,000 classes) and then fine-tuned. These two start from the
weights in `fall11_0.safetensors` and `fall11_1.safetensors` (without the classifier), produced by

    jaxcnn train configs/alexnet.py data.source=folder:FALL11 train.seed=5 --workdir runs/fall11_0
    jaxcnn export runs/fall11_0 fall11_0.safetensors

and by the same commands with seed 6. Ten crops each; the probabilities are averaged.

Published top-5 error: 15.3 % on the test set, 15.4 % on the validation set; of the five networks
alone 16.4 %.
"""

from jaxcnn.training import Ensemble, Member

RECIPE, VIEW = "../alexnet.py", "10crop"


def get_ensemble():
    """Describes the ensemble."""
    five = [
        Member(f"AlexNet, seed {seed}", RECIPE, overrides={"train.seed": str(seed)}, view=VIEW)
        for seed in range(5)
    ]
    two = [
        Member(
            f"AlexNet, pretrained {i}",
            RECIPE,
            overrides={
                "train.seed": str(5 + i),
                "model.weights": f"fall11_{i}.safetensors",
                "schedule.learning_rate": "0.001",
            },
            view=VIEW,
        )
        for i in range(2)
    ]
    return Ensemble(
        five + two,
        combination="mean of probabilities",
        published="15.3 % top-5 on ILSVRC-2012's test set (Krizhevsky et al. 2012, table 2)",
        unverified="the two pretrained networks had a sixth convolution whose width was not "
        "published; here they have five. Their learning rate is this project's choice",
    )
