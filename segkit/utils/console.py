"""Rich consoles for tables and progress bars. Texts are shown, and never obeyed: see `segkit.utils.terminal`."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from segkit.utils.terminal import LINE_CHARACTERS, EscapingStream
from segkit.utils.text import make_printable


def open_console(stderr: bool = False) -> Console:
    """Make a rich console for tables and progress bars. Texts are no markup: `[red]` and `:cat:` are shown as they are.

    Args:
        stderr: write to stderr instead of stdout.

    Returns:
        The console.
    """
    stream = sys.stderr if stderr else sys.stdout
    file = stream.stream if isinstance(stream, EscapingStream) else None  # None: rich looks the stream up
    return _SafeConsole(file=file, stderr=stderr, markup=False, emoji=False)


class _SafeConsole(Console):
    """A rich console that escapes the texts which it draws, but not its own codes."""

    def on_broken_pipe(self) -> None:
        """Let a closed pipe end a command as `print` would: rich would end it with the exit code 1."""
        if threading.current_thread() is not threading.main_thread():
            sys.exit()  # the thread that refreshes a progress bar
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else make_printable(segment.text, LINE_CHARACTERS)
            yield Segment(text, segment.style, segment.control)
