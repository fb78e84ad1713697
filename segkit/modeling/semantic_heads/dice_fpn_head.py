"""The semantic head of Panoptic FPN with a soft Dice loss: small classes weigh as much as large ones."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from detectron2.modeling.meta_arch.semantic_seg import SemSegFPNHead
from torch.nn import functional as F

from segkit.config import with_segkit_keys
from segkit.modeling.losses import dice_loss


@SEM_SEG_HEADS_REGISTRY.register()
class DiceSemSegFPNHead(SemSegFPNHead):
    """SemSegFPNHead of Detectron2 with a second loss. Its parameters keep their names.

    Args:
        *args: As in SemSegFPNHead.
        dice_weight: Weight of `loss_sem_seg_dice`.
        **kwargs: As in SemSegFPNHead.
    """

    @configurable
    def __init__(self, *args: Any, dice_weight: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.dice_weight = dice_weight

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Any) -> dict[str, Any]:
        """The arguments of the constructor for a config."""
        cfg = with_segkit_keys(cfg)
        return {**super().from_config(cfg, input_shape), "dice_weight": cfg.MODEL.SEM_SEG_HEAD.DICE_WEIGHT}

    def losses(self, predictions: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the losses.

        Args:
            predictions: (B, C, h, w) logits.
            targets: (B, H, W) int64 channels, `ignore_value` for pixels without a label.

        Returns:
            Scalar losses by name.
        """
        losses = super().losses(predictions, targets)
        logits = F.interpolate(
            predictions.float(), scale_factor=self.common_stride, mode="bilinear", align_corners=False
        )
        valid = targets != self.ignore_value
        ground_truth = F.one_hot(targets.where(valid, 0), logits.shape[1]).movedim(-1, 1).float() * valid[:, None]
        probs = logits.softmax(dim=1) * valid[:, None]
        # One row per class over the whole batch. Only the classes in the batch count.
        rows, gt_rows = probs.transpose(0, 1).flatten(1), ground_truth.transpose(0, 1).flatten(1)
        dice = dice_loss(rows, gt_rows, gt_rows.sum(dim=1) > 0)
        return {**losses, "loss_sem_seg_dice": dice * self.dice_weight}
