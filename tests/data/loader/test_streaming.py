"""Batches as functions of (seed, step): whatever threads, processes and damaged files do."""

import collections
import json
import subprocess
import sys

import numpy as np
import photos
import pytest
import share_of_a_process

from jaxcnn.data import crops
from jaxcnn.data.bad_records import BadRecords, retried
from jaxcnn.data.catalog import open_encoded
from jaxcnn.data.loader import resident, streaming
from jaxcnn.data.sets import FileShard, ImageFileDataset

CROP = crops.training_crop("inception", 24)
WHOLE = crops.training_crop("whole", 24)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    counts = {"train": {"ant": 6, "bee": 5}, "test": {"ant": 2, "bee": 3}}
    return photos.write_folder(tmp_path_factory.mktemp("photos") / "set", counts)


def training(dataset, seed=0, batch=4, crop=CROP, **options):
    bad = options.pop("bad", BadRecords(len(dataset)))
    return streaming.Training(dataset, seed, batch, 24, crop, bad, **options)


def equal(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def test_a_batch_depends_on_seed_and_step_only(root):
    train = open_encoded(f"folder:{root}", "train")
    source = training(train)
    expected = [streaming.make_batch(source, step) for step in range(6)]
    first = expected[0]
    assert first["image"].shape == (4, 24, 24, 3) and first["image"].dtype == np.uint8
    assert first["label"].dtype == first["slot"].dtype == np.int32
    for threads in (1, 5):
        with streaming.Prefetch(source, 6, threads) as batches:
            assert all(equal(a, b) for a, b in zip(batches, expected, strict=True))
    with streaming.Prefetch(source, 6, 3) as batches:  # going on at 4; going back
        assert equal(batches.get(4), expected[4])
        assert equal(batches.get(1), expected[1])
        assert equal(batches.get(2), expected[2])
    other = streaming.make_batch(training(train, seed=1), 0)
    assert not np.array_equal(other["image"], first["image"])
    # A second pass over the same example is another crop of it.
    same = streaming.make_batch(training(train, batch=11), 1)
    again = streaming.make_batch(training(train, batch=11), 2)
    assert not np.array_equal(np.sort(same["image"], 0), np.sort(again["image"], 0))


def test_an_epoch_has_each_example_once(root):
    train = open_encoded(f"folder:{root}", "train")
    source = training(train, batch=3, crop=WHOLE)
    batches = [streaming.make_batch(source, step) for step in range(11)]  # three epochs of 11
    images = [image.tobytes() for batch in batches for image in batch["image"]]
    for epoch in range(3):
        counts = collections.Counter(images[11 * epoch : 11 * (epoch + 1)])
        assert len(counts) == 11 and set(counts.values()) == {1}


@pytest.mark.parametrize("total, count", [(10, 3), (7, 8), (1, 1), (50_000, 7)])
def test_shares_are_disjoint_and_complete(total, count):
    shares = [streaming.shard(total, process, count) for process in range(count)]
    assert [place for s in shares for place in s] == list(range(total))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    with pytest.raises(ValueError, match=f"process is {count} of {count}"):
        streaming.shard(total, count, count)


def test_two_processes_make_what_one_makes(root):
    script = share_of_a_process.__file__

    def start(*arguments):
        command = [sys.executable, script, str(root), *map(str, arguments)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    runs = [start(0, 2, 1), start(1, 2, 3)]
    lines = [run.communicate(timeout=100)[0].splitlines() for run in runs]
    assert all(run.returncode == 0 for run in runs)
    first, second = map(set, lines)
    alone = set(share_of_a_process.lines(root, 0, 1, 2))
    assert len(alone) == 4 * 7 + 5
    assert not first & second and first | second == alone and first and second


def test_evaluation_has_each_example_once_and_pads(root):
    test = open_encoded(f"folder:{root}", "test")
    source = streaming.Evaluation(test, 3, 24, 27)
    assert source.steps == 2
    batches = [streaming.make_batch(source, step) for step in range(2)]
    assert np.concatenate([b["mask"] for b in batches]).tolist() == [1, 1, 1, 1, 1, 0]
    assert np.concatenate([b["label"] for b in batches])[:5].tolist() == [0, 0, 1, 1, 1]
    memory = streaming.in_memory(test, 2, 24, 27)
    np.testing.assert_array_equal(memory.images, batches[0]["image"][:2])


def damaged(dataset, bad_indices, data=b"", count=None):
    """The set, with some examples replaced by other bytes."""

    def read(i):
        return (data, 0) if i in bad_indices else dataset.part.read(i)

    part = FileShard(count or len(dataset), read, dataset.part.name)
    return ImageFileDataset(part, 0, count or len(dataset), dataset.class_names)


def test_a_bad_record_is_named_once_and_the_next_of_the_order_stands_in(root, tmp_path):
    train = open_encoded(f"folder:{root}", "train")
    seed, file = 5, tmp_path / "bad_records.jsonl"
    order = resident.batch_indices(seed, 0, 11, 11)
    bad = BadRecords(11, file)
    source = training(damaged(train, {order[10]}), seed, 11, WHOLE, bad=bad)
    batch, again = (streaming.make_batch(source, step) for step in (0, 0))
    assert equal(batch, again)
    whole = streaming.make_batch(training(train, seed, 11, WHOLE), 0)
    np.testing.assert_array_equal(batch["image"][:10], whole["image"][:10])
    np.testing.assert_array_equal(batch["image"][10], whole["image"][0])  # round to the first
    (row,) = map(json.loads, file.read_text().splitlines())
    assert row == {"name": train.name(int(order[10])), "reason": "is empty"}
    assert len(bad) == 1 and len(BadRecords(11, file)) == 1  # a resumed run knows it


def test_too_many_bad_records_end_the_run(root):
    train = open_encoded(f"folder:{root}", "train")
    source = training(damaged(train, {1, 2}), batch=11)
    with pytest.raises(ValueError, match=r"2 of 11 records cannot be read, more than 1%; the last"):
        streaming.make_batch(source, 0)
    with streaming.Prefetch(source, 2, 2) as batches, pytest.raises(ValueError, match="2 of 11"):
        batches.get(0)


def test_evaluation_and_labels_leave_nothing_out(root):
    test = open_encoded(f"folder:{root}", "test")
    with pytest.raises(ValueError, match=r"ant/001.jpg is empty; an evaluation leaves no"):
        streaming.make_batch(streaming.Evaluation(damaged(test, {1}), 3, 24, 27), 0)
    unknown = ImageFileDataset(test.part, 0, 5, ("ant",))
    with pytest.raises(ValueError, match=r"bee/000.jpg has label 1; the classes are 0 to 0"):
        streaming.make_batch(streaming.Evaluation(unknown, 5, 24, 27), 0)


def test_reading_is_tried_again_where_that_may_help():
    fails = [OSError(5, "Input/output error"), TimeoutError("slow")]

    def read():
        if fails:
            raise fails.pop()
        return b"data"

    assert retried(read, (0, 0)) == b"data"
    fails = [OSError("lost")] * 3
    with pytest.raises(OSError, match="lost"):
        retried(read, (0, 0))
    fails = [FileNotFoundError("gone")] * 3
    with pytest.raises(FileNotFoundError):
        retried(read, (0, 0))
    assert len(fails) == 2


def test_padding_has_as_many_boxes_as_the_examples(root):
    """A custom source may have fewer boxes per example than the built-in formats."""
    test = open_encoded(f"folder:{root}", "test")
    box = np.array([[0.1, 0.2, 0.8, 0.9]], np.float32)
    part = FileShard(5, test.part.read, test.part.name, boxes=lambda i: box)
    source = streaming.Evaluation(ImageFileDataset(part, 0, 5, test.class_names), 3, 24, 27)
    assert streaming.make_batch(source, 1)["box"].shape == (3, 1, 4)
    nothing = streaming.make_batch(source, 2)  # of a process that has fewer examples than another
    assert nothing["box"].shape == (3, 1, 4) and not nothing["mask"].any()
