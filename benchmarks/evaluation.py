"""Images a second of evaluations and predictions, relative to the network alone.

    python benchmarks/evaluation.py --folder PHOTOS            # a few minutes on a CPU
    python benchmarks/evaluation.py --folder PHOTOS --save

The network alone makes the same batches again and again from an array that is there. "images" are
50,000 random images in memory; "files" are the photos of the folder, read, decoded and resized by
threads; "predict" is `jaxcnn predict FOLDER`. The rate of a protocol of many views is that of its
views. The parts of a row take turns.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import jax
import numpy as np
from input_pipeline import as_set, files_of

import jaxcnn
from jaxcnn.data.preprocessing import Preprocessing
from jaxcnn.data.sets import Dataset
from jaxcnn.evaluation import inference, predict, protocols
from jaxcnn.runtime.initialization import run_by_array

BATCH = 64
PHOTOS = Preprocessing(224, 0.875, "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

Timed = Callable[[], tuple[float, int]]  # seconds, and views


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="JPEG files, at any depth")
    parser.add_argument("--images", type=int, default=50_000, help="in memory (50,000)")
    parser.add_argument("--photos", type=int, default=256, help="at most (256)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--save", action="store_true", help="write results/evaluation.json")
    args = parser.parse_args()
    files = files_of(args.folder)[: args.photos]
    rows = [
        row("lenet5_modern", "images", "center", in_memory("lenet5_modern", args.images), args),
        row("resnet20_cifar", "images", "center", in_memory("resnet20_cifar", args.images), args),
        row("resnet18", "files", "center", of_files("resnet18", files, "center"), args),
        row("resnet18", "files", "10crop", of_files("resnet18", files[:BATCH], "10crop"), args),
        row("resnet18", "files", "144crop", of_files("resnet18", files[:8], "144crop"), args),
        row("resnet18", "predict", "center", predicted("resnet18", files), args),
    ]
    if args.save:
        print(harness.save("evaluation", rows))


def row(model: str, source: str, protocol: str, parts: tuple[Timed, Timed], args: Any) -> dict:
    """Times the network alone and the whole evaluation in turn."""
    rates: list[list[float]] = [[], []]
    for part in parts:
        part()  # compiles
    for _ in range(args.rounds):
        for found, part in zip(rates, parts):
            seconds, views = part()
            found.append(views / seconds)
    ratios = [whole / alone for alone, whole in zip(*rates)]
    alone, whole = (float(np.median(found)) for found in rates)
    made = {
        "model": model, "source": source, "protocol": protocol, "alone": alone, "whole": whole,
        "ratio": float(np.median(ratios)), "ratio_min": min(ratios), "ratio_max": max(ratios),
    }  # fmt: skip
    print(", ".join(f"{k} {v:,.2f}" if isinstance(v, float) else f"{v}" for k, v in made.items()))
    return made


def network(name: str, preprocessing: Preprocessing, batch: int) -> tuple[Any, Any, Timed]:
    """A network, its variables, and the network alone for about two seconds."""
    shape = (preprocessing.size, preprocessing.size, len(preprocessing.mean))
    model = jaxcnn.create_model(name, num_classes=10)
    variables = run_by_array(lambda key: model.init(key, np.zeros((1, *shape), np.float32)))(
        jax.random.key(0)
    )
    views = np.random.default_rng(0).integers(0, 256, (batch, *shape), np.uint8)
    apply = inference._compiled(model, preprocessing.mean, preprocessing.std, None)

    def alone() -> tuple[float, int]:
        began, calls = time.perf_counter(), 0
        while time.perf_counter() < began + 2:
            apply(variables, views).block_until_ready()
            calls += 1
        return time.perf_counter() - began, calls * batch

    return model, variables, alone


def in_memory(name: str, count: int) -> tuple[Timed, Timed]:
    size, _, channels = jaxcnn.model_info(name).input_size
    how = Preprocessing(size, 1.0, "bilinear", (0.5,) * channels, (0.5,) * channels)
    model, variables, alone = network(name, how, BATCH)
    images = np.random.default_rng(1).integers(0, 256, (count, size, size, channels), np.uint8)
    test_set = Dataset(
        images=images, labels=np.zeros(count, np.int32), num_classes=10,
        class_names=tuple(map(str, range(10))), mean=how.mean, std=how.std,
    )  # fmt: skip

    def whole() -> tuple[float, int]:
        began = time.perf_counter()
        found, _ = inference.probabilities(
            model, variables, test_set, how, protocols.PROTOCOLS["center"], batch_size=BATCH
        )
        return time.perf_counter() - began, len(found)

    return alone, whole


def of_files(name: str, files: list[str], protocol: str) -> tuple[Timed, Timed]:
    model, variables, alone = network(name, PHOTOS, BATCH)
    test_set, how = as_set(files), protocols.PROTOCOLS[protocol]
    views = protocols.view_count(how)

    def whole() -> tuple[float, int]:
        began = time.perf_counter()
        found, _ = inference.probabilities(
            model, variables, test_set, PHOTOS, how, batch_size=BATCH
        )
        return time.perf_counter() - began, views * len(found)

    return alone, whole


def predicted(name: str, files: list[str]) -> tuple[Timed, Timed]:
    batch = 16
    model, variables, alone = network(name, PHOTOS, batch)
    names = tuple(map(str, range(10)))

    def whole() -> tuple[float, int]:
        made = predict.predict_files(model, variables, files, PHOTOS, names, batch_size=batch)
        list(itertools.islice(made, batch))  # compiles, and is left out
        began = time.perf_counter()
        count = sum(1 for _ in made)
        return time.perf_counter() - began, count

    return alone, whole


if __name__ == "__main__":
    main()
