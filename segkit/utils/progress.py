"""Progress bars on stderr."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from segkit.utils import process_pool
from segkit.utils.console import open_console

REFRESH_SECONDS = 0.1
Item = TypeVar("Item")


@contextmanager
def progress_bar(title: str) -> Iterator[process_pool.Progress]:
    """Show a bar on stderr while the block runs, and remove it at the end.

    The bar is drawn by the calls. A thread of its own would be forked into the worker processes, with its locks.

    Args:
        title: text before the bar.

    Yields:
        A function to call with (items done, items in all). It does nothing if stderr is not a terminal.
    """
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = open_console(stderr=True)
    if not console.is_terminal:
        yield lambda done, total: None
        return
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as bar:
        task = bar.add_task(title, total=None)
        drawn_at = 0.0

        def show(done: int, total: int) -> None:
            nonlocal drawn_at
            is_due = time.monotonic() - drawn_at >= REFRESH_SECONDS
            drawn_at = time.monotonic() if is_due else drawn_at
            bar.update(task, completed=done, total=total, refresh=is_due)

        yield show


def track(items: Sequence[Item], title: str) -> Iterator[Item]:
    """Give the items one by one and show how many are done.

    Args:
        items: any sequence.
        title: text before the bar.

    Yields:
        The items, in their order.
    """
    with progress_bar(title) as show:
        for done, item in enumerate(items, 1):
            yield item
            show(done, len(items))
