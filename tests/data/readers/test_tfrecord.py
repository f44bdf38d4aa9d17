"""TFRecord files: written by tensorboardX's writer, a second implementation of format and CRC."""

import struct

import numpy as np
import pytest
from tensorboardX.record_writer import RecordWriter, masked_crc32c

from jaxcnn.data.readers import tfrecord


def write(path, records):
    writer = RecordWriter(str(path))
    for record in records:
        writer.write(record)
    writer.close()
    return path


@pytest.fixture
def records():
    rng = np.random.default_rng(0)
    return [rng.bytes(n) for n in [0, 1, 3, 4, 17, 300, 299, 1000, *rng.integers(0, 80, 92)]]


def test_records_in_any_order(tmp_path, records):
    found = tfrecord.index_records(write(tmp_path / "a.tfrecord", records))
    assert len(found) == 100
    assert found.read(range(100)) == records
    rows = [99, 0, 7, 7, 50]
    assert found.read(rows) == [records[r] for r in rows]
    assert found.read([]) == []


def test_an_empty_file_has_no_records(tmp_path):
    path = tmp_path / "empty.tfrecord"
    path.touch()
    assert len(tfrecord.index_records(path)) == 0


def test_checksums(records):
    """The published check value of CRC-32C, and the other implementation on every length."""
    crc = 0xE3069283  # of b"123456789", RFC 3720 and the catalog of parametrized CRCs
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    assert tfrecord.masked_crc32c(b"123456789") == masked
    for record in (*records, np.random.default_rng(1).bytes(70_001)):
        assert tfrecord.masked_crc32c(record) == masked_crc32c(record)


@pytest.mark.parametrize("rows", [range(100), [5]])
def test_a_changed_byte_is_noticed(tmp_path, records, rows):
    path = write(tmp_path / "a.tfrecord", records)
    content = bytearray(path.read_bytes())
    start = tfrecord.index_records(path).starts[5]
    content[start + 200] ^= 1
    path.write_bytes(content)
    found = tfrecord.index_records(path)
    with pytest.raises(ValueError, match=r"a\.tfrecord: record 5 is damaged"):
        found.read(rows)
    assert found.read([4, 6]) == [records[4], records[6]]


def test_a_changed_checksum_is_noticed(tmp_path, records):
    path = write(tmp_path / "a.tfrecord", records)
    content = bytearray(path.read_bytes())
    content[-1] ^= 0x80
    path.write_bytes(content)
    with pytest.raises(ValueError, match="record 99 is damaged"):
        tfrecord.index_records(path).read([99])


@pytest.mark.parametrize("cut", [1, 4, 5, 60, 16])
def test_a_truncated_file_is_named(tmp_path, cut):
    path = write(tmp_path / "a.tfrecord", [b"x" * 50] * 3)
    path.write_bytes(path.read_bytes()[:-cut])
    size = 3 * 66 - cut
    with pytest.raises(ValueError, match=rf"a\.tfrecord: truncated: {size} bytes, record 2 needs"):
        tfrecord.index_records(path)


def test_what_is_no_tfrecord_file(tmp_path):
    path = tmp_path / "b.tfrecord"
    path.write_bytes(b"<html>the host was busy; try again later</html>")
    with pytest.raises(ValueError, match=r"b\.tfrecord: no TFRecord at byte 0"):
        tfrecord.index_records(path)
    # A length that leads to a place within the file.
    path.write_bytes(struct.pack("<Q", 8) + bytes(4) + bytes(8) + bytes(4))
    with pytest.raises(ValueError, match="no TFRecord at byte 0"):
        tfrecord.index_records(path)
    with pytest.raises(FileNotFoundError, match=r"missing\.tfrecord"):
        tfrecord.index_records(tmp_path / "missing.tfrecord")
