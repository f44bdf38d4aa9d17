"""Images a second of one core, from JPEG files to batches: this package and others, in turn.

    python input_pipeline.py                                       # a minute, drawn pictures
    python input_pipeline.py --folder PHOTOS                       # real ones
    python input_pipeline.py --folder PHOTOS --soak 60             # and an hour of watching memory
    python input_pipeline.py --folder PHOTOS --archive 400 --archive 256 --seconds 4 --save

Every contender reads the same files, draws a random part of 8-100 % of the area, resizes it to
SIZE x SIZE (bilinear with antialiasing unless it says otherwise) and stacks batches of bytes. The
decoders alone, of whole images, are the limit. All of them run on one core, so that threads help
nobody; what a contender has prepared in advance when its turn ends is little beside a turn of four
seconds. tf.data and Grain take part where they are installed. --archive SIDE reads the pictures as
`jaxcnn prepare SOURCE OUT --side SIDE --quality 90` stores them.
"""

from __future__ import annotations

import argparse
import functools
import io
import itertools
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata, util
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import harness
import numpy as np
import simplejpeg
from PIL import Image

from jaxcnn.data import crops
from jaxcnn.data.bad_records import BadRecords
from jaxcnn.data.loader import resident, streaming
from jaxcnn.data.prepare import reencode
from jaxcnn.data.sets import FileShard, ImageFileDataset

BASE = "Pillow"
ARCHIVE_QUALITY = 90


def files_of(folder: Path) -> list[str]:
    """All JPEG files below a folder."""
    found = sorted(str(p) for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    if not found:
        raise SystemExit(f"{folder} has no .jpg files")
    return found


def draw(folder: Path, count: int = 64) -> Path:
    """Fills the folder with smooth pictures of a photo's usual size; they are quicker to decode."""
    random = np.random.default_rng(0)
    for i in range(count):
        small = Image.fromarray(random.integers(0, 256, (24, 32, 3), np.uint8))
        small.resize((500, 375), Image.Resampling.BICUBIC).save(folder / f"{i}.jpg", quality=92)
    return folder


def prepared(files: list[str], side: int, folder: Path) -> list[str]:
    """Writes the files to the folder as an archive of this side holds them."""
    folder.mkdir()
    written = [folder / f"{i}.jpg" for i in range(len(files))]
    for file, path in zip(files, written, strict=True):
        path.write_bytes(reencode(Path(file).read_bytes(), side, ARCHIVE_QUALITY))
    return [str(path) for path in written]


def as_set(files: list[str]) -> ImageFileDataset:
    part = FileShard(len(files), lambda i: (Path(files[i]).read_bytes(), 0), lambda i: files[i])
    return ImageFileDataset(part, 0, len(files), ("any",))


def jaxcnn_batches(files: list[str], batch: int, size: int, workers: int) -> Callable[[], Any]:
    """The whole pipeline of a run: threads, prefetching, batches."""
    source = streaming.Training(
        as_set(files),
        0,
        batch,
        size,
        crops.training_crop("inception", size),
        BadRecords(len(files)),
    )
    steps = itertools.count()
    batches = streaming.Prefetch(source, 10**9, workers)
    return lambda: batches.get(next(steps))


def pillow_batches(files: list[str], batch: int, size: int) -> Callable[[], Any]:
    """What torchvision's RandomResizedCrop does to a PIL image, and default_collate's stacking."""

    def one(step: int, slot: int) -> np.ndarray:
        random = streaming.randomness(0, step, slot)
        with open(files[_index(step, slot, batch, len(files))], "rb") as file:
            image = Image.open(file).convert("RGB")
        window = crops.inception(random, image.height, image.width)
        box = tuple(int(v) for v in (window.left, window.top, window.right, window.bottom))
        return np.asarray(image.crop(box).resize((size, size), Image.Resampling.BILINEAR))

    steps = itertools.count()
    return lambda: np.stack([one(step, slot) for step in [next(steps)] for slot in range(batch)])


def _index(step: int, slot: int, batch: int, size: int) -> int:
    return int(resident.batch_indices(0, step * batch + slot, size, 1)[0])


def grain_batches(files: list[str], batch: int, size: int, workers: int) -> Callable[[], Any]:
    """The same decoding and cropping, scheduled by Grain's threads."""
    import grain

    crop = crops.training_crop("inception", size)

    def one(index: int, random: np.random.Generator) -> np.ndarray:
        data = Path(files[index]).read_bytes()
        return crops.cut(data, functools.partial(crop, random), size)

    dataset = grain.MapDataset.range(len(files)).seed(0).shuffle().repeat().random_map(one)
    options = grain.ReadOptions(num_threads=workers, prefetch_buffer_size=4 * batch)
    batches = iter(dataset.to_iter_dataset(options).batch(batch))
    return lambda: next(batches)


def tf_batches(files: list[str], batch: int, size: int, antialias: bool) -> Callable[[], Any]:
    """tf.data with the fused decoding of the crop."""
    import tensorflow as tf

    whole = tf.constant([[[0.0, 0.0, 1.0, 1.0]]])

    def one(path):
        data = tf.io.read_file(path)
        begin, extent, _ = tf.image.sample_distorted_bounding_box(
            tf.io.extract_jpeg_shape(data), whole[0:1], area_range=crops.AREA,
            aspect_ratio_range=crops.RATIO, max_attempts=10, min_object_covered=0,
            use_image_if_no_bounding_boxes=True,
        )  # fmt: skip
        window = tf.stack([begin[0], begin[1], extent[0], extent[1]])
        image = tf.image.decode_and_crop_jpeg(data, window, channels=3, dct_method="INTEGER_FAST")
        image = tf.image.resize(image, (size, size), antialias=antialias)
        return tf.cast(tf.round(image), tf.uint8)

    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.autotune.enabled = False
    dataset = tf.data.Dataset.from_tensor_slices(files).shuffle(len(files), seed=0).repeat()
    dataset = dataset.map(one, num_parallel_calls=1).batch(batch).prefetch(2).with_options(options)
    batches = dataset.as_numpy_iterator()
    return lambda: next(batches)


def decoded(files: list[str], batch: int, decode: Callable[[bytes], Any]) -> Callable[[], Any]:
    """Reads and decodes whole images, and does nothing with them."""
    steps = itertools.count()

    def run() -> None:
        step = next(steps)
        for slot in range(batch):
            decode(Path(files[_index(step, slot, batch, len(files))]).read_bytes())

    return run


def _decoders() -> dict[str, Callable[[bytes], Any]]:
    import cv2

    cv2.setNumThreads(1)

    def opencv(data: bytes) -> Any:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)

    return {
        "decoder alone: simplejpeg": lambda data: simplejpeg.decode_jpeg(data, "RGB"),
        "decoder alone: OpenCV": opencv,
        "decoder alone: Pillow": lambda data: Image.open(io.BytesIO(data)).convert("RGB").load(),
    }


def quality(files: list[str], size: int) -> dict[str, float]:
    """Mean difference in gray levels from Pillow's crop and antialiased resize, same windows."""
    ours, theirs = [], []
    crop = crops.training_crop("inception", size)
    for i, path in enumerate(files[:100]):
        data = Path(path).read_bytes()
        image = Image.open(io.BytesIO(data)).convert("RGB")
        random = functools.partial(streaming.randomness, 0, 0, i)
        window = crop(random(), image.height, image.width)
        box = tuple(int(v) for v in (window.left, window.top, window.right, window.bottom))
        exact = np.asarray(image.crop(box).resize((size, size), Image.Resampling.BILINEAR), int)
        ours.append(np.abs(crops.cut(data, functools.partial(crop, random()), size) - exact).mean())
        if util.find_spec("tensorflow"):
            import tensorflow as tf

            left, top, right, bottom = box
            part = tf.image.decode_and_crop_jpeg(
                data, [top, left, bottom - top, right - left], channels=3, dct_method="INTEGER_FAST"
            )
            resized = tf.image.resize(part, (size, size), antialias=True).numpy()
            theirs.append(np.abs(np.rint(resized) - exact).mean())
    found = {"jaxcnn": float(np.mean(ours))}
    return found | ({"tf.data": float(np.mean(theirs))} if theirs else {})


def soak(run: Callable[[], Any], minutes: float) -> list[tuple[float, float]]:
    """(minutes, MiB of this process) at 30 moments while batches are made."""
    began, rows = time.monotonic(), []
    for moment in range(1, 31):
        while time.monotonic() < began + 60 * minutes * moment / 30:
            run()
        rows.append(((time.monotonic() - began) / 60, memory()))
    return rows


def memory() -> float:
    """Of this process now, in MiB; where the system does not say, the most so far."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def contenders(
    files: list[str], archives: dict[int, list[str]], args: argparse.Namespace
) -> Iterator[tuple[str, Callable]]:
    batch, size = args.batch, args.size
    yield BASE, pillow_batches(files, batch, size)
    yield "jaxcnn", jaxcnn_batches(files, batch, size, 1)
    for side, smaller in archives.items():
        yield f"jaxcnn, archive of side {side}", jaxcnn_batches(smaller, batch, size, 1)
    if util.find_spec("grain"):
        yield "Grain, jaxcnn's decoding", grain_batches(files, batch, size, 1)
    if util.find_spec("tensorflow"):
        yield "tf.data, fused crop", tf_batches(files, batch, size, True)
        yield "tf.data, fused crop, aliased", tf_batches(files, batch, size, False)
    for name, decode in _decoders().items():
        yield name, decoded(files, batch, decode)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="JPEG files, at any depth (default: drawn)")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a contender, each round")
    parser.add_argument("--archive", type=int, default=[], action="append", metavar="SIDE")
    parser.add_argument("--soak", type=float, default=0, metavar="MINUTES")
    parser.add_argument("--save", action="store_true", help="write results/input_pipeline.json")
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    folder = tempfile.TemporaryDirectory()
    within = Path(folder.name)
    (within / "drawn").mkdir()
    files = files_of(args.folder or draw(within / "drawn"))
    archives = {side: prepared(files, side, within / f"{side}") for side in args.archive}
    times = harness.alternate(
        dict(contenders(files, archives, args)), rounds=args.rounds, seconds=args.seconds
    )
    table = harness.ratios(times, BASE)
    rows = []
    print(f"{len(files)} files, {args.size} x {args.size}, one core")
    for name, row in table.items():
        rate = args.batch / row["seconds"]
        speed, least, most = (1 / row[f] for f in ("ratio", "ratio_max", "ratio_min"))
        rows.append({"name": name, "images_per_s": rate, "speed": speed})
        rows[-1] |= {"speed_min": least, "speed_max": most}
        print(f"  {name:32s} {rate:7.1f} images/s   x {speed:.2f}  [{least:.2f}, {most:.2f}]")
    differences = quality(files, args.size)
    for name, value in differences.items():
        print(f"  {name}: {value:.3f} gray levels from Pillow's pixels on average")
    series: list[tuple[float, float]] = []
    if args.soak:
        series = soak(jaxcnn_batches(files, args.batch, args.size, 1), args.soak)
        most = max(mib for _, mib in series)
        print(
            f"  {args.soak:g} minutes: {series[2][1]:.0f} MiB after a tenth of them, "
            f"{most:.0f} MiB at most, {series[-1][1]:.0f} MiB at the end"
        )
    if args.save:
        packages = ("pillow", "simplejpeg", "opencv-python-headless", "tensorflow-cpu", "grain")
        versions = {name: _version(name) for name in packages}
        path = harness.save("input_pipeline", rows, files=len(files), size=args.size,
                            megabytes={"jaxcnn": _megabytes(files)} | {
                                f"jaxcnn, archive of side {side}": _megabytes(smaller)
                                for side, smaller in archives.items()
                            },
                            decoders=versions, difference=differences, soak=series)  # fmt: skip
        print(path)


def _megabytes(files: list[str]) -> float:
    return sum(Path(file).stat().st_size for file in files) / 1e6


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
