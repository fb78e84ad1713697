"""How fast a training is: time of an iteration, images a second, time until the end, memory of the GPU."""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from typing import Any

import torch
from detectron2.engine import HookBase

WARM_UP = 3  # iterations that are left out of the overall speed, as in Detectron2
ETA_PERIODS = 50  # the remaining time follows from the median of so many periods

logger = logging.getLogger(__name__)


class Speed(HookBase):
    """Measures the steps, and writes means over each period to the storage.

    They are: `time`, seconds of an iteration without evaluations and checkpoints; `data_time`, those that the main
    process waits for images; `images_per_second`, of all processes; `eta_seconds`, until the end; `max_mem_mb`, the
    most GPU memory so far.

    It must be the first hook. `trainer.data_seconds` is the time waited for images so far.

    Args:
        images: of a step, over all processes.
    """

    def __init__(self, images: int) -> None:
        self.images = images
        self._steps, self._seconds, self._data_seconds = 0, 0.0, 0.0  # of the period
        self._all_steps, self._all_seconds = -WARM_UP, 0.0
        self._step_begin = self._begin = 0.0

    def before_train(self) -> None:
        """See base class."""
        self._begin = time.perf_counter()

    def before_step(self) -> None:
        """See base class."""
        self._step_begin = time.perf_counter()

    def after_step(self) -> None:
        """See base class."""
        seconds = time.perf_counter() - self._step_begin
        self._steps, self._seconds = self._steps + 1, self._seconds + seconds
        self._all_steps += 1
        self._all_seconds += seconds if self._all_steps > 0 else 0.0
        if self.trainer.ends_period():
            self.trainer.storage.put_scalars(**self._compute_numbers(), smoothing_hint=False)
            self._steps, self._seconds, self._data_seconds = 0, 0.0, self.trainer.data_seconds

    def after_train(self) -> None:
        """See base class."""
        seconds, steps = self._all_seconds, self._all_steps
        if steps > 0:  # scripts look for this text of Detectron2's
            text = "Overall training speed: %d iterations in %s (%.4f s / it)"
            logger.info(text, steps, timedelta(seconds=int(seconds)), seconds / steps)
        logger.info("Total training time: %s", timedelta(seconds=int(time.perf_counter() - self._begin)))

    def _compute_numbers(self) -> dict[str, float]:
        trainer: Any = self.trainer
        seconds = self._seconds / self._steps
        recent = [value for value, _ in trainer.storage.histories()["time"].values()[1 - ETA_PERIODS :]]
        median = sorted([*recent, seconds])[len(recent) // 2]
        numbers = {
            "time": seconds,
            "data_time": (trainer.data_seconds - self._data_seconds) / self._steps,
            "images_per_second": self.images / seconds,
            "eta_seconds": median * (trainer.max_iter - trainer.iter - 1),
        }
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            numbers["max_mem_mb"] = torch.cuda.max_memory_allocated() / 2**20
        return numbers
