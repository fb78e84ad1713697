"""The peak of memory of a piece of work, measured in a forked process of its own (Linux)."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

from segkit.utils import memory


def peak_mib(work: Callable[..., Any], inputs: tuple[Any, ...], first: tuple[Any, ...]) -> float:
    """Memory in MiB that `work(*inputs)` takes beyond the memory in use before.

    `work(*first)` is done before, since the pages of libraries count from their first use.
    """
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=_send_peak, args=(work, inputs, first, sender))
    process.start()
    sender.close()  # so that a process that fails is not waited for
    try:
        peak: float = receiver.recv()
    except EOFError:
        raise SystemExit("the measurement of memory failed") from None
    process.join()
    return peak


def _send_peak(work: Callable[..., Any], inputs: tuple[Any, ...], first: tuple[Any, ...], sender: Any) -> None:
    work(*first)
    memory.release_free_memory()  # else the process may reuse memory that it freed, and seem to take none
    memory.reset_peak()
    before = memory.read_peak_mib()
    work(*inputs)
    sender.send(memory.read_peak_mib() - before)
