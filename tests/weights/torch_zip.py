"""Writes checkpoints as PyTorch does, without PyTorch: NumPy's arrays become tensors."""

import collections
import pickle
import sys
import types
import zipfile
from unittest import mock

import numpy as np

KINDS = {
    **{"float32": "Float", "float64": "Double", "float16": "Half", "bfloat16": "BFloat16"},
    **{"int64": "Long", "uint8": "Byte", "bool": "Bool"},
}


def _named(module, name, made):
    made.__module__, made.__qualname__, made.__name__ = module.__name__, name, name
    setattr(module, name, made)
    return made


class _Storage:
    def __init__(self, array):
        self.array = array


def save(path, content, *, base=None, compression=zipfile.ZIP_STORED, modules=()):
    """`base`: an array whose storage the first array shares, as a view at offset 0.

    `modules`: names of modules whose classes are pickled as if they were there to be imported.
    """
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    storages = {k: _named(torch, f"{kind}Storage", type(kind, (), {})) for k, kind in KINDS.items()}
    untyped = types.ModuleType("torch.storage")
    storage_of_bytes = _named(untyped, "UntypedStorage", type("UntypedStorage", (), {}))
    rebuild = _named(utils, "_rebuild_tensor_v2", lambda *a: None)
    rebuild_typed = _named(utils, "_rebuild_tensor_v3", lambda *a: None)
    fp8 = _named(torch, "float8_e4m3fn", lambda: None)
    found = []

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if isinstance(value, _Storage):
                found.append(value.array.tobytes())
                kind = storages.get(value.array.dtype.name, storage_of_bytes)
                return ("storage", kind, str(len(found) - 1), "cpu", value.array.size)
            return None

        def reducer_override(self, value):
            if not isinstance(value, np.ndarray):
                return NotImplemented
            stride = tuple(step // value.itemsize for step in value.strides)
            whole = value if value.flags.c_contiguous or value.base is None else value.base
            storage = _Storage(whole if base is None or found else base)
            rest = (0, value.shape, stride, False, collections.OrderedDict())
            if value.dtype.name in KINDS:
                return rebuild, (storage, *rest)
            return rebuild_typed, (storage, *rest, fp8)

    named = {module.__name__: module for module in (torch, utils, untyped, *modules)}
    with (
        mock.patch.dict(sys.modules, named),
        zipfile.ZipFile(path, "w", compression) as file,
    ):
        with file.open("archive/data.pkl", "w") as stream:
            Pickler(stream, protocol=2).dump(content)
        for i, values in enumerate(found):
            file.writestr(f"archive/data/{i}", values)
        file.writestr("archive/byteorder", b"little")
