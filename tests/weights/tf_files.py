"""Writes checkpoints of TensorFlow, byte by byte."""

import struct

import google_crc32c
import numpy as np
from foreign_files import field, varint

_MAGIC = 0xDB4775248B80FB57
_FLOAT, _STRING = 1, 7


def checksum(data):
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def block(rows, restart=4):
    """Rows of (key, value); a key gives what it has in common with the one before as a number."""
    found, restarts, before = b"", [], b""
    for i, (key, value) in enumerate(rows):
        shared = 0
        if i % restart == 0:
            restarts.append(len(found))
        else:
            while shared < min(len(key), len(before)) and key[shared] == before[shared]:
                shared += 1
        rest = key[shared:]
        found += varint(shared) + varint(len(rest)) + varint(len(value)) + rest + value
        before = key
    restarts = restarts or [0]
    return found + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def table(rows, size=5, compression=0):
    """A table with `size` rows a block."""
    data, places = b"", []

    def add(content):
        nonlocal data
        place = varint(len(data)) + varint(len(content))
        content += bytes([compression])
        data += content + checksum(content)
        return place

    rows = sorted(rows.items())
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        places.append((part[-1][0], add(block(part))))
    other = add(block([]))
    footer = other + add(block(places))
    return data + footer.ljust(40, b"\0") + struct.pack("<Q", _MAGIC)


def shape_of(array):
    return b"".join(field(2, field(1, n)) for n in array.shape)


def version_2(path, arrays, objects=None, **options):
    """path.index and path.data-00000-of-00001; `objects` is {name of Keras: key}."""
    data, rows = b"", {b"": field(1, 1)}

    def add(name, dtype, shape, content, crc):
        nonlocal data
        rows[name.encode()] = (
            field(1, dtype) + field(2, shape) + field(4, len(data)) + field(5, len(content))
        ) + (varint(6 << 3 | 5) + crc)
        data += content

    for name, array in arrays.items():
        content = np.ascontiguousarray(array, "<f4").tobytes()
        add(name, _FLOAT, shape_of(array), content, checksum(content))
    if objects is not None:
        nodes = b"".join(
            field(1, field(2, field(1, "VARIABLE_VALUE") + field(2, name) + field(3, key)))
            for name, key in objects.items()
        )
        length = struct.pack("<I", len(nodes))
        content = varint(len(nodes)) + checksum(length) + nodes
        crc = checksum(length + checksum(length) + nodes)
        add("_CHECKPOINTABLE_OBJECT_GRAPH", _STRING, b"", content, crc)
    path.with_name(path.name + ".index").write_bytes(table(rows, **options))
    path.with_name(path.name + ".data-00000-of-00001").write_bytes(data)


def version_1(path, arrays):
    """One file: descriptions of all variables, and a row for each."""
    described = b"".join(
        field(1, field(1, name) + field(2, shape_of(a)) + field(3, _FLOAT))
        for name, a in arrays.items()
    )
    rows = {b"": field(1, described)}
    for name, array in arrays.items():
        values = field(5, np.ascontiguousarray(array, "<f4").tobytes())
        rows[b"\0" + name.encode()] = field(2, field(1, name) + field(3, field(1, 1) + values))
    path.write_bytes(table(rows))


def slim_variables(net):
    """{name: array} of a network of `foreign_nets` whose layers have TF-Slim's names."""
    words = {"scale": "gamma", "bias": "beta", "mean": "moving_mean", "var": "moving_variance"}
    found = {"global_step": np.zeros(())}
    for record in net.records:
        for key, array in record.arrays.items():
            if record.kind == "norm":
                found[f"{record.name}/{words[key]}"] = array
            elif key == "bias":
                found[f"{record.name}/biases"] = array
            else:
                kernel = array if array.ndim == 4 else array[:, :, None, None]
                found[f"{record.name}/weights"] = kernel.transpose(2, 3, 1, 0)
                found[f"{record.name}/weights/Momentum"] = np.zeros(3)
    return found
