"""Loading the states of optimizers and schedulers: what they have summed up, not what the config says."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.solver import LRMultiplier

from segkit.engine.training.two_stage import TwoStagePoly
from segkit.utils.errors import CheckpointError

REMEDY = "resume with the settings of the checkpoint, or start from its weights: MODEL.WEIGHTS, without --resume"


def save_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The state of an optimizer, with its type.

    Args:
        optimizer: any.

    Returns:
        What `load_optimizer` reads.
    """
    return {**optimizer.state_dict(), "type": type(optimizer).__name__}


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load the momenta; the hyperparameters stay those of the config.

    Args:
        optimizer: changed in place.
        state: of `save_optimizer`.

    Raises:
        CheckpointError: the state is of another optimizer, or of other groups of weights.
    """
    kind = type(optimizer).__name__
    if (saved_kind := state.get("type", kind)) != kind:
        raise CheckpointError(f"the checkpoint is of the optimizer {saved_kind}, not of {kind}", remedy=REMEDY)
    saved, wanted = ([len(g["params"]) for g in groups] for groups in (state["param_groups"], optimizer.param_groups))
    if saved != wanted:
        problem = f"the optimizer's groups have {wanted} tensors of weights, those of the checkpoint {saved}"
        why = "FREEZE, BACKBONE_MULTIPLIER, LAYER_DECAY and rates of biases and norms change them"
        raise CheckpointError(f"{problem} ({why})", remedy=REMEDY)
    options = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict({key: state[key] for key in ("state", "param_groups")})
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
    if isinstance(scheduler, (LRMultiplier, TwoStagePoly)):  # they follow from the config and the number of the step
        scheduler.last_epoch = steps
        for group, lr in zip(scheduler.optimizer.param_groups, scheduler.get_lr(), strict=True):
            group["lr"] = lr
    else:
        scheduler.load_state_dict(state)
