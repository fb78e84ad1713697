"""Hooks of the training loop, by Detectron2's protocol: checkpoints and evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import detectron2.utils.comm as comm
from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict

from segkit.engine.checkpoints.newest import FINAL_WEIGHTS


class Checkpoints(HookBase):
    """Saves the training every `period` iterations and at its end.

    Args:
        period: in iterations; 0: only at the end.
    """

    def __init__(self, period: int) -> None:
        self.period = period

    def after_step(self) -> None:
        """See base class."""
        if self.period > 0 and (self.trainer.iter + 1) % self.period == 0:
            self.trainer.save()
        if self.trainer.iter + 1 >= self.trainer.max_iter:
            self.trainer.checkpointer.save(FINAL_WEIGHTS.partition(".")[0], iteration=self.trainer.iter)


class Evaluation(HookBase):
    """Evaluates every `period` iterations and at the end, and writes the numbers to the storage.

    Args:
        period: in iterations; 0: only at the end.
    """

    def __init__(self, period: int) -> None:
        self.period = period

    def after_step(self) -> None:
        """See base class."""
        done = self.trainer.iter + 1
        if self.period > 0 and done % self.period == 0 and done < self.trainer.max_iter:
            self.trainer.save()  # the evaluation takes long, and a job may be ended in it
            self._evaluate()

    def after_train(self) -> None:
        """See base class."""
        if self.trainer.is_finished:
            self._evaluate()

    def _evaluate(self) -> None:
        averaged = self.trainer.ema.applied() if self.trainer.ema else nullcontext()
        with self.trainer.stop_request.raising(), averaged:
            self.trainer.results = self.trainer.test(self.trainer.cfg, self.trainer.model)
        if numbers := flatten_results_dict(select_numbers(self.trainer.results)):
            self.trainer.storage.put_scalars(**numbers, smoothing_hint=False)
        comm.synchronize()  # the evaluation takes longer on the main process


def select_numbers(results: Mapping[str, Any]) -> dict[str, Any]:
    """The results without tables per class, undefined metrics and notes, in the form that Detectron2's hooks accept."""
    numbers: dict[str, Any] = {}
    for key, value in results.items():
        if isinstance(value, Mapping) and key != "per_class":
            numbers[key] = select_numbers(value)
        elif isinstance(value, (int, float)):
            numbers[key] = float(value)
    return numbers
