"""The 1,797 handwritten digits of scikit-learn, as 32x32 images.

The scans have 8x8 pixels with 17 levels of gray. They are the test set of "Optical recognition of
handwritten digits" (Alpaydin and Kaynak 1998, UCI machine learning repository).
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import numpy as np

from jaxcnn.data.sets import Arrays, Source

SIZE = 32
TEST_EXAMPLES = 360
_FILE = "datasets/data/digits.csv.gz"


def open_digits() -> Source:
    """Opens the dataset: images u8[N,32,32,1], 1,437 for training and 360 for testing.

    The split is random but fixed: NumPy's legacy generator does not change between versions.
    """
    images, labels = _scans()
    order = np.random.RandomState(0).permutation(len(labels))
    rows = {"train": order[TEST_EXAMPLES:], "test": order[:TEST_EXAMPLES]}

    def read(part: str, start: int, stop: int) -> Arrays:
        chosen = rows[part][start:stop]
        return images[chosen], labels[chosen]

    return Source(
        class_names=tuple("0123456789"),
        sizes={part: len(r) for part, r in rows.items()},
        read=read,
    )


@functools.cache
def _scans() -> Arrays:
    """All images and labels, in the order of scikit-learn."""
    table = _table()
    grid = table[:, :-1].reshape(-1, 8, 8) * (255 / 16)  # 0..16 to 0..255
    weights = _bilinear(grid.shape[-1], SIZE)
    images = np.rint(weights @ grid @ weights.T).astype(np.uint8)[..., None]
    return images, table[:, -1].astype(np.int32)


def _table() -> np.ndarray:
    """Pixels and labels f64[1797,65], from the file of scikit-learn, whose import takes seconds."""
    spec = importlib.util.find_spec("sklearn")
    for folder in (spec and spec.submodule_search_locations) or ():
        if (Path(folder) / _FILE).is_file():
            return np.loadtxt(Path(folder) / _FILE, delimiter=",")
    from sklearn.datasets import load_digits  # for versions that store the file elsewhere

    bunch = load_digits()
    return np.column_stack([bunch.data, bunch.target])


def _bilinear(small: int, large: int) -> np.ndarray:
    """Weights f64[large,small] of bilinear interpolation between pixel centers."""
    centers = (np.arange(large) + 0.5) * small / large - 0.5
    return np.stack([np.interp(centers, np.arange(small), row) for row in np.eye(small)], axis=1)
