"""An unpickler for the weights of the Detectron2, Caffe2 and MSRA zoos: arrays and plain containers only."""

from __future__ import annotations

import math
import pickle
import pickletools
import re
from collections.abc import Callable
from typing import Any

import numpy as np

ARRAY_KINDS = "biufc"  # numpy's bool, int, uint, float, complex: numbers, no objects, no records


class UnsafeDataError(ValueError):
    """A file or state holds something that weights do not need."""


class PickledArray:
    """The unchecked parts of a pickled numpy array."""

    def __init__(self, state: Any = None) -> None:
        self.state = state

    def resolve(self) -> np.ndarray:
        """The array, after its parts are checked; UnsafeDataError if it does not hold numbers."""
        _version, shape, dtype, fortran, data = self.state
        return _array(dtype, shape, data, fortran)


class _Dtype:
    """The unchecked parts of a pickled numpy dtype: its short name, and the state with the byte order."""

    def __init__(self, spec: Any, *_align_copy: Any) -> None:
        self.spec = spec
        self.state: Any = (3, "=", None, None, None, -1, -1, 0)

    def resolve(self) -> np.dtype[Any]:
        _version, order, subarray, names, fields, *_sizes = self.state
        if not isinstance(self.spec, str) or not re.fullmatch(rf"[{ARRAY_KINDS}]\d+", self.spec):
            raise UnsafeDataError(f"holds an array of dtype {str(self.spec)[:40]!r}, not of numbers")
        if not (subarray is names is fields is None) or order not in ("<", ">", "=", "|"):
            raise UnsafeDataError("holds an array of records, not of numbers")
        return np.dtype(self.spec).newbyteorder(order)


def _array(dtype: Any, shape: Any, data: Any, fortran: Any = False) -> np.ndarray:
    """An array of `shape` from `data`: bytes (or latin1 text, as Python 2 wrote them) of exactly that many numbers."""
    if not isinstance(dtype, _Dtype) or not isinstance(shape, tuple) or not isinstance(data, (bytes, bytearray, str)):
        raise UnsafeDataError("holds an array of objects, not of numbers")
    numpy_dtype = dtype.resolve()
    raw = data.encode("latin1") if isinstance(data, str) else data
    if any(type(n) is not int or n < 0 for n in shape) or math.prod(shape) * numpy_dtype.itemsize != len(raw):
        raise UnsafeDataError(f"holds an array of shape {str(shape)[:40]}, dtype {numpy_dtype} in {len(raw)} bytes")
    array = np.frombuffer(raw, numpy_dtype).reshape(shape, order="F" if fortran else "C")
    return array.astype(numpy_dtype.newbyteorder("="), order="C", copy=True)


def _reconstruct(subtype: Any, shape: Any, _typecode: Any) -> PickledArray:
    if subtype is not PickledArray or shape != (0,):
        raise UnsafeDataError("builds an array of a foreign type")
    return PickledArray()


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> PickledArray:
    return PickledArray((1, shape, dtype, order == "F", data))


def _scalar(dtype: Any, data: Any) -> Any:
    return _array(dtype, (), data).item()


def _encode(text: Any, encoding: Any = None) -> bytes:
    """`_codecs.encode`, which protocols 0 to 2 use to write bytes; other codecs would import modules."""
    if type(text) is not str or encoding != "latin1":
        raise UnsafeDataError(f"asks for the codec {str(encoding)[:40]!r}")
    return text.encode("latin1")


def _empty_bytes() -> bytes:
    return b""


# Every constructor that a zoo file may name. `PickledArray` stands for the type and is never called by name.
_GLOBALS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): PickledArray,
    ("numpy", "dtype"): _Dtype,
    ("collections", "OrderedDict"): dict,
    ("_codecs", "encode"): _encode,
    ("builtins", "bytes"): _empty_bytes,
    ("__builtin__", "bytes"): _empty_bytes,
}
for _core in ("numpy.core", "numpy._core"):  # of numpy 1 and 2
    _GLOBALS[f"{_core}.multiarray", "_reconstruct"] = _reconstruct
    _GLOBALS[f"{_core}.multiarray", "scalar"] = _scalar
    _GLOBALS[f"{_core}.numeric", "_frombuffer"] = _frombuffer
_CALLABLE = [call for call in _GLOBALS.values() if call is not PickledArray]

# Instructions that make or move data, or look up a global. Left out: the extension registry, persistent ids,
# out-of-band buffers, sets, and every way to make an instance except REDUCE and BUILD, which are checked below.
_INSTRUCTIONS = """
    PROTO FRAME STOP POP POP_MARK DUP MARK GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE
    NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
    BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 EMPTY_LIST LIST APPEND APPENDS
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT DICT SETITEM SETITEMS GLOBAL STACK_GLOBAL"""
_NAMES = {ord(operation.code): operation.name for operation in pickletools.opcodes}


class _Instructions(dict[int, Any]):
    """Instruction byte -> method. Other instructions of pickle are refused by name; any other byte is damage."""

    def __missing__(self, code: int) -> Any:
        if code in _NAMES:
            raise UnsafeDataError(f"refused the pickle instruction {_NAMES[code]}")
        raise KeyError(f"byte {code:#x}")


class ZooUnpickler(pickle._Unpickler):
    """Python's own unpickler with a smaller table of instructions: what is not in the table cannot be run.

    The unpickler in C lets a subclass override `find_class` only, and resolves cached extension codes without it.
    """

    stack: list[Any]
    append: Callable[[Any], None]
    dispatch = _Instructions(
        (code, load) for code, load in pickle._Unpickler.dispatch.items() if _NAMES[code] in _INSTRUCTIONS.split()
    )

    def find_class(self, module: str, name: str) -> Any:
        """See base class."""
        if (module, name) not in _GLOBALS:
            raise UnsafeDataError(f"refused the global {module}.{name}"[:200])
        return _GLOBALS[module, name]

    def load_reduce(self) -> None:
        """Call a constructor of the table, and no other object."""
        arguments, call = self.stack.pop(), self.stack.pop()
        if type(arguments) is not tuple or not any(call is allowed for allowed in _CALLABLE):
            raise UnsafeDataError("calls something that is not a constructor")
        self.append(call(*arguments))

    def load_build(self) -> None:
        """Set the state of an array or dtype; the attributes of an OrderedDict are dropped."""
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) in (PickledArray, _Dtype):
            target.state = state
        elif type(target) is not dict:
            raise UnsafeDataError(f"sets the state of a {type(target).__name__}")

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.BUILD[0]] = load_build
