"""Read a pickle, or what ``torch.save`` wrote, from anyone, without running anything it holds.

A pickle names functions and calls them; unpickled in the usual way it is a program. Here no name
is ever looked up: each one that a save of scVI needs has a stand-in below, which does that one
thing with checked arguments, and any other name is refused. NumPy's and torch's own functions
would not be safe, though scVI's saves call them: ``numpy.dtype`` lets a pickle set its flags, and
an array of objects with forged flags takes its pointers from the file. For the same reason
nothing on the unpickler's stack has a ``__setstate__`` that is not written here.

The archive is read by :mod:`zipfile` alone, which checks every record's CRC (torch does not);
``torch.load`` would hand a TorchScript archive or an older format to other readers.
"""

import pickle
import re
import zipfile
from io import BytesIO
from typing import BinaryIO

import numpy as np
import torch


class Refused(ValueError):
    """A file that is whole, but not one to use."""


class _Ignored:
    """Whatever a reader of weights has no use for, such as the history of the training."""

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __setstate__(self, state):
        pass


class _Dict(dict):
    """An ordered or default dictionary, without its factory and attributes."""

    def __init__(self, *args):
        super().__init__()

    def __setstate__(self, state):
        pass


class _Bytes:
    """Protocol 2 has no bytes, it writes them as text to encode."""

    def __new__(cls, text="", encoding="latin1"):
        return text.encode("latin1")


class _Dtype:
    def __init__(self, code, *args):
        if not re.fullmatch(r"b1|[iufcOSU]\d{1,9}", code):
            raise Refused(f"it holds an array of type {code!r}, which no scVI model has")
        self.value = np.dtype(code)

    def __setstate__(self, state):
        self.value = self.value.newbyteorder(state[1])


class _Array:
    """A NumPy array in ``value``: numbers and text from bytes, objects from a list."""

    def __init__(self, *args):
        self.value = np.empty(0)

    def __setstate__(self, state):
        _, shape, dtype, fortran, data = state
        order = "F" if fortran else "C"
        if dtype.value.hasobject:
            self.value = np.fromiter(data, object, len(data)).reshape(shape, order=order)
        else:
            self.value = np.ndarray(shape, dtype.value, data, order=order)


class _Scalar:
    def __new__(cls, dtype, data):
        return np.frombuffer(data, dtype.value)[0].item()


class _Tensor:
    """A torch tensor in ``value``, of its storage's type and bytes."""

    def __init__(self, storage, offset, size, stride, *args):
        dtype, data = storage
        flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        self.value = flat.as_strided(size, stride, offset)  # which checks the bounds
        if not self.value.is_contiguous():
            raise Refused("it holds weights that are stretched, not stored")

    def __setstate__(self, state):
        pass


_STAND_INS = {
    ("_codecs", "encode"): _Bytes,
    ("collections", "OrderedDict"): _Dict,
    ("collections", "defaultdict"): _Dict,
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Ignored,  # an argument of _reconstruct
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch", "BFloat16Storage"): torch.bfloat16,
    ("torch", "BoolStorage"): torch.bool,
    ("torch", "DoubleStorage"): torch.float64,
    ("torch", "FloatStorage"): torch.float32,
    ("torch", "HalfStorage"): torch.float16,
    ("torch", "LongStorage"): torch.int64,
}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # NumPy 1 and 2
    _STAND_INS |= {(_module, "_reconstruct"): _Array, (_module, "scalar"): _Scalar}
for _module in ("__builtin__", "builtins"):  # protocol 2 and later
    _STAND_INS |= {
        (_module, "bytearray"): _Ignored,  # a buffer of pyarrow's
        (_module, "bytes"): _Bytes,
        (_module, "dict"): _Dict,
        (_module, "slice"): _Ignored,  # of a data frame
    }


class Attributes:
    """An object in ``value``, as the dictionary of its attributes; of no class, so it does nothing.

    Raises
    ------
    Refused
        The object keeps its state in another way.
    """

    def __init__(self):
        self.value: dict = {}

    def __setstate__(self, state):
        if type(state) is not dict:
            raise Refused("it holds an object whose attributes are no dictionary")
        self.value = state


class _Unpickler(pickle._Unpickler):  # the one in C makes its memo as large as a file says
    def __init__(self, file: BinaryIO, stand_ins: dict, needed_by: str):
        super().__init__(file)
        self.stand_ins, self.needed_by = stand_ins, needed_by

    def find_class(self, module, name):
        if (module, name) not in self.stand_ins:
            raise Refused(
                f"it asks for {module}.{name}, which {self.needed_by} needs; nothing was run"
            )
        return self.stand_ins[module, name]

    def persistent_load(self, saved_id):
        raise Refused("it refers to another file")


class _TorchUnpickler(_Unpickler):
    def __init__(self, archive: zipfile.ZipFile, root: str):
        super().__init__(BytesIO(archive.read(f"{root}/data.pkl")), _STAND_INS, "no scVI model")
        self.archive, self.root = archive, root

    def find_class(self, module, name):
        # the history's data frames, of any version: pandas 3 keeps their names in pyarrow
        if module.partition(".")[0] in ("pandas", "pyarrow"):
            return _Ignored
        return super().find_class(module, name)

    def persistent_load(self, saved_id):
        kind, dtype, key, _, size = saved_id
        data = bytearray(self.archive.read(f"{self.root}/data/{key}"))
        if kind != "storage" or len(data) != size * dtype.itemsize:
            raise Refused(f"the weights in its record {key} are not of the size they should be")
        return dtype, data  # a tuple has no state to set


def load(file: BinaryIO) -> object:
    """Read plain containers, and ``_Array`` and ``_Tensor`` that hold a `value`.

    Parameters
    ----------
    file
        Opened for reading.

    Returns
    -------
    What was saved.

    Raises
    ------
    Refused
        The file is whole, but holds what no save of scVI does.
    Exception
        The file is damaged; pickle and zipfile raise many kinds.
    """
    if not zipfile.is_zipfile(file):
        raise Refused("it is cut short, or not in the zip format that torch.save writes")
    with zipfile.ZipFile(file) as archive:
        roots = {name.split("/")[0] for name in archive.namelist()}
        if len(roots) != 1 or any(r.compress_type for r in archive.infolist()):
            raise Refused("its archive is not one that torch.save wrote")
        root = roots.pop()
        if f"{root}/constants.pkl" in archive.namelist():
            raise Refused("it is a TorchScript program, not a save of scVI")
        byteorder = f"{root}/byteorder"
        if byteorder in archive.namelist() and archive.read(byteorder) != b"little":
            raise Refused("it was written on a big-endian machine")
        return _TorchUnpickler(archive, root).load()


def load_attributes(file: BinaryIO, name: str) -> dict:
    """Read the attributes of the one object that a plain pickle holds.

    Parameters
    ----------
    file
        Opened for reading.
    name
        Of the object's class, such as ``"monod.extract_data.SearchData"``; the class itself is
        neither imported nor needed.

    Returns
    -------
    Attributes by name; a NumPy array is an ``_Array`` with its `value`.

    Raises
    ------
    Refused
        The file is whole, but holds something else.
    Exception
        The file is damaged; pickle raises many kinds.
    """
    module, _, attribute = name.rpartition(".")
    stand_ins = {**_STAND_INS, (module, attribute): Attributes}
    found = _Unpickler(file, stand_ins, f"no {attribute}").load()
    if not isinstance(found, Attributes):
        raise Refused(f"it holds no {attribute}")
    return found.value
