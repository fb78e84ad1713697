"""One step of the optimizer: forward and backward passes over its parts, the flags of all processes, the update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode
from torch.nn.parallel import DistributedDataParallel

from segkit.engine.training.flags import FlagExchange
from segkit.engine.training.optimizers import clip_gradients
from segkit.utils.errors import ConfigError

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class StepResult(NamedTuple):
    """What a step leaves on the device; nothing of it has been read back.

    Attributes:
        losses: name -> () float32, means over the step's parts, of this process.
        part_losses: the losses of each part.
        gradient_norm: () float32, before clipping.
        is_skipped: () bool, the weights were not changed.
    """

    losses: dict[str, torch.Tensor]
    part_losses: list[dict[str, torch.Tensor]]
    gradient_norm: torch.Tensor
    is_skipped: torch.Tensor


class TrainingStep:
    """Changes the weights once.

    No process changes its weights in a step in which a process has a loss or a gradient that is not finite. With
    optimizers that know `found_inf` (the fused ones) this is decided on the device, without waiting for it.

    Args:
        cfg: config with segkit's keys: SOLVER.AMP and SOLVER.CLIP_GRADIENTS.
        model: gives a dict of losses in training mode.
        optimizer: of its parameters.
        flags: exchanges flags between the processes.
        after_backward: called between the backward passes and the update.

    Attributes:
        scaler: of float16's gradients; it does nothing for other types.

    Raises:
        ConfigError: SOLVER.AMP.DTYPE is unknown.
    """

    def __init__(
        self,
        cfg: CfgNode,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        flags: FlagExchange,
        after_backward: Callable[[], Any] = lambda: None,
    ) -> None:
        self.cfg, self.model, self.optimizer, self.flags = cfg, model, optimizer, flags
        self.after_backward = after_backward
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.dtype = select_dtype(cfg, flags.device)
        self.scaler = torch.amp.GradScaler(flags.device.type, enabled=self.dtype is torch.float16)
        self.knows_found_inf = all(group.get("fused") for group in optimizer.param_groups)

    def __call__(self, iteration: int, parts: Sequence[Any], stop_signal: int = 0, unreadable: int = 0) -> StepResult:
        """Take the step.

        Args:
            iteration: its number.
            parts: inputs of the model; the gradients of their losses are averaged.
            stop_signal: of this process, see `FlagExchange`.
            unreadable: of this process, see `FlagExchange`.

        Returns:
            The losses.
        """
        self.optimizer.zero_grad()
        part_losses = [self._run_part(part, is_last=part is parts[-1], count=len(parts)) for part in parts]
        self.after_backward()
        losses = {name: torch.stack([each[name] for each in part_losses]).float().mean() for name in part_losses[0]}
        bad_loss = ~torch.isfinite(torch.stack([*losses.values()]).sum())
        flags = self.flags.exchange(bad_loss, stop_signal, unreadable)
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer)
        norm = clip_gradients(self.cfg, self.parameters)
        bad_gradient = ~torch.isfinite(norm) & (flags[0] == 0)
        is_skipped = flags[0].bool() | bad_gradient
        self._update(is_skipped)
        # A gradient beyond float16 is no fault: the scaler skips the step too, and lowers its scale.
        self.flags.post(iteration, flags, bad_gradient & (not self.scaler.is_enabled()))
        return StepResult(losses, part_losses, norm, is_skipped)

    def _run_part(self, part: Any, *, is_last: bool, count: int) -> dict[str, torch.Tensor]:
        ddp = self.model if isinstance(self.model, DistributedDataParallel) else None
        with nullcontext() if ddp is None or is_last else ddp.no_sync():
            with torch.autocast(self.flags.device.type, self.dtype, enabled=self.dtype is not None):
                losses = self.model(part)
            losses = losses if isinstance(losses, dict) else {"total_loss": losses}
            self.scaler.scale(torch.stack([*losses.values()]).sum() / count).backward()
        return {name: loss.detach() for name, loss in losses.items()}

    def _update(self, skip: torch.Tensor) -> None:
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
            self.scaler.update()
        elif self.knows_found_inf:
            self.optimizer.grad_scale, self.optimizer.found_inf = None, skip.float()  # type: ignore[attr-defined]
            self.optimizer.step()
        elif not skip:
            self.optimizer.step()


def select_dtype(cfg: CfgNode, device: torch.device) -> torch.dtype | None:
    """Select the type of the mixed precision.

    Args:
        cfg: config with segkit's keys.
        device: of the model.

    Returns:
        The type of SOLVER.AMP.DTYPE; "auto" is bfloat16 if the device computes in it, otherwise float16. None without
        SOLVER.AMP.ENABLED.

    Raises:
        ConfigError: another name.
    """
    if not cfg.SOLVER.AMP.ENABLED:
        return None
    name = cfg.SOLVER.AMP.DTYPE
    if name == "auto":
        return torch.float16 if device.type == "cuda" and not torch.cuda.is_bf16_supported() else torch.bfloat16
    if name not in DTYPES:
        raise ConfigError(f"SOLVER.AMP.DTYPE {name!r} is unknown", remedy=f"choose auto, {' or '.join(DTYPES)}")
    return DTYPES[name]
