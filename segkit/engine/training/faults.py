"""Steps whose loss or gradient is not finite: named, written to a file for `segkit train --replay`, and counted."""

from __future__ import annotations

import logging
import socket
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from segkit.engine.checkpoints.safe_load import to_plain_data
from segkit.engine.training.flags import StepFlags
from segkit.engine.training.replay import FOLDER, encode_sample
from segkit.utils.errors import DatasetError, TrainingError
from segkit.utils.files import replacing

logger = logging.getLogger(__name__)

MOST_FILES = 3  # of one process: each holds the model's weights


class _Step(NamedTuple):
    iteration: int
    parts: Sequence[Sequence[Mapping[str, Any]]]
    losses: Sequence[Mapping[str, torch.Tensor]]
    lr: float


class RunningStatistics:
    """Restores the running statistics of batch normalisation after a step that was skipped.

    A forward pass changes them before anyone knows that its loss is not finite.

    Args:
        model: the model.
        lag: after how many further steps a step is known to be skipped.
    """

    def __init__(self, model: torch.nn.Module, lag: int) -> None:
        layers = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
        self._buffers = [b for layer in layers for b in (layer.running_mean, layer.running_var) if b is not None]
        self._copies: deque[tuple[int, list[torch.Tensor]]] = deque(maxlen=lag + 1)

    def keep(self, iteration: int) -> None:
        """Copy the statistics before a step.

        Args:
            iteration: of the step.
        """
        if self._buffers:
            self._copies.append((iteration, [buffer.clone() for buffer in self._buffers]))

    def restore(self, iteration: int) -> None:
        """Set the statistics to what they were before a step.

        Args:
            iteration: of the step.
        """
        for kept, copies in self._copies:
            if kept == iteration:
                torch._foreach_copy_(self._buffers, copies)


class FaultGuard:
    """Reports the steps that were skipped, and ends the training after too many.

    All processes see the same flags, so that they end at the same step.

    Args:
        output_dir: the run's folder.
        most_skipped: SOLVER.MAX_SKIPPED_STEPS.
        rank: of this process.
        lag: of the flags.
        most_unreadable: DATALOADER.MAX_UNREADABLE.

    Attributes:
        skipped: number of steps that were skipped.
        unreadable: images that a process has skipped since the beginning of the run; of the worst process.
    """

    def __init__(self, output_dir: Path, most_skipped: int, rank: int, lag: int, most_unreadable: int = 0) -> None:
        self.output_dir, self.most_skipped, self.most_unreadable = output_dir, most_skipped, most_unreadable
        self.rank = rank
        self.skipped = self.unreadable = self._files = 0
        self._recent: deque[_Step] = deque(maxlen=lag + 1)

    def remember(self, iteration: int, parts: Sequence[Any], losses: Sequence[Any], lr: float) -> None:
        """Keep the images of a step until its flags are known.

        Args:
            iteration: of the step.
            parts: the inputs of its forward passes.
            losses: of its forward passes.
            lr: the learning rate.
        """
        self._recent.append(_Step(iteration, parts, losses, lr))

    def check(self, flags: StepFlags, model: torch.nn.Module, seed: int) -> None:
        """Report a step that was skipped.

        Args:
            flags: of the step.
            model: whose weights were not changed by the step.
            seed: of the run.

        Raises:
            TrainingError: too many steps were skipped, or too many images cannot be read.
        """
        self.unreadable = flags.unreadable
        if self.most_unreadable and flags.unreadable > self.most_unreadable:
            problem = f"a process has skipped {flags.unreadable} images that cannot be read"
            remedy = "the log names them: run `segkit data check`, or raise DATALOADER.MAX_UNREADABLE"
            raise TrainingError(problem, remedy=remedy)
        if not (flags.bad_loss or flags.bad_gradient):
            return
        self.skipped += 1
        step = next(step for step in self._recent if step.iteration == flags.iteration)
        message = self._describe(step, flags) + self._write(step, model, seed)
        if self.skipped > self.most_skipped:
            problem = f"{message}; {self.skipped} steps were skipped so far"
            remedy = "lower SOLVER.BASE_LR, clip gradients, or raise SOLVER.MAX_SKIPPED_STEPS"
            raise TrainingError(problem, remedy=remedy)
        logger.warning("%s; the step is skipped (%d of at most %d)", message, self.skipped, self.most_skipped)

    def _describe(self, step: _Step, flags: StepFlags) -> str:
        images = [sample.get("image_id") for part in step.parts for sample in part]
        where = f"iteration {step.iteration}, learning rate {step.lr:.3g}"
        terms = _list_terms(step.losses)
        if terms:
            return (
                f"{where}: {', '.join(terms)} with the images {images} of process {self.rank} ({socket.gethostname()})"
            )
        if flags.bad_loss:
            return f"{where}: a loss of another process is not finite; that process names it"
        return f"{where}: the losses are finite, but a gradient is not; images {images} of process {self.rank}"

    def _write(self, step: _Step, model: torch.nn.Module, seed: int) -> str:
        """Write the step for a replay; what to add to the message."""
        if self._files >= MOST_FILES or not _list_terms(step.losses):
            return ""
        path = self.output_dir / FOLDER / f"iteration_{step.iteration:07d}_process_{self.rank}.pth"
        parts = [[encode_sample(sample) for sample in part] for part in step.parts]
        state = {"iteration": step.iteration, "rank": self.rank, "seed": seed, "parts": parts}
        try:
            with replacing(path) as temporary:
                torch.save(to_plain_data({**state, "model": model.state_dict()}), temporary)
        except (DatasetError, OSError, RuntimeError, ValueError) as error:  # the training matters more than this file
            return f" (the images could not be saved: {error})"
        self._files += 1
        return f"; `segkit train --replay {path}` runs it again"


def _list_terms(losses: Sequence[Mapping[str, torch.Tensor]]) -> list[str]:
    values = {name: value.item() for part in losses for name, value in part.items()}
    # A name with a space is a message, see `guard_divergence`.
    return [n.rstrip(".") if " " in n else f"{n} is {v}" for n, v in values.items() if not np.isfinite(v)]
