"""GoogLeNet's 2014 entry: seven networks (Szegedy et al. 2015, arXiv 1409.4842, section 7, table
2).

    jaxcnn train configs/ensembles/googlenet.py --workdir runs/googlenet7
    jaxcnn evaluate --as configs/ensembles/googlenet.py runs/googlenet7
    jaxcnn train configs/ensembles/googlenet.py:smoke --workdir runs/small    # narrow, five steps
    jaxcnn evaluate --as configs/ensembles/googlenet.py runs/small

Seven networks, one of them wider, which start from the same initial weights and learning rates and
differ in the sampling and order of the images: here they differ in `train.seed` and share
`train.init_seed`. 144 crops each; the probabilities are averaged over crops and networks.

Published top-5 error: 6.67 % on both the validation and the test set.
"""

from jaxcnn.training import Ensemble, Member

NARROW = {"width": 0.125}


def get_ensemble():
    """Describes the ensemble."""
    members = [
        Member(
            f"GoogLeNet, order {seed}" + (", wider" if seed == 6 else ""),
            "../googlenet.py",
            options={"width": 1.25} if seed == 6 else {},
            overrides={"train.init_seed": "0", "train.seed": str(seed)},
            view="144crop",
            smoke={"width": 0.15} if seed == 6 else NARROW,
        )
        for seed in range(7)
    ]
    return Ensemble(
        members,
        combination="mean of probabilities",
        published="6.67 % top-5 on ILSVRC-2014's test set (Szegedy et al. 2015, table 2)",
        unverified="the width of the seventh network was not published; here it is 1.25 times",
    )
