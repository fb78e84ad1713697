"""Mask R-CNN's mask head with a soft Dice loss: thin and small objects weigh as much as large ones."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling.roi_heads import ROI_MASK_HEAD_REGISTRY, MaskRCNNConvUpsampleHead, mask_head
from detectron2.modeling.roi_heads.mask_head import mask_rcnn_inference
from detectron2.structures import Instances

from segkit.config import with_segkit_keys
from segkit.modeling.losses import dice_loss


@ROI_MASK_HEAD_REGISTRY.register()
class DiceMaskHead(MaskRCNNConvUpsampleHead):
    """MaskRCNNConvUpsampleHead of Detectron2 with a second loss. Its parameters keep their names.

    Args:
        *args: As in MaskRCNNConvUpsampleHead.
        dice_weight: Weight of `loss_mask_dice`, which `loss_weight` of Detectron2's head multiplies too.
        **kwargs: As in MaskRCNNConvUpsampleHead.
    """

    @configurable
    def __init__(self, *args: Any, dice_weight: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.dice_weight = dice_weight

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Any) -> dict[str, Any]:
        """The arguments of the constructor for a config."""
        cfg = with_segkit_keys(cfg)
        return {**super().from_config(cfg, input_shape), "dice_weight": cfg.MODEL.ROI_MASK_HEAD.DICE_WEIGHT}

    def forward(self, x: torch.Tensor, instances: list[Instances]) -> Any:
        """Compute losses in training, otherwise add pred_masks to the instances.

        Args:
            x: (R, C, M, M) float, pooled features of all regions.
            instances: Instances of each image, with R rows together.

        Returns:
            A dict of losses in training, otherwise the instances.
        """
        logits = self.layers(x)
        if not self.training:
            mask_rcnn_inference(logits, instances)
            return instances
        cross_entropy = mask_head.mask_rcnn_loss(logits, instances, self.vis_period)
        dice = self._compute_dice(logits, instances) * self.dice_weight
        return {"loss_mask": cross_entropy * self.loss_weight, "loss_mask_dice": dice * self.loss_weight}

    def _compute_dice(self, logits: torch.Tensor, instances: list[Instances]) -> torch.Tensor:
        side = logits.shape[-1]
        nonempty = [x for x in instances if len(x)]
        if not nonempty:
            return logits.sum() * 0
        targets = torch.cat([x.gt_masks.crop_and_resize(x.proposal_boxes.tensor, side) for x in nonempty])
        channel = torch.cat([x.gt_classes for x in nonempty]) if logits.shape[1] > 1 else 0
        probs = logits[torch.arange(len(logits), device=logits.device), channel].sigmoid()
        return dice_loss(probs.flatten(1), targets.to(probs).flatten(1))
