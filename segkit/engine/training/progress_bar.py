"""A progress bar below the log, if stderr is a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from detectron2.engine import HookBase
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from segkit.engine.terminal_log import call_before_records
from segkit.utils.console import open_console

REFRESH_SECONDS = 0.1


class ProgressBar(HookBase):
    """Draws the bar after steps. Before a line of the log the bar is erased; the next step draws it again."""

    def __init__(self) -> None:
        self._console = open_console(stderr=True)
        self._bar: Progress | None = None
        self._drawn_at = 0.0
        self._stop_watching: Callable[[], None] | None = None

    def before_train(self) -> None:
        """See base class."""
        if self._console.is_interactive and self._console.file.isatty():  # the environment may force the first one
            self._stop_watching = call_before_records(self._erase)

    def after_step(self) -> None:
        """See base class."""
        if self._stop_watching is not None and time.monotonic() - self._drawn_at >= REFRESH_SECONDS:
            self._draw()
            self._drawn_at = time.monotonic()

    def after_train(self) -> None:
        """See base class."""
        self._erase()
        if self._stop_watching is not None:
            self._stop_watching()
        self._stop_watching = None

    def _draw(self) -> None:
        if self._bar is None:
            eta_column = TextColumn("{task.fields[eta]}")
            columns = TextColumn("training"), BarColumn(), MofNCompleteColumn(), eta_column
            # No thread draws it: the worker processes would be forked with its locks.
            self._bar = Progress(
                *columns,
                console=self._console,
                transient=True,
                auto_refresh=False,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._bar.add_task("", total=self.trainer.max_iter, eta="")
            self._bar.start()
        eta = self.trainer.storage.latest().get("eta_seconds")
        text = f"eta {timedelta(seconds=int(eta[0]))}" if eta else ""
        self._bar.update(self._bar.task_ids[0], completed=self.trainer.iter + 1, eta=text, refresh=True)

    def _erase(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar = None
