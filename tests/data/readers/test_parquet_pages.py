"""Single values in the pages of Parquet files against what was written, and damaged pages."""

import itertools
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxcnn.data.decode import BadImage
from jaxcnn.data.readers import parquet, snappy

OPTIONS = list(
    itertools.product(("none", "snappy", "zstd"), ("1.0", "2.0"), (True, False), (200, 2**20))
)


def draw(seed):
    """40 values: long, short, empty and null ones, nine of them twice."""
    rng = np.random.default_rng(seed)
    sizes = np.where(rng.random(40) < 0.3, rng.integers(0, 99_000, 40), rng.integers(0, 300, 40))
    values = [None if rng.random() < 0.2 else rng.bytes(size) for size in sizes]
    return values + values[:9]


def read_all(path, column):
    file = parquet.open_file(path)
    read = parquet.value_reader([file], column)
    found = []
    for row in range(file.rows):
        try:
            found.append(read(0, row))
        except BadImage as error:
            assert str(error) == "has no image"
            found.append(None)
    return found


@pytest.mark.parametrize(("compression", "version", "dictionary", "page"), OPTIONS)
def test_values_are_those_that_were_written(tmp_path, compression, version, dictionary, page):
    values = draw(len(compression))
    structs = [None if i % 5 == 0 and v is None else {"bytes": v} for i, v in enumerate(values)]
    table = pa.table({"image": structs, "plain": pa.array(values, pa.binary())})
    path = tmp_path / "a.parquet"
    pq.write_table(
        table,
        path,
        row_group_size=30,
        compression=compression,
        data_page_version=version,
        use_dictionary=dictionary,
        data_page_size=page,
        write_page_checksum=page < 1000,
    )
    for column in ("image.bytes", "plain"):
        assert read_all(path, column) == values
        file = parquet.open_file(path)
        for group in range(2):  # no row group has to be read as a whole
            assert parquet._find_values(file, group, column) is not None


def test_an_empty_value_at_the_end_of_the_last_block(tmp_path):
    """Snappy compresses blocks of 64 KiB; two values have lengths of 4 bytes each."""
    values = [bytes(65_536 - 8), b""]
    schema = pa.schema([pa.field("image", pa.binary(), nullable=False)])
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table([pa.array(values, pa.binary())], schema=schema),
        path, compression="snappy", use_dictionary=False,
    )  # fmt: skip
    assert read_all(path, "image") == values


def test_a_column_without_nulls(tmp_path):
    field = pa.field("image", pa.binary(), nullable=False)
    values = [b"ab", b"c"] * 50
    table = pa.Table.from_arrays([pa.array(values, pa.binary())], schema=pa.schema([field]))
    for version in ("1.0", "2.0"):
        pq.write_table(table, tmp_path / "a.parquet", data_page_version=version)
        assert read_all(tmp_path / "a.parquet", "image") == values


def test_damaged_bytes_are_found_or_give_other_values(tmp_path):
    """Whatever bit of the pages is wrong, what is raised is that a record is damaged."""
    values = [v for v in draw(0) if v is not None and len(v) < 300]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": pa.array(values, pa.binary())}), path)
    whole, generator, damaged = path.read_bytes(), random.Random(0), 0
    for _ in range(150):
        changed = bytearray(whole)
        changed[generator.randrange(4, 200)] ^= 1 << generator.randrange(8)
        path.write_bytes(changed)
        read = parquet.value_reader([parquet.open_file(path)], "image")
        try:
            read(0, 3)
        except BadImage as error:
            assert str(error).startswith("is damaged: ") and "\n" not in str(error)
            damaged += 1
    assert damaged > 20


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 400_000])
@pytest.mark.parametrize("kind", ["random", "zeros", "text"])
def test_blocks_of_snappy_are_valid_alone(size, kind):
    rng = np.random.default_rng(size)
    text = (b"some words %d" % size) * (size // 11 + 1)
    data = {"random": rng.bytes(size), "zeros": bytes(size), "text": text[:size]}[kind]
    stored = pa.compress(data, "snappy", asbytes=True)
    blocks = snappy.find_blocks(stored)
    assert snappy.read_length(stored)[0] == size and len(blocks) == -(-size // snappy.BLOCK) + 1
    for i, (start, stop) in enumerate(itertools.pairwise(blocks)):
        expected = data[i * snappy.BLOCK : (i + 1) * snappy.BLOCK]
        alone = snappy.with_length(stored[start:stop], len(expected))
        assert pa.decompress(alone, len(expected), "snappy", asbytes=True) == expected


def test_blocks_that_depend_on_each_other_are_not_taken_apart():
    literal = b"\xf4" + (2**16 - 1).to_bytes(2, "little") + bytes(2**16)  # 65536 bytes
    copy = b"\x06" + (5).to_bytes(2, "little")  # two bytes, five before: from the first block
    assert snappy.find_blocks(snappy.with_length(literal + copy, 2**16 + 2)) is None
    long = b"\xf8" + (2**16).to_bytes(3, "little") + bytes(2**16 + 1)
    assert snappy.find_blocks(snappy.with_length(long + b"\x04ab", 2**16 + 3)) is None
    assert snappy.find_blocks(snappy.with_length(literal, 2**16 + 1)) is None  # truncated
