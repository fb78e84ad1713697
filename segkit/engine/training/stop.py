"""A request to end the training: the signal sets a flag, and the loop saves and ends at the end of a step.

Slurm and torchrun go on from the saved state: the job is started again with `--resume`.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from segkit.utils.signals import Terminated

# SIGTERM: pre-emption, `scancel`, Kubernetes, torchrun. SIGUSR2: before a time limit, see `sbatch --signal`.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR2") if hasattr(signal, name))


class StopRequest:
    """Notes the first signal while it is used in a `with` block; then the signals have their earlier handlers.

    Attributes:
        number: number of the signal; 0: none has come.
    """

    def __init__(self) -> None:
        self.number = 0
        self._raises = False
        self._earlier: dict[int, Callable[..., Any] | int | None] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # no other thread gets signals
            self._earlier = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _traceback: TracebackType | None) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    @contextmanager
    def raising(self) -> Iterator[None]:
        """Raise in the block at once, since it takes long and changes nothing that would have to be saved.

        Yields:
            Nothing.

        Raises:
            Terminated: a signal has come, before the block or in it.
        """
        self._raises = True
        try:
            if self.number:
                raise Terminated(self.number)
            yield
        finally:
            self._raises = False

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.number = self.number or number
        if self._raises:
            self._raises = False  # a second signal does not disturb the end
            raise Terminated(self.number)
