"""PointRend (Kirillov et al. 2020): masks that are computed again, point by point, at their outlines."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling.roi_heads import ROI_MASK_HEAD_REGISTRY
from detectron2.projects import point_rend
from detectron2.structures import Instances

from segkit.structures.architecture_spec import POINT_HEAD, HeadSpec, register_head
from segkit.utils.errors import ConfigError


class _PointRend:
    """What both heads of Detectron2's project lack: errors at build time, a weight, and the memory of one class.

    At inference only the logits of the predicted class are kept. The masks are the same, and a mask of 224 x 224 takes
    0.2 MB in the place of 16 MB for 80 classes.

    Attributes:
        loss_weight: Factor of the losses.
    """

    training: bool

    def __init__(self, cfg: CfgNode, input_shape: Any) -> None:
        if not isinstance(input_shape, dict):
            problem = (
                f"MODEL.ROI_MASK_HEAD.POOLER_TYPE is {cfg.MODEL.ROI_MASK_HEAD.POOLER_TYPE!r}, but PointRend samples"
            )
            raise ConfigError(f"{problem} the feature maps itself", remedy='set MODEL.ROI_MASK_HEAD.POOLER_TYPE ""')
        super().__init__(cfg, input_shape)  # type: ignore[call-arg]
        self.loss_weight = 1.0

    def forward(self, features: dict[str, torch.Tensor], instances: list[Instances]) -> Any:
        outputs: Any = super().forward(features, instances)  # type: ignore[misc]
        return {name: loss * self.loss_weight for name, loss in outputs.items()} if self.training else outputs

    def _subdivision_inference(self, features: Any, mask_representations: torch.Tensor, instances: Any) -> Any:
        classes = torch.cat([image.pred_classes for image in instances])
        return super()._subdivision_inference(features, (mask_representations, classes), instances)  # type: ignore[misc]

    def _get_point_logits(self, point_features: torch.Tensor, point_coords: torch.Tensor, masks: Any) -> torch.Tensor:
        """(R, C, P) logits in training, (R, 1, P) of the predicted classes at inference."""
        masks, classes = (masks, None) if self.training else masks
        logits: torch.Tensor = super()._get_point_logits(point_features, point_coords, masks)  # type: ignore[misc]
        if classes is None or logits.shape[1] == 1:
            return logits
        return logits[torch.arange(len(logits), device=logits.device), classes][:, None]


class PointRendMaskHead(_PointRend, point_rend.PointRendMaskHead):
    """Detectron2's head of this name: the same parameters, losses and masks."""

    def __init__(self, cfg: CfgNode, input_shape: Any) -> None:
        if not cfg.MODEL.ROI_MASK_HEAD.POINT_HEAD_ON:  # Detectron2's head would then train, but predict nothing
            problem = "MODEL.ROI_MASK_HEAD.POINT_HEAD_ON is False, but PointRend needs its point head"
            raise ConfigError(problem, remedy="set it True, or MODEL.ROI_MASK_HEAD.NAME MaskRCNNConvUpsampleHead")
        super().__init__(cfg, input_shape)


class ImplicitPointRendMaskHead(_PointRend, point_rend.ImplicitPointRendMaskHead):
    """Detectron2's head of this name (Cheng et al. 2022, "Pointly-Supervised Instance Segmentation", section 4)."""


for head in (PointRendMaskHead, ImplicitPointRendMaskHead):
    # In the place of Detectron2's, so that its configs get them.
    ROI_MASK_HEAD_REGISTRY._obj_map[head.__name__] = head
    register_head(HeadSpec(head.__name__, POINT_HEAD, needs_bitmasks=True))
