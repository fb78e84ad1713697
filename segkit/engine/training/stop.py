"""A request to end the training: the signal sets a flag, and the loop saves and ends at the end of a step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

# SIGTERM: pre-emption, `scancel`, Kubernetes, torchrun. SIGUSR2: before a time limit, see `sbatch --signal`.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR2") if hasattr(signal, name))


class StopRequest:
    """Notes the first signal while it is used in a `with` block; then the signals have their earlier handlers.

    Attributes:
        number: number of the signal; 0: none has come.
    """

    def __init__(self) -> None:
        self.number = 0
        self._earlier: dict[int, Callable[..., Any] | int | None] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # no other thread gets signals
            self._earlier = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _traceback: TracebackType | None) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    def request(self, number: int) -> None:
        """Ask for the end as a signal does.

        Args:
            number: number of the signal.
        """
        self.number = self.number or number

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.request(number)
