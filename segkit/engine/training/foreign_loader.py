"""A user's own loader of batches, as Detectron2's trainer takes it, in the place of `TrainingLoader`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from segkit.utils.errors import ConfigError

logger = logging.getLogger(__name__)


class ForeignLoader:
    """Gives the batches of any iterable, which begins again at its end.

    Its place is not known: a resumed training begins with its first images.

    Args:
        batches: gives lists of samples, this process's share of a step.
        parts: into how many forward passes a step is cut.

    Attributes:
        unreadable: see `TrainingLoader`; always empty.
    """

    def __init__(self, batches: Iterable[Any], parts: int = 1) -> None:
        self.batches, self.parts = batches, parts
        self.unreadable: list[str] = []
        self._iterator: Iterator[Any] | None = None

    def next_step(self) -> list[Any]:
        """Read the images of the next step.

        Returns:
            `parts` inputs of the model, one for each forward pass.

        Raises:
            ConfigError: the iterable is empty, or its batches cannot be cut into `parts`.
        """
        if self._iterator is None:
            self._iterator = iter(self.batches)
        batch = next(self._iterator, None)
        if batch is None:
            self._iterator = iter(self.batches)
            batch = next(self._iterator, None)
        if batch is None:
            raise ConfigError("build_train_loader gives a loader without a batch")
        if self.parts == 1:
            return [batch]
        if not isinstance(batch, list) or len(batch) % self.parts:
            problem = f"SOLVER.ACCUMULATION_STEPS {self.parts} cannot cut the batches of build_train_loader"
            raise ConfigError(problem, remedy="let it give lists of samples, as many as a multiple of it")
        size = len(batch) // self.parts
        return [batch[begin : begin + size] for begin in range(0, len(batch), size)]

    def close(self) -> None:
        """Forget the iterator, which ends its workers."""
        self._iterator = None

    def state_dict(self) -> dict[str, Any]:
        """Returns: nothing, since the place is not known."""
        return {}

    def load_state_dict(self, _state: Mapping[str, Any]) -> None:
        """Say that the images begin again.

        Args:
            _state: of `state_dict`.
        """
        logger.warning("the loader of build_train_loader has no state: its images begin again")

    def explain(self, _error: RuntimeError) -> None:
        """Returns: None, see `TrainingLoader`."""
