"""The peak of memory of a piece of work, measured in a forked process of its own (Linux)."""

from __future__ import annotations

import ctypes
import multiprocessing
import resource
from collections.abc import Callable
from typing import Any


def peak_mib(work: Callable[..., Any], inputs: tuple[Any, ...], tiny: tuple[Any, ...]) -> float:
    """Memory in MiB that `work(*inputs)` takes beyond the memory in use before.

    `work(*tiny)` is done first, since the pages of libraries count from their first use.
    """
    ctypes.CDLL(None).malloc_trim(0)  # else the process may reuse memory that this one freed, and seem to take none
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=_send_peak, args=(work, inputs, tiny, sender))
    process.start()
    peak: float = receiver.recv()
    process.join()
    return peak


def _send_peak(work: Callable[..., Any], inputs: tuple[Any, ...], tiny: tuple[Any, ...], sender: Any) -> None:
    work(*tiny)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work(*inputs)
    sender.send((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
