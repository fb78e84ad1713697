"""Hooks of the training loop, by Detectron2's protocol: checkpoints and evaluation."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import detectron2.utils.comm as comm
import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase, hooks
from detectron2.evaluation.testing import flatten_results_dict

from segkit.engine.checkpoints.newest import BEST_WEIGHTS, FINAL_WEIGHTS
from segkit.engine.training.best import BestResult
from segkit.utils.errors import ConfigError

logger = logging.getLogger(__name__)


class LearningRate(hooks.LRScheduler):
    """Detectron2's hook without its state, which has the learning rates of the config of an earlier run."""

    def state_dict(self) -> dict[str, Any]:
        """See base class."""
        return {}


class PreciseBatchNorm(hooks.PreciseBN):
    """Detectron2's hook, with images that follow from the iteration: a resumed training computes the same statistics.

    Args:
        period: in iterations; 0: only in the last one.
        model: the model.
        loader: of training images, for this hook alone.
        steps: of the loader, whose statistics are averaged.
    """

    def __init__(self, period: int, model: torch.nn.Module, loader: Any, steps: int) -> None:
        super().__init__(period, model, loader, steps)
        self.loader = loader

    def update_stats(self) -> None:
        """See base class."""
        place = {"seed": self.trainer.seed, "batches": self.trainer.iter}
        self.loader.load_state_dict({**self.loader.state_dict(), **place})
        self._data_iter = None
        super().update_stats()
        self.loader.close()


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

    def after_train(self) -> None:
        """See base class."""
        if self.trainer.is_finished:
            name = FINAL_WEIGHTS.partition(".")[0]
            self.trainer.checkpointer.save(name, iteration=self.trainer.state_dict()["iteration"])


class Evaluation(HookBase):
    """Evaluates every `period` iterations and at the end, writes the numbers to the storage, and the best weights.

    The checkpoint of an iteration is written before its evaluation. A training that resumes from it evaluates first.

    Args:
        period: in iterations; 0: only at the end.
        metric: that says which weights are best, see `BestResult`.
        patience: evaluations without a better one after which the training ends; 0: it does not.

    Attributes:
        best: the best evaluation.
    """

    def __init__(self, period: int, metric: str = "", patience: int = 0) -> None:
        self.period, self.patience, self._evaluated = period, patience, 0
        self.best = BestResult(metric)

    def before_train(self) -> None:
        """See base class."""
        done = self.trainer.start_iter
        if self.best.metric and done and self._is_due(done) and self.best.evaluated != done:
            self._evaluate(done)
        self._stop_if_no_gain(done)

    def after_step(self) -> None:
        """See base class."""
        done = self.trainer.iter + 1
        if self._is_due(done):
            self.trainer.save()  # the evaluation takes long, and a job may be ended in it
            self._evaluate(done)
            self._stop_if_no_gain(done)

    def after_train(self) -> None:
        """See base class."""
        done = self.trainer.iter
        if self.trainer.is_finished and (self.trainer.results is None or self._evaluated != done):
            self._evaluate(done)

    def state_dict(self) -> dict[str, Any]:
        """The best evaluation."""
        return {"best": self.best.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state.

        Args:
            state: of `state_dict`.
        """
        self.best.load_state_dict(state["best"])

    def _is_due(self, done: int) -> bool:
        return self.period > 0 and done % self.period == 0 and done < self.trainer.max_iter

    def _evaluate(self, done: int) -> None:
        trainer = self.trainer
        self._evaluated = done
        with trainer.ema.applied() if trainer.ema else nullcontext():
            with trainer.stop_request.raising():
                trainer.results = trainer.test(trainer.cfg, trainer.model) or {}
            numbers = flatten_results_dict(select_numbers(trainer.results))
            if numbers:
                trainer.storage.put_scalars(**numbers, smoothing_hint=False)
            comm.synchronize()  # the evaluation takes longer on the main process
            # Only the main process has results; all must decide alike.
            if self.best.update(done, comm.all_gather(numbers)[0]):
                trainer.checkpointer.save_weights(BEST_WEIGHTS.partition(".")[0])

    def _stop_if_no_gain(self, done: int) -> None:
        if not 0 < self.patience <= self.best.without_gain:
            return
        best = self.best
        text = "%s has not risen for %d evaluations: the training ends after %d iterations. Best: %.3f after %d"
        logger.info(text, best.name, best.without_gain, done, best.value, best.iteration)
        self.trainer.max_iter = done


def check_patience(cfg: CfgNode) -> int:
    """Check that a training that is to end early is evaluated.

    Args:
        cfg: config with segkit's keys.

    Returns:
        SOLVER.EARLY_STOP.PATIENCE.

    Raises:
        ConfigError: nothing would be compared.
    """
    patience: int = cfg.SOLVER.EARLY_STOP.PATIENCE
    if patience > 0 and not (cfg.TEST.EVAL_PERIOD > 0 and cfg.DATASETS.TEST and cfg.TEST.BEST_METRIC):
        problem = f"SOLVER.EARLY_STOP.PATIENCE {patience} needs evaluations to compare"
        raise ConfigError(problem, remedy="set TEST.EVAL_PERIOD, DATASETS.TEST and TEST.BEST_METRIC")
    return patience


def select_numbers(results: Mapping[str, Any]) -> dict[str, Any]:
    """The results without tables per class, undefined metrics and notes, in the form that Detectron2's hooks accept."""
    numbers: dict[str, Any] = {}
    for key, value in results.items():
        if isinstance(value, Mapping) and key != "per_class":
            numbers[key] = select_numbers(value)
        elif isinstance(value, (int, float)):
            numbers[key] = float(value)
    return numbers
