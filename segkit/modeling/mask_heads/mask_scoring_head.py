"""Mask Scoring R-CNN (Huang et al. 2019): scores that say how good the masks are, not only what the boxes hold."""

from __future__ import annotations

from typing import Any

import fvcore.nn.weight_init as weight_init
import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling.roi_heads import ROI_MASK_HEAD_REGISTRY, MaskRCNNConvUpsampleHead, mask_head
from detectron2.modeling.roi_heads.mask_head import mask_rcnn_inference
from detectron2.structures import Instances
from torch import nn
from torch.nn import functional as F

from segkit.config import with_segkit_keys

CONV_LAYERS = 4  # section 3.3; the last one has stride 2
MASK_THRESHOLD_LOGIT = 0.0  # of a probability of 0.5


class MaskIoUHead(nn.Module):
    """Predicts the IoU of a mask with its object for each class.

    Args:
        in_channels: C, channels of the pooled features.
        side: M, side of the pooled features.
        num_classes: K.
        conv_dim: Channels of the convolutions.
        fc_dim: Channels of the two linear layers.
    """

    def __init__(self, in_channels: int, side: int, num_classes: int, conv_dim: int = 256, fc_dim: int = 1024) -> None:
        super().__init__()
        layers: list[tuple[str, nn.Module]] = []
        channels = in_channels + 1
        for number in range(1, CONV_LAYERS + 1):
            stride = 2 if number == CONV_LAYERS else 1
            conv = Conv2d(channels, conv_dim, kernel_size=3, stride=stride, padding=1, activation=nn.ReLU())
            weight_init.c2_msra_fill(conv)
            layers.append((f"conv{number}", conv))
            channels = conv_dim
        features = conv_dim * ((side + 1) // 2) ** 2
        for number in (1, 2):
            linear = nn.Linear(features, fc_dim)
            weight_init.c2_xavier_fill(linear)
            layers.append((f"fc{number}", linear))
            features = fc_dim
        for name, layer in layers:
            self.add_module(name, layer)
        self.predictor = nn.Linear(fc_dim, num_classes)
        nn.init.normal_(self.predictor.weight, std=0.01)
        nn.init.zeros_(self.predictor.bias)

    def forward(self, features: torch.Tensor, mask_probs: torch.Tensor) -> torch.Tensor:
        """Predict.

        Args:
            features: (R, C, M, M) float, pooled features.
            mask_probs: (R, 2 M, 2 M) float in [0, 1].

        Returns:
            (R, K) float, IoUs.
        """
        x = torch.cat([features, F.max_pool2d(mask_probs[:, None], 2)], dim=1)
        for number in range(1, CONV_LAYERS + 1):
            x = getattr(self, f"conv{number}")(x)
        x = x.flatten(1)
        for name in ("fc1", "fc2"):
            x = getattr(self, name)(x).relu()
        ious: torch.Tensor = self.predictor(x)
        return ious


@ROI_MASK_HEAD_REGISTRY.register()
class MaskScoringHead(MaskRCNNConvUpsampleHead):
    """MaskRCNNConvUpsampleHead of Detectron2, and a head that multiplies scores by the IoUs that it predicts.

    The parameters of Detectron2's head keep their names. The scores of the boxes are the same, so their AP changes too.

    Args:
        input_shape: ShapeSpec of the pooled features.
        *args: As in MaskRCNNConvUpsampleHead.
        mask_iou_head: Called with (features, mask_probs), returns (R, K) IoUs.
        mask_iou_weight: Weight of `loss_mask_iou`.
        **kwargs: As in MaskRCNNConvUpsampleHead.
    """

    @configurable
    def __init__(
        self, input_shape: ShapeSpec, *args: Any, mask_iou_head: nn.Module, mask_iou_weight: float = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(input_shape, *args, **kwargs)
        self.mask_layers = len(self)
        self.mask_iou_head, self.mask_iou_weight = mask_iou_head, mask_iou_weight

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """The arguments of the constructor for a config."""
        cfg = with_segkit_keys(cfg)
        options = cfg.MODEL.ROI_MASK_HEAD.MASK_IOU
        sizes = input_shape.channels, input_shape.width, cfg.MODEL.ROI_HEADS.NUM_CLASSES
        return {
            **super().from_config(cfg, input_shape),
            "mask_iou_head": MaskIoUHead(*sizes, options.CONV_DIM, options.FC_DIM),
            "mask_iou_weight": options.LOSS_WEIGHT,
        }

    def layers(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the logits of masks.

        Args:
            x: (R, C, M, M) float, pooled features.

        Returns:
            (R, K or 1, 2 M, 2 M) logits.
        """
        for layer in [*self][: self.mask_layers]:  # the head of IoUs is a child too
            x = layer(x)
        return x

    def forward(self, x: torch.Tensor, instances: list[Instances]) -> Any:
        """Compute losses in training, otherwise add pred_masks to the instances and rescore them.

        Args:
            x: (R, C, M, M) float, pooled features of all regions.
            instances: Instances of each image, with R rows together.

        Returns:
            A dict of losses in training, otherwise the instances.
        """
        logits = self.layers(x)
        classes = torch.cat([image.gt_classes if self.training else image.pred_classes for image in instances])
        rows = torch.arange(len(logits), device=logits.device)
        logits_of_class = logits[rows, classes if logits.shape[1] > 1 else 0]
        ious = self.mask_iou_head(x, logits_of_class.sigmoid())[rows, classes]
        if self.training:
            mask_loss = mask_head.mask_rcnn_loss(logits, instances, self.vis_period)
            iou_loss = mask_iou_loss(ious, compute_mask_iou_targets(logits_of_class, instances)) * self.mask_iou_weight
            return {"loss_mask": mask_loss * self.loss_weight, "loss_mask_iou": iou_loss * self.loss_weight}
        mask_rcnn_inference(logits, instances)
        for image, image_ious in zip(
            instances, ious.clamp(0, 1).split([len(image) for image in instances]), strict=True
        ):
            image.scores = image.scores * image_ious
        return instances


@torch.no_grad()
def compute_mask_iou_targets(logits: torch.Tensor, instances: list[Instances]) -> torch.Tensor:
    """Compute the IoU of each predicted mask with the whole object, of which a part may be outside the box.

    Args:
        logits: (R, S, S) logits of masks, each spread over its box.
        instances: Instances of each image with proposal_boxes and gt_masks, with R rows together.

    Returns:
        (R,) float32 in [0, 1]. Areas are in cells of the mask, S x S of which fill the box.
    """
    if not len(logits):
        return logits.new_zeros(0)
    side = logits.shape[-1]
    nonempty = [image for image in instances if len(image)]
    boxes = [image.proposal_boxes.tensor for image in nonempty]
    targets = torch.cat([x.gt_masks.crop_and_resize(b, side) for x, b in zip(nonempty, boxes, strict=True)]).float()
    areas_px = torch.cat([_compute_areas_px(image.gt_masks).to(logits.device) for image in nonempty])
    cells_per_px = side**2 / torch.cat([image.proposal_boxes.area() for image in nonempty]).clamp(min=1e-6)
    predicted, targets = logits > MASK_THRESHOLD_LOGIT, targets.to(logits.device)
    overlaps = (predicted * targets).sum((1, 2))
    # Not less than the cells in the box: cells are rounded to object or background, pixels are not.
    object_areas = torch.maximum(areas_px * cells_per_px, targets.sum((1, 2)))
    return overlaps / (predicted.sum((1, 2)) + object_areas - overlaps).clamp(min=1)


def mask_iou_loss(ious: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Compute half of the mean squared difference over masks with a target above 0, as the authors' code does.

    Args:
        ious: (R,) float, predicted.
        targets: (R,) float in [0, 1].

    Returns:
        Scalar. Without such a mask it is 0, with a gradient of 0.
    """
    counts = (targets > 0).to(ious.dtype)
    return 0.5 * ((ious - targets).square() * counts).sum() / counts.sum().clamp(min=1)


def _compute_areas_px(masks: Any) -> torch.Tensor:
    """(N,) float: pixels of PolygonMasks, BitMasks or MapMasks."""
    return (masks.area() if hasattr(masks, "area") else masks.tensor.flatten(1).sum(1)).float()
