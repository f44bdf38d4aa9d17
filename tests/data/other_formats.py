"""Writes the examples of an image folder in other formats, to compare readers with `folders`."""

import io
import itertools
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq

from jaxcnn.data.catalog import open_parts


def features(names, image="image", label="label"):
    """The metadata that `datasets` writes into the schema of a Parquet file."""
    described = {
        image: {"_type": "Image"},
        label: {"_type": "ClassLabel", "names": list(names)},
    }
    return {b"huggingface": json.dumps({"info": {"features": described}}).encode()}


def examples(folder, part):
    """(class names, [(image file, label, name of the file)]) of a split of an image folder."""
    names, parts = open_parts(f"folder:{folder}")
    shard = parts[part]
    return names, [(*shard.read(i), shard.name(i).split("/")[-1]) for i in range(shard.size)]


def table(rows, names=None, image="image", label="label"):
    """A table of (image file, label, name) as `datasets` stores it."""
    made = pa.table(
        {
            image: [{"bytes": data, "path": name} for data, _, name in rows],
            label: [number for _, number, _ in rows],
        }
    )
    return made.replace_schema_metadata(features(names, image, label)) if names else made


def split_evenly(rows, shards):
    ends = [len(rows) * i // shards for i in range(shards + 1)]
    return [rows[a:b] for a, b in itertools.pairwise(ends)]


def write_parquet(folder, out, parts=("train", "val"), shards=3, rows=4, **options):
    """OUT/data/<split>-00000-of-00003.parquet of an image folder; returns OUT."""
    (out / "data").mkdir(parents=True)
    for part in parts:
        names, found = examples(folder, part)
        split = {"val": "validation"}.get(part, part)
        for i, some in enumerate(split_evenly(found, shards)):
            path = out / "data" / f"{split}-{i:05d}-of-{shards:05d}.parquet"
            pq.write_table(table(some, names), path, row_group_size=rows, **options)
    return out


def add(tar, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def write_tars(folder, out, label, parts=("train", "val"), shards=3):
    """OUT/set-<split>-0000.tar of an image folder; `label` maps (name, number) to (key, bytes)."""
    out.mkdir(parents=True)
    for part in parts:
        names, found = examples(folder, part)
        for i, some in enumerate(split_evenly(found, shards)):
            with tarfile.open(out / f"set-{part}-{i:04d}.tar", "w") as tar:
                for data, number, name in some:
                    stem = f"{names[number]}_{name.rpartition('.')[0].replace('.', '_')}"
                    key, content = label(names[number], number)
                    add(tar, f"{stem}.jpg", data)
                    add(tar, f"{stem}.{key}", content)
    return out
