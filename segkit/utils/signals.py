"""A request to end the process becomes an exception, so that `finally` blocks remove what is half-written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# What kill, timeout, Slurm and Docker send, and a terminal that closes.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
SIGNAL_BASE = 128  # a shell's exit code of a process that a signal ended is SIGNAL_BASE + its number


class Terminated(SystemExit):
    """The process was asked to end.

    Args:
        number: number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(SIGNAL_BASE + number)


def raise_terminated(number: int, _frame: FrameType | None = None) -> None:
    """Signal handler that raises `Terminated` once; further signals do not disturb the cleaning up.

    Args:
        number: number of the signal.
        _frame: unused.

    Raises:
        Terminated: always.
    """
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise Terminated(number)


@contextmanager
def raising_terminated() -> Iterator[None]:
    """Raise `Terminated` in the block if the process is asked to end. Ignored signals stay ignored, as under nohup.

    Yields:
        Nothing. Does nothing in another thread than the main one, which alone gets signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        for number, handler in earlier.items():
            if handler == signal.SIG_DFL:
                signal.signal(number, raise_terminated)
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
