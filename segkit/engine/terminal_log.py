"""The log on the terminal: progress, results and warnings. Everything goes to the file OUTPUT_DIR/log.txt."""

from __future__ import annotations

import logging
import os
import sys

from detectron2.utils.logger import setup_logger

SHOWN = (
    "segkit",
    "detectron2.engine.train_loop",
    "detectron2.utils.events",
)
PROGRESS = ("Start inference", "Inference done", "Overall training speed")  # messages of other modules that are shown
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
            is_terminal = isinstance(handler, logging.StreamHandler) and handler.stream is sys.stdout
            if is_terminal and not isinstance(handler.formatter, _FirstLine):
                handler.addFilter(_is_shown)
                handler.setFormatter(_FirstLine(handler.formatter or logging.Formatter()))


def _is_shown(record: logging.LogRecord) -> bool:
    is_progress = record.getMessage().startswith(PROGRESS)
    return record.levelno >= logging.WARNING or record.name.startswith(SHOWN) or is_progress


class _FirstLine(logging.Formatter):
    """Shortens messages of many lines, such as the names of all weights that a file lacks."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self._formatter = formatter

    def format(self, record: logging.LogRecord) -> str:
        first, *others = self._formatter.format(record).splitlines() or [""]
        return f"{first} ({len(others)} more lines in log.txt)" if others else first
