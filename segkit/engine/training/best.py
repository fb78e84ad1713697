"""The best result of a training so far, by one metric, and how long ago it was."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from segkit.utils.text import suggest

logger = logging.getLogger(__name__)

AUTO = "auto"  # of TEST.BEST_METRIC
AUTO_METRICS = ("panoptic_seg/PQ", "segm/AP", "sem_seg/mIoU")  # the first that an evaluation has


class BestResult:
    """Compares the evaluations of a training by one metric; higher is better, and of equal ones the first.

    Args:
        metric: its name, as "segm/AP", or the end of it, as "AP50"; of several test datasets the first that has it.
            "auto": the first of `AUTO_METRICS` that the first evaluation has, otherwise its first metric.
            "": nothing is compared.
        step: what is counted, for the log.

    Attributes:
        name: the metric with its task, and dataset if there are several; "" before the first evaluation.
        value: the highest so far; None before the first.
        iteration: iterations that were done then.
        without_gain: evaluations since then.
        evaluated: iterations that were done at the last evaluation.
    """

    def __init__(self, metric: str, step: str = "iteration") -> None:
        self.metric, self.step = metric, step
        self.name = ""
        self.value: float | None = None
        self.iteration = self.without_gain = self.evaluated = 0

    def update(self, iteration: int, numbers: Mapping[str, float]) -> bool:
        """Compare an evaluation; a second one of the same iteration is ignored.

        Args:
            iteration: iterations that were done.
            numbers: metric -> value, with "/" between dataset, task and metric. Undefined ones are missing or NaN.

        Returns:
            Whether it is the best so far.
        """
        if not self.metric or not numbers or iteration == self.evaluated:
            return False
        self.evaluated = iteration
        defined = {name: value for name, value in numbers.items() if math.isfinite(value)}
        self.name = self.name or self._select(defined)
        value = defined.get(self.name)
        if value is None:
            remedy = suggest(self.metric, defined, f"the results are {', '.join(defined) or 'all undefined'}")
            text = "%s %d: the evaluation has no metric %s to compare (TEST.BEST_METRIC); %s"
            logger.warning(text, self.step, iteration, self.name or self.metric, remedy)
            return False
        if self.value is not None and value <= self.value:
            self.without_gain += 1
            return False
        self.value, self.iteration, self.without_gain = value, iteration, 0
        logger.info("%s %d: %s %.3f is the best so far", self.step, iteration, self.name, value)
        return True

    def state_dict(self) -> dict[str, Any]:
        """All attributes."""
        return dict(vars(self))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; with another metric, start again.

        Args:
            state: of `state_dict`.
        """
        if state["metric"] == self.metric:
            vars(self).update(state)
        else:
            logger.warning("TEST.BEST_METRIC was %r, now %r: the best starts again", state["metric"], self.metric)

    def _select(self, numbers: Mapping[str, float]) -> str:
        """The full name of the metric; "" if there is none."""
        wanted = AUTO_METRICS if self.metric == AUTO else (self.metric,)
        matches = (name for end in wanted for name in numbers if f"/{name}".endswith(f"/{end}"))
        return next(matches, next(iter(numbers), "") if self.metric == AUTO else "")
