"""A request to end the process becomes an exception, so that `finally` blocks remove what is half-written."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

# What kill, timeout, Slurm and Docker send, and a terminal that closes; USR2: what Slurm sends before a time limit.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGUSR2") if hasattr(signal, name))
SIGNAL_BASE = 128  # a shell's exit code of a process that a signal ended is SIGNAL_BASE + its number
AGAIN_SECONDS = 0.01  # from a `Terminated` that Python ignored to the next one


class Terminated(SystemExit):
    """The process was asked to end.

    Args:
        number: number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(SIGNAL_BASE + number)
        self.number = number


def raise_terminated(number: int, _frame: FrameType | None = None) -> None:
    """Signal handler that raises `Terminated` once; further signals do not disturb the cleaning up.

    Python ignores exceptions in callbacks, such as those of a fork, and in `__del__`: `Terminated` is then raised
    again. Others that it ignores are not reported any more: they come of what was cut short.

    Args:
        number: number of the signal.
        _frame: unused.

    Raises:
        Terminated: always.
    """
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    sys.unraisablehook = _raise_ignored_again
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
    hook = sys.excepthook
    try:
        # The processes of a data loader print a traceback, by a hook that they inherit, if this process ends before.
        sys.excepthook = partial(_hide_lost_connections, hook=hook)
        for number, handler in earlier.items():
            if handler == signal.SIG_DFL:
                signal.signal(number, raise_terminated)
        yield
    finally:
        sys.excepthook = hook
        for number, handler in earlier.items():
            signal.signal(number, handler)


@contextmanager
def holding_back() -> Iterator[None]:
    """Hold back interrupts and requests to end until the end of the block, which starts processes for example.

    A process that the block starts holds them back too, until it calls `stop_holding_back`.

    Yields:
        Nothing.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    held_back = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *SIGNALS})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held_back)


def stop_holding_back() -> None:
    """Let a process that was started in a block of `holding_back` get signals."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, *SIGNALS})


def _hide_lost_connections(kind: type[BaseException], *error_and_traceback: Any, hook: Callable[..., Any]) -> None:
    if not issubclass(kind, ConnectionError):
        hook(kind, *error_and_traceback)


def _raise_ignored_again(unraisable: Any) -> None:
    """`sys.unraisablehook` that lets a timer raise an ignored `Terminated` again."""
    error = unraisable.exc_value
    if isinstance(error, Terminated) and hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, partial(_raise_alarm, number=error.number))
        signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)


def _raise_alarm(_alarm: int, _frame: FrameType | None, number: int) -> None:
    raise_terminated(number)
