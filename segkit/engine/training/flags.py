"""What all processes must know of each other's step, without waiting for the GPU."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch
import torch.distributed as dist

# On a GPU the flags of a step are read this many steps later, in which the GPU does what it has been given: the
# processes read the same flags at the same step, so that they decide alike. A CPU has no queue.
GPU_LAG = 2


@dataclass(frozen=True)
class StepFlags:
    """The flags of one step, the same on all processes.

    Attributes:
        iteration: of the step.
        bad_loss: a process had a loss that is not finite; no process has changed its weights in the step.
        bad_gradient: the losses were finite, but the gradient was not; no process has changed its weights.
        stop_signal: highest number of a signal that asks for the end; 0: none.
        unreadable: images that a process has skipped so far, because they cannot be read; of the worst process.
    """

    iteration: int
    bad_loss: bool
    bad_gradient: bool
    stop_signal: int
    unreadable: int


class FlagExchange:
    """Sends the flags of each step to all processes.

    Args:
        device: of the model.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.lag = GPU_LAG if device.type == "cuda" else 0
        self.is_distributed = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        self._waiting: deque[tuple[int, torch.Tensor, torch.cuda.Event | None]] = deque()

    def exchange(self, bad_loss: torch.Tensor, stop_signal: int, unreadable: int) -> torch.Tensor:
        """Tell all processes what this one knows before it changes its weights.

        Args:
            bad_loss: () bool on the device.
            stop_signal: number of the signal that this process got; 0: none.
            unreadable: images that this process has skipped so far.

        Returns:
            (3,) float32 on the device, for `post`: the highest values of all processes.
        """
        host = torch.tensor([0.0, stop_signal, unreadable])
        flags = host.pin_memory().to(self.device, non_blocking=True) if self.lag else host
        flags[0] = bad_loss
        if self.is_distributed:
            dist.all_reduce(flags, dist.ReduceOp.MAX)
        return flags

    def post(self, iteration: int, flags: torch.Tensor, bad_gradient: torch.Tensor) -> None:
        """Start reading the flags of a step.

        Args:
            iteration: of the step.
            flags: of `exchange`.
            bad_gradient: () bool on the device, equal on all processes.
        """
        values, event = torch.cat([flags, bad_gradient.float()[None]]), None
        if self.lag:
            pinned = torch.empty(
                values.shape, dtype=values.dtype, pin_memory=True
            )  # to other memory the copy would wait
            values, event = pinned.copy_(values, non_blocking=True), torch.cuda.Event()
            event.record()
        self._waiting.append((iteration, values, event))

    def read(self, everything: bool = False) -> list[StepFlags]:
        """Read the flags of the steps that are `lag` steps ago.

        Args:
            everything: wait for those of all steps, at the end of the training.

        Returns:
            One for each step; the same on all processes.
        """
        ready = []
        while self._waiting and (everything or len(self._waiting) > self.lag):
            iteration, values, event = self._waiting.popleft()
            if event is not None:
                event.synchronize()
            bad_loss, stop_signal, unreadable, bad_gradient = values.tolist()
            ready.append(StepFlags(iteration, bool(bad_loss), bool(bad_gradient), int(stop_signal), int(unreadable)))
        return ready
