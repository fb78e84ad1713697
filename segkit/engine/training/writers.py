"""Where the numbers of a training are written: a line of the log, `training.jsonl`, TensorBoard."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TextIO

from detectron2.engine import hooks
from detectron2.utils.events import EventWriter, TensorboardXWriter, get_event_storage

from segkit.utils.files import convert_write_errors, replacing

logger = logging.getLogger(__name__)


class Writers(hooks.PeriodicWriter):
    """Calls the writers at the end of each period and of the training, and gives the start to those of segkit.

    Args:
        writers: writers of segkit or of Detectron2.
    """

    def __init__(self, writers: Sequence[EventWriter]) -> None:
        super().__init__([*writers])

    def before_train(self) -> None:
        """See base class."""
        for writer in self._writers:
            if isinstance(writer, (NumbersWriter, TensorBoardWriter)):
                writer.start(self.trainer.start_iter)

    def after_step(self) -> None:
        """See base class."""
        if self.trainer.ends_period():
            for writer in self._writers:
                writer.write()

    def after_train(self) -> None:
        """See base class. After an error, numbers of a part of a period are left out."""
        for writer in self._writers:
            if self.trainer.is_finished:  # the last evaluation
                writer.write()
            if isinstance(writer, NumbersWriter):
                writer.is_finished = self.trainer.is_finished
            writer.close()


class NumbersWriter(EventWriter):
    """Base class of writers of numbers by iteration.

    A period gives the numbers of its last iteration. An evaluation between two periods has its own iteration, as the
    one after the training has.

    Args:
        period: iterations between two calls of `write`; 0: there is one at the end.

    Attributes:
        is_finished: the last iteration is done; set before `close`.
    """

    def __init__(self, period: int) -> None:
        self.is_finished = False
        self.window = max(1, period)  # of the median of numbers that are put at each iteration
        self._last_iteration = -1

    def start(self, first_iteration: int) -> None:
        """Begin the writing, before the first iteration.

        Args:
            first_iteration: above 0: the training is resumed.
        """
        self._last_iteration = first_iteration - 1

    def write(self) -> None:
        """Write what the storage has received since the last call."""
        numbers: dict[int, dict[str, float]] = {}
        for name, (value, iteration) in get_event_storage().latest_with_smoothing_hint(self.window).items():
            if iteration > self._last_iteration:
                numbers.setdefault(iteration, {})[name] = value
        for iteration, values in sorted(numbers.items()):
            self._last_iteration = iteration
            self.write_numbers(iteration, values)

    def write_numbers(self, iteration: int, numbers: Mapping[str, float]) -> None:
        """Write the numbers of an iteration.

        Args:
            iteration: from 0; rises from call to call.
            numbers: by name; they may be NaN or infinite.
        """
        raise NotImplementedError


class LogLine(NumbersWriter):
    """Writes a line to the log, with the names that scripts look for in Detectron2's line.

    Args:
        period: see base class.
    """

    def write_numbers(self, iteration: int, numbers: Mapping[str, float]) -> None:
        """See base class."""
        if "eta_seconds" in numbers:  # not for the numbers of an evaluation, which has its own lines
            logger.info("%s", format_line(iteration, numbers))


class JsonLines(NumbersWriter):
    """Writes a JSON object for each iteration with numbers. NaN and infinity, which JSON does not have, become null.

    Args:
        path: the file. A resumed training cuts off the lines of iterations that it repeats; one that starts from the
            beginning replaces the file.
        period: see base class.
    """

    def __init__(self, path: Path, period: int) -> None:
        super().__init__(period)
        self.path = path
        self._file: TextIO | None = None

    def start(self, first_iteration: int) -> None:
        """See base class."""
        super().start(first_iteration)
        kept = [line for line in _read_lines(self.path) if _read_iteration(line) < first_iteration]
        with replacing(self.path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def write_numbers(self, iteration: int, numbers: Mapping[str, float]) -> None:
        """See base class."""
        values = {name: value if math.isfinite(value) else None for name, value in sorted(numbers.items())}
        with convert_write_errors(self.path):
            self._file = self._file or self.path.open("a", encoding="utf-8")
            self._file.write(json.dumps({"iteration": iteration, **values}, allow_nan=False) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


class TensorBoardWriter(TensorboardXWriter):
    """Detectron2's writer; TensorBoard hides what an earlier run has written of iterations that are repeated.

    Args:
        folder: of the event files.
        period: iterations between two calls of `write`; 0: there is one at the end.
    """

    def __init__(self, folder: Path, period: int) -> None:
        super().__init__(str(folder), window_size=max(1, period))

    def start(self, first_iteration: int) -> None:
        """Set the first iteration.

        Args:
            first_iteration: above 0: the training is resumed.
        """
        self._writer_args["purge_step"] = first_iteration


def format_line(iteration: int, numbers: Mapping[str, float]) -> str:
    """Format the numbers of a period.

    Args:
        iteration: its last one, from 0.
        numbers: of `Speed`, losses, "lr", and what has "[metric]" in its name.

    Returns:
        As in ` eta: 0:10:00  iter: 19  total_loss: 2.5  loss_mask: 2.5  time: 0.1  data_time: 0.01 (10%)  ...`.
    """
    losses = {name: value for name, value in numbers.items() if "loss" in name}
    losses = {name: losses[name] for name in sorted(losses, key=lambda name: name != "total_loss")}
    others = {name: value for name, value in numbers.items() if "[metric]" in name}
    time, data_time = numbers["time"], numbers["data_time"]
    parts = [
        f"eta: {timedelta(seconds=int(numbers['eta_seconds']))}",
        f"iter: {iteration}",
        *(f"{name}: {value:.4g}" for name, value in {**losses, **others}.items()),
        *([] if losses else ["no finite loss"]),
        f"time: {time:.4f}",
        f"data_time: {data_time:.4f} ({data_time / time:.0%})",
        f"images/s: {numbers['images_per_second']:.3g}",
        *([f"lr: {numbers['lr']:.5g}"] if "lr" in numbers else []),
        *([f"max_mem: {numbers['max_mem_mb']:.0f}M"] if "max_mem_mb" in numbers else []),
    ]
    return " " + "  ".join(parts)


def _read_lines(path: Path) -> Iterator[str]:
    with convert_write_errors(path):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    yield from lines


def _read_iteration(line: str) -> float:
    """The iteration of a line; infinity if it is not whole, as after the end of a process that was killed."""
    try:
        return float(json.loads(line)["iteration"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return math.inf
