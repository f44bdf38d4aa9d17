"""The 1,797 handwritten digits inside scikit-learn, as 32x32 images.

Real scans of 8x8 pixels with 17 levels of gray, ten digits: the test half of "Optical recognition
of handwritten digits" (Alpaydin and Kaynak 1998, UCI machine learning repository).
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
    """The source: images u8[N,32,32,1], 1,437 to train on and 360 held out.

    Which are held out is drawn once and for all, by a generator whose draws NumPy has frozen.
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
    """All images and labels in scikit-learn's order."""
    table = _table()
    grid = table[:, :-1].reshape(-1, 8, 8) * (255 / 16)  # 0..16 to 0..255
    weights = _bilinear(grid.shape[-1], SIZE)
    images = np.rint(weights @ grid @ weights.T).astype(np.uint8)[..., None]
    return images, table[:, -1].astype(np.int32)


def _table() -> np.ndarray:
    """f64[1797,65]: pixels and label. Scikit-learn's file, whose import would take seconds."""
    spec = importlib.util.find_spec("sklearn")
    for folder in (spec and spec.submodule_search_locations) or ():
        if (Path(folder) / _FILE).is_file():
            return np.loadtxt(Path(folder) / _FILE, delimiter=",")
    from sklearn.datasets import load_digits  # for a version that keeps it elsewhere

    bunch = load_digits()
    return np.column_stack([bunch.data, bunch.target])


def _bilinear(small: int, large: int) -> np.ndarray:
    """Weights f64[large,small] of bilinear interpolation between the centers of pixels."""
    centers = (np.arange(large) + 0.5) * small / large - 0.5
    return np.stack([np.interp(centers, np.arange(small), row) for row in np.eye(small)], axis=1)
