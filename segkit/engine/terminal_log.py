"""The log on the terminal: progress, results and warnings. Everything goes to the file OUTPUT_DIR/log.txt."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from detectron2.utils.logger import setup_logger

from segkit.utils.terminal import EscapingStream

SHOWN = (
    "segkit",
    "detectron2.engine.train_loop",
    "detectron2.utils.events",
)
PROGRESS = ("Start inference", "Inference done")  # messages of other modules that are shown
DEBUG = "SEGKIT_DEBUG"


def shorten_terminal_log(output_dir: str, rank: int) -> None:
    """Show only a part of Detectron2's log on the terminal: not the environment, the config, the model's structure.

    SEGKIT_DEBUG=1 shows everything.

    Args:
        output_dir: folder of log.txt.
        rank: of this process; only rank 0 writes to the terminal.
    """
    if os.environ.get(DEBUG, "") not in ("", "0"):
        return
    # The same calls as in `default_setup`, which then finds these loggers.
    for logger in (
        setup_logger(output_dir, distributed_rank=rank, name="fvcore"),
        setup_logger(output_dir, distributed_rank=rank),
    ):
        for handler in logger.handlers:
            if not _is_file(handler) and not isinstance(handler.formatter, _FirstLine):
                handler.addFilter(_is_shown)
                handler.setFormatter(_FirstLine(handler.formatter or logging.Formatter()))


@contextmanager
def keep_records() -> Iterator[list[logging.LogRecord]]:
    """Keep what segkit logs while the block runs: before the checks, no file is written.

    Yields:
        The records so far, for `write_records`.
    """
    handler = _Keeper()
    logger = logging.getLogger("segkit")
    logger.addHandler(handler)
    try:
        yield handler.records
    finally:
        logger.removeHandler(handler)


def write_records(records: Iterable[logging.LogRecord]) -> None:
    """Write records to segkit's log file; the terminal has shown them.

    Args:
        records: of `keep_records`.
    """
    files = [handler for handler in logging.getLogger("segkit").handlers if _is_file(handler)]
    for record in records:
        for handler in files:
            handler.handle(record)


def call_before_records(function: Callable[[], None]) -> Callable[[], None]:
    """Call a function before each record that a handler writes to a terminal.

    Args:
        function: erases what the record must not be written into.

    Returns:
        A function that ends this.
    """

    def call(_record: logging.LogRecord) -> bool:
        function()
        return True

    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    handlers = {handler for logger in loggers if isinstance(logger, logging.Logger) for handler in logger.handlers}
    shown = [h for h in handlers if isinstance(h, logging.StreamHandler) and _is_terminal(h.stream)]
    for handler in shown:
        handler.addFilter(call)

    def end() -> None:
        for handler in shown:
            handler.removeFilter(call)

    return end


def _is_terminal(stream: Any) -> bool:
    stream = stream.stream if isinstance(stream, EscapingStream) else stream
    return not getattr(stream, "closed", True) and bool(stream.isatty())  # None: a file that is opened later


def _is_file(handler: logging.Handler) -> bool:
    """Whether a handler of `setup_logger` writes to its file; both kinds are StreamHandlers."""
    return "log.txt" in str(getattr(getattr(handler, "stream", None), "name", ""))


class _Keeper(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        record.msg, record.args = record.getMessage(), ()  # what another process can unpickle
        self.records.append(record)


def _is_shown(record: logging.LogRecord) -> bool:
    is_progress = record.getMessage().startswith(PROGRESS)
    return record.levelno >= logging.WARNING or record.name.startswith(SHOWN) or is_progress


class _FirstLine(logging.Formatter):
    """Shortens messages of many lines, such as the names of all weights that a file lacks."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self._formatter = formatter

    def format(self, record: logging.LogRecord) -> str:
        lines = [line for line in self._formatter.format(record).splitlines() if line.strip()]
        if record.getMessage().startswith("\n"):  # then the first line has only the time
            lines[:2] = ["".join(lines[:2])]
        first, *others = lines or [""]
        return f"{first} ({len(others)} more lines in log.txt)" if others else first
