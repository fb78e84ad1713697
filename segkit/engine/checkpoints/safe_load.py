"""Weight files are read without running what they hold: a pickle is a program, and weights come from strangers.

PyTorch files go through `torch.load(weights_only=True)`. The `.pkl` files of the Detectron2, Caffe2 and MSRA zoos go
through a pickle machine that knows only the instructions and the few constructors that such files need; numpy's own
unpickling code is not among them, arrays are rebuilt here from their checked parts.
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

from segkit.engine.checkpoints.zoo_pickle import PickledArray, Refused, ZooUnpickler
from segkit.utils.errors import CheckpointError

RESAVE = (
    "nothing of it was run: where you trust its source, load it there and save the bare weights, "
    "`torch.save(model.state_dict(), 'weights.pth')`"
)


def load_torch(path: str | Path) -> dict[str, Any]:
    """The dict in a file that `torch.save` wrote, tensors on the CPU, read with `weights_only=True`.

    Returns a tree of dict, list, tuple, str, bytes, int, float, bool, None and dense tensors. Raises CheckpointError
    naming the file, and the refused global where it holds anything else; no code of the file has run by then.
    """
    path = _existing(path)
    try:
        if tarfile.is_tarfile(path) or _is_torchscript(path):
            # torch < 2.6 reads both by other doors, which weights_only does not guard (CVE-2025-32434).
            raise Refused("a TorchScript or tar archive, not a state dict")
        with warnings.catch_warnings():  # of pickle protocols; what cannot be read is told below
            warnings.simplefilter("ignore", UserWarning)
            return _as_dict(torch.load(path, map_location="cpu", weights_only=True))
    except pickle.UnpicklingError as error:
        raise _torch_refusal(path, error) from error
    except Refused as error:
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
            return _as_dict(ZooUnpickler(file, encoding="latin1").load())
    except Refused as error:
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
            raise Refused(f"a container that holds itself, at {key or 'the top'!r}")
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
        if kind is PickledArray:
            return value.resolve()
        if isinstance(value, (np.number, np.bool_)):
            return value.item()
        raise Refused(f"refused {kind.__module__}.{kind.__qualname__} at {key or 'the top'!r}")

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
        raise Refused(f"expected a dict of weights, got {type(tree).__name__}")
    return tree


def _unreadable(path: Path, error: BaseException) -> CheckpointError:
    inner = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    said = " ".join(f"{type(error).__name__}: {inner}".split())[:120]
    return CheckpointError(
        f"not a readable weight file ({said})",
        where=path,
        remedy="it is cut short, damaged or of another format: fetch or copy it again",
    )
