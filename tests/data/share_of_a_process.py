"""One process's share of a few batches and of an evaluation, as digests of the examples."""

import hashlib
import sys

from jaxcnn.data import crops
from jaxcnn.data.bad_records import BadRecords
from jaxcnn.data.catalog import open_encoded
from jaxcnn.data.loader import streaming


def lines(folder, process, count, threads):
    """Yields a line for each training example, then for each test example of the share."""
    train, test = (open_encoded(f"folder:{folder}", split) for split in ("train", "test"))
    slots = streaming.shard(7, process, count)
    source = streaming.Training(
        train, 3, 7, 24, crops.training_crop("inception", 24), BadRecords(len(train)), slots
    )
    with streaming.Prefetch(source, 4, threads) as batches:
        for step, batch in enumerate(batches):
            for image, label, slot in zip(batch["image"], batch["label"], batch["slot"]):
                yield f"train {step} {slot} {label} {digest(image)}"
    places = streaming.shard(len(test), process, count)
    source = streaming.Evaluation(test, 2, 24, 27, places)
    with streaming.Prefetch(source, source.steps, threads) as batches:
        images = [im for b in batches for im, mask in zip(b["image"], b["mask"]) if mask]
    for place, image in zip(places, images, strict=True):
        yield f"test {place} {digest(image)}"


def digest(image):
    return hashlib.sha256(image.tobytes()).hexdigest()


if __name__ == "__main__":
    for line in lines(sys.argv[1], *map(int, sys.argv[2:])):
        print(line)
