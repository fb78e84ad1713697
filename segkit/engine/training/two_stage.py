"""A warm-up in two stages, first of the layers without pre-training, then of the backbone, and a polynomial decay."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode

from segkit.utils.errors import ConfigError

TWO_STAGE = "TwoStageWarmupPolyLR"
IS_BACKBONE = "is_backbone"  # key of a parameter group


class TwoStagePoly(torch.optim.lr_scheduler.LRScheduler):
    """As EoMT's training/two_stage_warmup_poly_schedule.py (Kerssies et al. 2025).

    With w = WARMUP_ITERS and b = BACKBONE_WARMUP_ITERS, other weights have the learning rate
    lr * (1 - (i - w) / (MAX_ITER - w)) ** POLY_LR_POWER from iteration w on, the backbone has
    lr * (1 - (i - w - b) / (MAX_ITER - w - b)) ** POLY_LR_POWER from iteration w + b on. Before, they rise in a line
    from lr * WARMUP_FACTOR; the backbone's is 0 until iteration w.

    Args:
        optimizer: groups with a true `IS_BACKBONE` are of the backbone.
        warmup: w, in iterations.
        backbone_warmup: b, in iterations.
        max_iter: MAX_ITER.
        power: POLY_LR_POWER.
        factor: WARMUP_FACTOR.
        ending: POLY_LR_CONSTANT_ENDING: the decay ends at lr * ending.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        warmup: int,
        backbone_warmup: int,
        max_iter: int,
        power: float,
        factor: float = 0.0,
        ending: float = 0.0,
    ) -> None:
        self.warmup, self.backbone_warmup, self.max_iter = warmup, backbone_warmup, max_iter
        self.power, self.factor, self.ending = power, factor, ending
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """See base class."""
        groups = zip(self.base_lrs, self.optimizer.param_groups, strict=True)
        return [float(lr) * self._compute_factor(bool(group.get(IS_BACKBONE))) for lr, group in groups]

    def _compute_factor(self, is_backbone: bool) -> float:
        start, length = (self.warmup, self.backbone_warmup) if is_backbone else (0, self.warmup)
        done = self.last_epoch - start
        if done < 0:
            return 0.0
        if done < length:
            return self.factor + (1 - self.factor) * done / length
        progress = min((done - length) / (self.max_iter - start - length), 1.0)
        return float(max((1 - progress) ** self.power, self.ending))


def build_two_stage(solver: CfgNode, optimizer: torch.optim.Optimizer) -> TwoStagePoly:
    """Build the schedule from SOLVER.

    Args:
        solver: SOLVER of a config with segkit's keys.
        optimizer: of `build_optimizer`.

    Returns:
        The schedule.

    Raises:
        ConfigError: no weight is of a backbone, or the warm-up is not shorter than the training, or not linear.
    """
    if not any(group.get(IS_BACKBONE) for group in optimizer.param_groups):
        problem = f"{TWO_STAGE} needs a model with a backbone that is trained"
        raise ConfigError(problem, where="SOLVER.LR_SCHEDULER_NAME", remedy="set it to WarmupPolyLR")
    warmup, backbone = solver.WARMUP_ITERS, solver.BACKBONE_WARMUP_ITERS
    if min(warmup, backbone) < 0 or warmup + backbone >= solver.MAX_ITER or solver.WARMUP_METHOD != "linear":
        problem = f"WARMUP_ITERS {warmup}, BACKBONE_WARMUP_ITERS {backbone}, WARMUP_METHOD {solver.WARMUP_METHOD}"
        remedy = f"give a linear warm-up whose two stages together are shorter than MAX_ITER {solver.MAX_ITER}"
        raise ConfigError(f"{TWO_STAGE} is not possible with SOLVER.{problem}", remedy=remedy)
    return TwoStagePoly(
        optimizer,
        warmup=warmup,
        backbone_warmup=backbone,
        max_iter=solver.MAX_ITER,
        power=solver.POLY_LR_POWER,
        factor=solver.WARMUP_FACTOR,
        ending=solver.POLY_LR_CONSTANT_ENDING,
    )
