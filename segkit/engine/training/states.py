"""Loading the states of optimizers and schedulers: what they have summed up, not what the config says."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.solver import LRMultiplier


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load the momenta; the hyperparameters stay those of the config.

    Args:
        optimizer: changed in place.
        state: of `state_dict`.
    """
    options = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, values in zip(optimizer.param_groups, options, strict=True):
        group.update(values)
    for parameter, values in optimizer.state.items():  # fused kernels need the memory format of the weights
        for key, value in values.items():
            if torch.is_tensor(value) and value.shape == parameter.shape and value.stride() != parameter.stride():
                values[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def load_scheduler(scheduler: Any, state: dict[str, Any], steps: int) -> None:
    """Set the learning rates of the next step.

    Args:
        scheduler: changed in place.
        state: of `state_dict`, for schedulers whose rates do not follow from the number of the step.
        steps: that are done.
    """
    if isinstance(scheduler, LRMultiplier):  # they follow from the config and the number of the step
        scheduler.last_epoch = steps
        for group, lr in zip(scheduler.optimizer.param_groups, scheduler.get_lr(), strict=True):
            group["lr"] = lr
    else:
        scheduler.load_state_dict(state)
