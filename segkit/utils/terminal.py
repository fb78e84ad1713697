"""What reaches the terminal: names of files and classes are shown, and never obeyed.

Python's print, argparse, warnings and libraries write to sys.stdout and sys.stderr, which `escape_output` guards.
Tables and progress bars have colors of their own: `segkit.utils.console` escapes their texts, `color_logs` those of
logs.
"""

from __future__ import annotations

import io
import logging
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from segkit.utils.text import make_printable

LINE_CHARACTERS = "\n\t"
COLOR = re.compile(r"(\x1b\[[0-9;]*m)")  # the group: split() keeps it


class EscapingStream:
    """A text stream that escapes control characters, except line ends and tabs.

    It says that it is no terminal, so that libraries write no colors to it.

    Args:
        stream: the stream to write to.
        allow_colors: whether codes of colors pass.
    """

    def __init__(self, stream: TextIO, allow_colors: bool = False) -> None:
        self.stream = stream
        self.allow_colors = allow_colors

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write escaped text.

        Args:
            text: any text. A carriage return at its start stays: libraries draw progress bars with it.

        Returns:
            The length of the text before it is escaped.
        """
        start = "\r" if text.startswith("\r") else ""
        parts = COLOR.split(text[len(start) :]) if self.allow_colors else [text[len(start) :]]
        codes = range(1, len(parts), 2)
        escaped = [part if i in codes else make_printable(part, LINE_CHARACTERS) for i, part in enumerate(parts)]
        self.stream.write(start + "".join(escaped))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write escaped lines.

        Args:
            lines: texts with their line ends.
        """
        for line in lines:
            self.write(line)

    def isatty(self) -> bool:
        """Whether colors may be written.

        Returns:
            False.
        """
        return False


class _SafeRecord(logging.LogRecord):
    """A log record whose message and traceback are escaped. Colors of a library are taken out of the message."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.exc_info:
            self.exc_text = make_printable(logging.Formatter().formatException(self.exc_info), LINE_CHARACTERS)

    def getMessage(self) -> str:  # noqa: N802 - logging's name
        return make_printable(COLOR.sub("", super().getMessage()), LINE_CHARACTERS)


@contextmanager
def escape_output() -> Iterator[None]:
    """Escape control characters in all that the block writes to stdout, stderr and logs.

    Characters that the terminal's encoding lacks are escaped too, instead of raising an error.

    Yields:
        Nothing.
    """
    streams, factory = (sys.stdout, sys.stderr), logging.getLogRecordFactory()
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = (_wrap(stream) for stream in streams)
    logging.setLogRecordFactory(_SafeRecord)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams
        logging.setLogRecordFactory(factory)


def color_logs() -> None:
    """Let the handlers of logs write their own colors to a stream of `escape_output`."""
    for logger in [logging.root, *logging.root.manager.loggerDict.values()]:
        for handler in logger.handlers if isinstance(logger, logging.Logger) else ():
            if not isinstance(handler, logging.StreamHandler) or not isinstance(handler.stream, EscapingStream):
                continue
            if not handler.stream.closed:
                handler.setStream(EscapingStream(handler.stream.stream, allow_colors=True))


def _wrap(stream: Any) -> Any:
    return stream if stream is None or isinstance(stream, EscapingStream) else EscapingStream(stream)
