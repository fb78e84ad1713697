"""Weight files are read without running what they hold: a pickle is a program, and weights come from strangers.

PyTorch files go through `torch.load(weights_only=True)`. The `.pkl` files of the Detectron2, Caffe2 and MSRA zoos go
through a pickle machine that knows only the instructions and the few constructors that such files need; numpy's own
unpickling code is not among them, arrays are rebuilt here from their checked parts.
"""

from __future__ import annotations

import math
import pickle
import pickletools
import re
import tarfile
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segkit.structures import CheckpointError

RESAVE = (
    "nothing of it was run: where you trust its source, load it there and save the bare weights, "
    "`torch.save(model.state_dict(), 'weights.pth')`"
)
ARRAY_KINDS = "biufc"  # numpy's bool, int, uint, float, complex: numbers, no objects, no records


def load_torch(path: str | Path) -> dict[str, Any]:
    """The dict in a file that `torch.save` wrote, tensors on the CPU, read with `weights_only=True`.

    Returns a tree of dict, list, tuple, str, bytes, int, float, bool, None and dense tensors. Raises CheckpointError
    naming the file, and the refused global where it holds anything else; no code of the file has run by then.
    """
    path = _existing(path)
    try:
        if tarfile.is_tarfile(path) or _is_torchscript(path):
            # torch < 2.6 reads both by other doors, which weights_only does not guard (CVE-2025-32434).
            raise _Refused("a TorchScript or tar archive, not a state dict")
        with warnings.catch_warnings():  # of pickle protocols; what cannot be read is told below
            warnings.simplefilter("ignore", UserWarning)
            return _as_dict(torch.load(path, map_location="cpu", weights_only=True))
    except pickle.UnpicklingError as error:
        raise _torch_refusal(path, error) from error
    except _Refused as error:
        raise CheckpointError(str(error), where=path, remedy=RESAVE) from error
    except Exception as error:
        raise _unreadable(path, error) from error


def load_pickle(path: str | Path) -> dict[str, Any]:
    """The dict in a zoo's `.pkl` file, pickled by Python 2 or 3 (protocols 0 to 5), its strings read as latin1.

    Returns a tree of dict, list, tuple, str, bytes, int, float, bool, None and numpy arrays of numbers (writable, in
    this machine's byte order). Raises CheckpointError as `load_torch` does.
    """
    path = _existing(path)
    try:
        with path.open("rb") as file:
            return _as_dict(_ZooUnpickler(file, encoding="latin1").load())
    except _Refused as error:
        raise CheckpointError(str(error), where=path, remedy=RESAVE) from error
    except Exception as error:
        raise _unreadable(path, error) from error


def inert(value: Any) -> Any:
    """A copy of a tree of containers that holds nothing but data, or ValueError naming what is more than that.

    Subclasses (OrderedDict, Counter, torch.Size, Parameter, numpy scalars) become plain dict, tuple, tensor and
    number; the `_metadata` of a state dict is kept. Tensors share their storage with the given ones. numpy arrays are
    refused, since `load_torch` cannot read them back, and so are containers that hold themselves.
    """
    return _Copier().copy(value, "")


class _Refused(ValueError):
    """Something that no weight file needs."""


class _Array:
    """The parts of a pickled numpy array, until they are checked."""

    def __init__(self, state: Any = None) -> None:
        self.state = state

    def resolve(self) -> np.ndarray:
        _version, shape, dtype, fortran, data = self.state
        return _array(dtype, shape, data, fortran)


class _Dtype:
    """The parts of a pickled numpy dtype: its short name, and the state that tells the byte order."""

    def __init__(self, spec: Any, *_align_copy: Any) -> None:
        self.spec, self.state = spec, (3, "=", None, None, None, -1, -1, 0)

    def resolve(self) -> np.dtype[Any]:
        order: Any
        order, subarray, names, fields = self.state[1:5]
        if not isinstance(self.spec, str) or not re.fullmatch(rf"[{ARRAY_KINDS}]\d+", self.spec):
            raise _Refused(f"holds an array of dtype {str(self.spec)[:40]!r}, not of numbers")
        if not (subarray is names is fields is None) or order not in ("<", ">", "=", "|"):
            raise _Refused("holds an array of records, not of numbers")
        dtype: np.dtype[Any] = np.dtype(self.spec).newbyteorder(order)
        return dtype


def _array(dtype: Any, shape: Any, data: Any, fortran: Any = False) -> np.ndarray:
    """An array of `shape` over `data`, bytes (or latin1 text, as Python 2 wrote them) of exactly that many numbers."""
    if not isinstance(dtype, _Dtype) or not isinstance(shape, tuple) or not isinstance(data, (bytes, bytearray, str)):
        raise _Refused("holds an array of objects, not of numbers")
    numpy_dtype = dtype.resolve()
    raw = data.encode("latin1") if isinstance(data, str) else data
    if any(type(n) is not int or n < 0 for n in shape) or math.prod(shape) * numpy_dtype.itemsize != len(raw):
        raise _Refused(f"holds an array of shape {str(shape)[:40]}, dtype {numpy_dtype} in {len(raw)} bytes")
    array = np.frombuffer(raw, numpy_dtype).reshape(shape, order="F" if fortran else "C")
    return array.astype(numpy_dtype.newbyteorder("="), order="C", copy=True)


def _reconstruct(subtype: Any, shape: Any, _typecode: Any) -> _Array:
    if subtype is not _Array or shape != (0,):
        raise _Refused("builds an array of a foreign type")
    return _Array()


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    return _Array((1, shape, dtype, order == "F", data))


def _scalar(dtype: Any, data: Any) -> Any:
    return _array(dtype, (), data).item()


def _ordered(items: Any = ()) -> dict[Any, Any]:
    return dict(items)


def _encode(text: Any, encoding: Any = None) -> bytes:
    """`_codecs.encode`, by which protocols 0 to 2 write bytes; other codecs would import modules."""
    if type(text) is not str or encoding != "latin1":
        raise _Refused(f"asks for the codec {str(encoding)[:40]!r}")
    return text.encode("latin1")


def _empty_bytes() -> bytes:
    return b""


# Every constructor that a zoo file may name. The types stand for themselves and are never called by name.
_NUMPY = {
    ("multiarray", "_reconstruct"): _reconstruct,
    ("multiarray", "scalar"): _scalar,
    ("numeric", "_frombuffer"): _frombuffer,
}
_GLOBALS: dict[tuple[str, str], Any] = {
    **{(f"numpy.{core}.{module}", name): call for core in ("core", "_core") for (module, name), call in _NUMPY.items()},
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("collections", "OrderedDict"): _ordered,
    ("_codecs", "encode"): _encode,
    ("builtins", "bytes"): _empty_bytes,
    ("__builtin__", "bytes"): _empty_bytes,
}
_CALLABLE = [call for call in _GLOBALS.values() if call is not _Array]

# Instructions that make or move data, or look up a global. Not here: the extension registry, persistent ids,
# out-of-band buffers, sets, and every way to make an instance but REDUCE and BUILD, which are checked below.
_INSTRUCTIONS = re.findall(
    r"\w+",
    """PROTO FRAME STOP POP POP_MARK DUP MARK GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE
    NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
    BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 EMPTY_LIST LIST APPEND APPENDS
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT DICT SETITEM SETITEMS GLOBAL STACK_GLOBAL""",
)
_NAMES = {operation.code: operation.name for operation in pickletools.opcodes}


class _Instructions(dict[int, Any]):
    """Instruction byte -> method; the others of pickle's are refused by name, what is none of pickle's is damage."""

    def __missing__(self, code: int) -> Any:
        if chr(code) in _NAMES:
            raise _Refused(f"refused the pickle instruction {_NAMES[chr(code)]}")
        raise KeyError(f"byte {code:#x}")


class _ZooUnpickler(pickle._Unpickler):
    """The pickle machine in Python with a table of instructions of ours: what is not in the table cannot be run.

    The C machine offers only `find_class` to override, and serves cached extension codes without asking it.
    """

    stack: list[Any]
    append: Callable[[Any], None]
    dispatch = _Instructions(
        (code, pickle._Unpickler.dispatch[code]) for code in (getattr(pickle, name)[0] for name in _INSTRUCTIONS)
    )

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _GLOBALS[module, name]
        except KeyError:
            raise _Refused(f"refused the global {module}.{name}"[:200]) from None

    def load_reduce(self) -> None:
        arguments, call = self.stack.pop(), self.stack.pop()
        if type(arguments) is not tuple or not any(call is allowed for allowed in _CALLABLE):
            raise _Refused("calls something that is not a constructor")
        self.append(call(*arguments))

    def load_build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) in (_Array, _Dtype):
            target.state = state
        elif type(target) is not dict:  # the attributes of an OrderedDict are not needed
            raise _Refused(f"sets the state of a {type(target).__name__}")

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.BUILD[0]] = load_build


class _Copier:
    """One pass of `inert`; `done` keeps what was copied, so that shared branches are copied once."""

    def __init__(self) -> None:
        self.done: dict[int, Any] = {}

    def copy(self, value: Any, key: str) -> Any:
        if value is None or type(value) in (str, bytes, int, float, bool):
            return value
        if id(value) not in self.done:
            self.done[id(value)] = _CYCLE
            self.done[id(value)] = self._copy(value, key)
        if self.done[id(value)] is _CYCLE:
            raise _Refused(f"a container that holds itself, at {key or 'the top'!r}")
        return self.done[id(value)]

    def _copy(self, value: Any, key: str) -> Any:
        kind = type(value)
        if kind in (dict, OrderedDict, Counter):
            return self._copy_dict(value, key)
        if kind in (list, tuple, torch.Size):
            items = [self.copy(item, f"{key}[{i}]") for i, item in enumerate(value)]
            return items if kind is list else tuple(items)
        if kind in (torch.Tensor, torch.nn.Parameter) and _is_dense(value):
            return torch.Tensor.detach(value)
        if kind is _Array:
            return value.resolve()
        if isinstance(value, (np.number, np.bool_)):
            return value.item()
        raise _Refused(f"refused {kind.__module__}.{kind.__qualname__} at {key or 'the top'!r}")

    def _copy_dict(self, value: dict[Any, Any], key: str) -> dict[Any, Any]:
        prefix = f"{key}." if key else ""
        # dict.items: an attribute `items` of a hostile OrderedDict must not stand in its place
        copied = ((self.copy(k, key), self.copy(v, f"{prefix}{str(k)[:80]}")) for k, v in dict.items(value))
        metadata = vars(value).get("_metadata") if type(value) is OrderedDict else None
        if metadata is None:
            return dict(copied)
        ordered = OrderedDict(copied)
        ordered._metadata = self.copy(metadata, f"{prefix}_metadata")  # type: ignore[attr-defined]
        return ordered


_CYCLE = object()


def _is_dense(tensor: torch.Tensor) -> bool:
    return tensor.layout is torch.strided and not tensor.is_meta and not tensor.is_quantized


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise CheckpointError("no such file" if not path.exists() else "not a file", where=path)
    return path


def _is_torchscript(path: Path) -> bool:
    """Whether torch takes `path` for a TorchScript archive, asked with torch's own zip reader."""
    return _is_zip(path) and "constants.pkl" in torch._C.PyTorchFileReader(str(path)).get_all_records()


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _torch_refusal(path: Path, error: Exception) -> CheckpointError:
    """What torch's restricted machine stumbled on, without its page of advice."""
    found = re.search(r"GLOBAL ([^\s,]+)", str(error))
    if found:
        return CheckpointError(f"refused the global {found[1]}", where=path, remedy=RESAVE)
    if "Unsupported operand" in str(error) and not _is_zip(path):
        # A plain pickle of protocol 4 or 5: our machine reads on to the global that it wants.
        try:
            load_pickle(path)
        except CheckpointError as refused:
            return refused
    return _unreadable(path, error)


def _as_dict(loaded: Any) -> dict[str, Any]:
    tree = inert(loaded)
    if not isinstance(tree, dict):
        raise _Refused(f"expected a dict of weights, got {type(tree).__name__}")
    return tree


def _unreadable(path: Path, error: BaseException) -> CheckpointError:
    inner = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    said = " ".join(f"{type(error).__name__}: {inner}".split())[:120]
    return CheckpointError(
        f"not a readable weight file ({said})",
        where=path,
        remedy="it is cut short, damaged or of another format: fetch or copy it again",
    )
