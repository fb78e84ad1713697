"""Weight files are read without running their code: a pickle is a program, and weights are downloaded.

PyTorch files are read by `torch.load(weights_only=True)`. The `.pkl` files of the Detectron2, Caffe2 and MSRA zoos are
read by an unpickler that knows only the instructions and the few constructors that such files need. It does not call
numpy's unpickling code: arrays are rebuilt from their checked parts.
"""

from __future__ import annotations

import pickle
import re
import tarfile
import warnings
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segkit.engine.checkpoints.footer import DAMAGED, DamagedFileError, check_whole
from segkit.engine.checkpoints.limits import check_archive, check_pickle, check_tree
from segkit.engine.checkpoints.zoo_pickle import PickledArray, UnsafeDataError, ZooUnpickler
from segkit.utils.errors import CheckpointError
from segkit.utils.files import read_bytes

HEAD_BYTES = 512  # of a file that is no weight file: they say what it is
LFS_POINTER = re.compile(rb"version https://git-lfs\S*\s.*?\bsize (\d+)", re.DOTALL)
MAX_ARRAY_RATIO = 4  # bytes of a file's arrays to bytes of the file
RESAVE = (
    "no code of it was run: if you trust its source, load it with torch and save the bare weights, "
    "`torch.save(model.state_dict(), 'weights.pth')`"
)


def load_torch(path: str | Path, *, check: bool = True, mmap: bool = False) -> dict[str, Any]:
    """Read a file that `torch.save` wrote, without running code of the file.

    Args:
        path: the file.
        check: test every byte first, see `check_whole`.
        mmap: read a tensor when it is used, from the file, which must stay until then.

    Returns:
        A tree of dict, list, tuple, str, bytes, int, float, bool, None and dense tensors on the CPU.

    Raises:
        CheckpointError: the file is missing or damaged, or holds anything else; names the refused global.
    """
    path = _check_file(path)
    try:
        if check:
            check_whole(path)
        if _is_zip(path):
            check_archive(path)
        if tarfile.is_tarfile(path) or _is_torchscript(path):
            # weights_only does not guard how torch < 2.6 reads these (CVE-2025-32434).
            raise UnsafeDataError("a TorchScript or tar archive, not a state dict")
        if not _is_zip(path):
            with path.open("rb") as file:
                check_pickle(file)
        with warnings.catch_warnings():  # torch warns of pickle protocols; unreadable files raise errors below
            warnings.simplefilter("ignore", UserWarning)
            mmap = mmap and _is_zip(path)
            return _as_dict(torch.load(path, map_location="cpu", weights_only=True, mmap=mmap))
    except Exception as error:
        raise _convert_error(path, error) from error


def load_pickle(path: str | Path) -> dict[str, Any]:
    """Read a zoo's `.pkl` file, pickled by Python 2 or 3 (protocols 0 to 5), without running code of the file.

    Args:
        path: the file. Its byte strings are decoded as latin1.

    Returns:
        A tree of dict, list, tuple, str, bytes, int, float, bool, None and numpy arrays of numbers (writable, in this
        machine's byte order).

    Raises:
        CheckpointError: as in `load_torch`.
    """
    path = _check_file(path)
    try:
        with path.open("rb") as file:
            check_pickle(file)
            file.seek(0)
            return _as_dict(ZooUnpickler(file, encoding="latin1").load(), MAX_ARRAY_RATIO * path.stat().st_size)
    except Exception as error:
        raise _convert_error(path, error) from error


def to_plain_data(value: Any) -> Any:
    """Copy a tree of containers, so that the copy holds nothing but data.

    Subclasses (OrderedDict, Counter, torch.Size, Parameter, numpy scalars) become plain dict, tuple, tensor and number.
    The `_metadata` of a state dict is kept.

    Args:
        value: the tree.

    Returns:
        The copy. Its tensors share their storage with the given ones.

    Raises:
        UnsafeDataError: an object of any other type; a numpy array, since `load_torch` cannot read it back; a
            container that holds itself.
    """
    return _Copier().copy(value, "")


class _Copier:
    """One call of `to_plain_data`. `copies`: id of an object -> its copy, so that shared branches are copied once.

    `array_bytes`: that arrays may have yet; a file can use the same bytes for many arrays.
    """

    def __init__(self, array_bytes: int = 0) -> None:
        self.copies: dict[int, Any] = {}
        self.array_bytes = array_bytes

    def copy(self, value: Any, key: str) -> Any:
        if value is None or type(value) in (str, bytes, int, float, bool):
            return value
        if id(value) not in self.copies:
            self.copies[id(value)] = _CYCLE
            self.copies[id(value)] = self._copy(value, key)
        if self.copies[id(value)] is _CYCLE:
            raise UnsafeDataError(f"a container that holds itself, at {key or 'the top'!r}")
        return self.copies[id(value)]

    def _copy(self, value: Any, key: str) -> Any:
        kind = type(value)
        if kind in (dict, OrderedDict, Counter):
            return self._copy_dict(value, key)
        if kind in (list, tuple, torch.Size):
            items = [self.copy(item, f"{key}[{i}]") for i, item in enumerate(value)]
            return items if kind is list else tuple(items)
        if kind in (torch.Tensor, torch.nn.Parameter) and _is_dense(value):
            return torch.Tensor.detach(value)
        if kind is PickledArray:
            array = value.resolve()
            self.array_bytes -= array.nbytes
            if self.array_bytes < 0:
                raise UnsafeDataError(f"has arrays of more than {MAX_ARRAY_RATIO} times the size of the file")
            return array
        if isinstance(value, (np.number, np.bool_)):
            return value.item()
        raise UnsafeDataError(f"refused {kind.__module__}.{kind.__qualname__} at {key or 'the top'!r}")

    def _copy_dict(self, value: dict[Any, Any], key: str) -> dict[Any, Any]:
        prefix = f"{key}." if key else ""
        # dict.items: a hostile OrderedDict could have an attribute `items` of its own
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


def _check_file(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise CheckpointError("no such file" if not path.exists() else "not a file", where=path)
    head = read_bytes(path, HEAD_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(b"<"):  # which begins no pickle and no zip
        problem = "a web page (HTML or XML), not a weight file"
        raise DamagedFileError(problem, where=path, remedy="open it to see what the server says, then download again")
    if pointer := LFS_POINTER.match(head):
        problem = f"a git LFS pointer to a file of {int(pointer[1])} bytes, not a weight file"
        raise DamagedFileError(problem, where=path, remedy="fetch the file itself, as with `git lfs pull`")
    return path


def _is_torchscript(path: Path) -> bool:
    """Whether torch would take the file for a TorchScript archive, according to torch's own zip reader."""
    if not _is_zip(path):
        return False
    reader: Any = torch._C.PyTorchFileReader(str(path))  # Any: the stubs of torch 2.4 lack a method
    return "constants.pkl" in reader.get_all_records()


def _is_zip(path: Path) -> bool:
    return read_bytes(path, 4) == b"PK\x03\x04"


def _convert_error(path: Path, error: Exception) -> CheckpointError:
    """What was refused, or how the file is damaged; without torch's page of advice."""
    if isinstance(error, CheckpointError):
        return error
    if isinstance(error, UnsafeDataError):
        return CheckpointError(str(error), where=path, remedy=RESAVE)
    if isinstance(error, pickle.UnpicklingError):  # from torch's restricted unpickler, or a damaged file
        if refused := re.search(r"GLOBAL ([^\s,]+)", str(error)):
            return CheckpointError(f"refused the global {refused[1]}", where=path, remedy=RESAVE)
        if "Unsupported operand" in str(error) and not _is_zip(path):
            # A plain pickle of protocol 4 or 5: our unpickler reads on, up to the global that it refuses.
            try:
                load_pickle(path)
            except CheckpointError as refusal:
                return refusal
    cause = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    cause = " ".join(f"{type(error).__name__}: {cause}".split())[:120]
    return DamagedFileError(f"not a readable weight file ({cause})", where=path, remedy=DAMAGED)


def _as_dict(loaded: Any, array_bytes: int = 0) -> dict[str, Any]:
    check_tree(loaded)
    tree = _Copier(array_bytes).copy(loaded, "")
    if not isinstance(tree, dict):
        raise UnsafeDataError(f"expected a dict of weights, got {type(tree).__name__}")
    return tree
