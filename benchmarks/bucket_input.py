"""Images a second from an archive in a bucket whose server takes 50 ms for each request.

    python benchmarks/bucket_input.py --folder PHOTOS              # needs jaxcnn's extra [test]
    python benchmarks/bucket_input.py --folder PHOTOS --delay 0 --copies 4

The server is the one of the tests, in a process of its own on this machine. An epoch of training
batches is read from local files, from the bucket with an empty cache, and from the bucket again.
One core decodes; what the server and the copying threads compute shares the others.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from bucket_server import BUCKET, environment, google
from input_pipeline import files_of

from jaxcnn import _cache
from jaxcnn._files import any_path, files_below
from jaxcnn.data import catalog, crops, prepare
from jaxcnn.data.bad_records import BadRecords
from jaxcnn.data.loader import streaming

BATCH, SIZE = 32, 224


def serve(delay: float, connection: Any) -> None:
    """Runs the server until the other end of the connection sends something."""
    with google() as proxy:
        proxy.fault = lambda method, path: time.sleep(delay)
        connection.send(environment(proxy))
        connection.recv()


def rate(source: str, workers: int) -> float:
    """Images a second of one epoch."""
    catalog._open_once.cache_clear()
    began = time.perf_counter()
    examples = catalog.open_encoded(source, "train")
    crop = crops.training_crop("inception", SIZE)
    bad = BadRecords(len(examples))
    steps = len(examples) // BATCH
    batches = streaming.Prefetch(
        streaming.Training(examples, 0, BATCH, SIZE, crop, bad), steps, workers
    )
    for step in range(steps):
        batches.get(step)
    batches.close()
    return steps * BATCH / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="JPEG files, at any depth")
    parser.add_argument("--copies", type=int, default=16, help="of each photo (16)")
    parser.add_argument("--delay", type=float, default=50, help="ms for each request (50)")
    parser.add_argument("--workers", type=int, default=1, help="decoding threads (1)")
    args = parser.parse_args()
    photos = [Path(file).resolve() for file in files_of(args.folder)]
    if args.copies * len(photos) < BATCH:
        parser.error(f"{args.folder} has {len(photos)} photos; at least {BATCH} are needed")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for part, copies in (("train", args.copies), ("val", 1)):
            (root / "set" / part / "any").mkdir(parents=True)
            for i in range(copies):
                for photo in photos:
                    os.symlink(photo, root / "set" / part / "any" / f"{i}_{photo.name}")
        list(prepare.write_archive(f"folder:{root / 'set'}", root / "archive"))
        here, there = multiprocessing.Pipe()
        server = multiprocessing.get_context("spawn").Process(
            target=serve, args=(args.delay / 1000, there), daemon=True
        )
        server.start()
        os.environ.update(here.recv())
        for path in files_below(root / "archive"):
            target = any_path(f"gs://{BUCKET}/archive/{path.relative_to(root / 'archive')}")
            target.upload(path)  # type: ignore[attr-defined]
        _cache.use(str(root / "cache"))
        size = sum(path.stat().st_size for path in files_below(root / "archive"))
        print(f"{args.copies * len(photos):,} images, {size / 2**20:,.0f} MiB, {args.delay:g} ms")
        local = rate(f"archive:{root / 'archive'}", args.workers)
        print(f"  local files              {local:7.1f} images/s")
        for what in ("bucket, empty cache", "bucket, copies in cache"):
            found = rate(f"archive:gs://{BUCKET}/archive", args.workers)
            print(f"  {what:24} {found:7.1f} images/s, {found / local:.2f} of local files")
        here.send("stop")
        server.join()


if __name__ == "__main__":
    main()
