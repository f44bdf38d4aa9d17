"""GoogLeNet's seven of 2014 (Szegedy et al. 2015, arXiv 1409.4842, section 7, table 2).

    jaxcnn train configs/ensembles/googlenet.py --workdir runs/googlenet7
    jaxcnn evaluate --as configs/ensembles/googlenet.py runs/googlenet7
    jaxcnn train configs/ensembles/googlenet.py:smoke --workdir runs/small    # narrow, five steps
    jaxcnn evaluate --as configs/ensembles/googlenet.py runs/small

Seven networks, one of them wider, that begin with the same initial weights and learning rates
and differ in the sampling and the order of the images: here in `train.seed`, with one
`train.init_seed`. 144 crops each; the mean of the probabilities over crops and networks.

Published top-5 error: 6.67 % on the validation and the test set.
"""

from jaxcnn.training.ensemble.described import Ensemble, Member

NARROW = {"width": 0.125}


def get_ensemble():
    """The ensemble."""
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
        unverified="how much wider the seventh network was is not published: here 1.25 times",
    )
