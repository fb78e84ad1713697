"""An exponential moving average (EMA) of the weights, beside those that are trained."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.engine import HookBase

from segkit.utils.errors import ConfigError

logger = logging.getLogger(__name__)

FINAL_EMA = "model_final_ema"


class WeightEMA(HookBase):
    """Averages the trained weights: average += (1 - d) * (weights - average) after each step that changed them.

    d = min(decay, (1 + t) / (10 + t)) for t earlier steps, as in timm, so that the random weights of the start are soon
    forgotten. Steps that were skipped are left out without reading anything back from the device. Frozen weights and
    buffers (the running statistics of BatchNorm) are not averaged: they are those of the model.

    Args:
        decay: in [0, 1).

    Raises:
        ConfigError: another decay.
    """

    def __init__(self, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ConfigError(f"expected SOLVER.EMA.DECAY in [0, 1), got {decay}", remedy="0.9998 is usual")
        self.decay = decay
        self._loaded: Mapping[str, Any] = {}
        self._names: list[str] = []
        self._weights: list[torch.Tensor] = []
        self._averages: list[torch.Tensor] = []
        self._steps = torch.zeros(())

    @torch.no_grad()
    def before_train(self) -> None:
        """See base class."""
        model = self.trainer.checkpointer.model
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        saved = self._loaded.get("averages", {})
        if self.trainer.start_iter and (missing := len(trained.keys() - saved.keys())):
            logger.warning("the checkpoint has no average of %d weights: it begins with their values", missing)
        self._names, self._weights = [*trained], [*trained.values()]
        averages = [saved.get(name, parameter) for name, parameter in trained.items()]
        # Copies, which have the memory format of the weights, as the kernels for many tensors need.
        self._averages = [torch.empty_like(w).copy_(a) for w, a in zip(self._weights, averages, strict=True)]
        self._steps = torch.as_tensor(self._loaded.get("steps", 0.0), device=self._weights[0].device).clone()
        self._loaded = {}

    @torch.no_grad()
    def after_step(self) -> None:
        """See base class."""
        is_changed = ~self.trainer.last_step.is_skipped
        decay = ((1 + self._steps) / (10 + self._steps)).clamp(max=self.decay)
        changes = torch._foreach_sub(self._weights, self._averages)
        torch._foreach_mul_(changes, (1 - decay) * is_changed)
        torch._foreach_add_(self._averages, changes)
        self._steps += is_changed

    def after_train(self) -> None:
        """See base class."""
        if self.trainer.is_finished:
            with self.applied():
                self.trainer.checkpointer.save_weights(FINAL_EMA)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the averages to the model for the block.

        Yields:
            Nothing.
        """
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state_dict(self) -> dict[str, Any]:
        """The averages by name, and the number of steps that they hold."""
        return {"averages": dict(zip(self._names, self._averages, strict=True)), "steps": self._steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state when the training begins.

        Args:
            state: of `state_dict`.
        """
        self._loaded = state

    @torch.no_grad()
    def _swap(self) -> None:
        # Values, not tensors: DistributedDataParallel and compiled graphs hold on to the tensors.
        for weight, average in zip(self._weights, self._averages, strict=True):
            value = weight.clone()
            weight.copy_(average)
            average.copy_(value)
