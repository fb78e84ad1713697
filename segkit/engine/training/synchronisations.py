"""Counts how often the host waits for the device: what keeps a GPU idle between its kernels."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# Operations whose result, or its size, the host has to read.
READING_OPERATIONS = {
    "_local_scalar_dense",  # item(), bool(), int(), float()
    "nonzero",
    "masked_select",
    "repeat_interleave",  # of a tensor of counts, unless the size of the result is given
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "bincount",
    "equal",
    "nms",
}
READING_METHODS = {torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu, torch.Tensor.__array__}
INDEXING_OPERATIONS = {"index", "index_put", "index_put_"}


@contextmanager
def count_synchronisations(device: torch.device | str) -> Iterator[Counter[str]]:
    """Count the synchronisations of a block, of all threads on a GPU and of this one on a CPU.

    Copies from pageable memory to the GPU count too. Waiting for an event or a stream does not.

    Args:
        device: "cuda": those that CUDA warns of, by file and line; "cpu": the operations that would wait on a GPU, by
            name. They are counted for tensors that would not be on the GPU too.

    Yields:
        The counts; they are complete at the end of the block.
    """
    counts: Counter[str] = Counter()
    if torch.device(device).type != "cuda":
        with _Methods(counts), _Operations(counts):
            yield counts
        return
    torch.cuda.synchronize()
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield counts
        finally:
            torch.cuda.set_sync_debug_mode(before)
    for warning in caught:
        if "synchroniz" in str(warning.message):
            counts[f"{Path(warning.filename).name}:{warning.lineno}"] += 1


class _Operations(TorchDispatchMode):
    def __init__(self, counts: Counter[str]) -> None:
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        has_size = name == "repeat_interleave" and kwargs.get("output_size") is not None
        fills = name == "index_put_" and args[2].dim() == 0  # by masked_fill
        is_index = name in INDEXING_OPERATIONS and not fills
        if (name in READING_OPERATIONS and not has_size) or (is_index and _has_mask(args[1])):
            self.counts[name] += 1
        return func(*args, **kwargs)


class _Methods(TorchFunctionMode):
    def __init__(self, counts: Counter[str]) -> None:
        super().__init__()
        self.counts = counts

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in READING_METHODS:  # they read a CPU's memory without an operation
            self.counts[func.__name__] += 1
        return func(*args, **(kwargs or {}))


def _has_mask(indices: Any) -> bool:
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)
