"""Two operators whose results have a fixed shape: suppression of boxes, and pooling of boxes from levels.

Detectron2 computes both by lists of tensors whose lengths depend on the values. A graph of fixed shapes needs a mask in
the place of a list. `segkit.engine.export.onnx_operators` says what they are in ONNX.
"""

from __future__ import annotations

import torch
from torchvision.ops import nms, roi_align


@torch.library.custom_op("segkit::nms_mask", mutates_args=())
def nms_mask(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float, score_threshold: float) -> torch.Tensor:
    """Suppress boxes within groups, by torchvision's nms.

    Args:
        boxes: (G, N, 4) float32, left, top, right, bottom.
        scores: (G, N) float32, -infinity for padding.
        iou_threshold: boxes with a higher IoU with a better box of the group are suppressed.
        score_threshold: boxes take part if their score is higher.

    Returns:
        (G, N) bool, the boxes that stay.
    """
    keep = torch.zeros_like(scores, dtype=torch.bool)
    for group in (scores > score_threshold).any(1).nonzero()[:, 0].tolist():
        rows = (scores[group] > score_threshold).nonzero()[:, 0]
        keep[group, rows[nms(boxes[group, rows], scores[group, rows], iou_threshold)]] = True
    return keep


@nms_mask.register_fake
def _(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float, score_threshold: float) -> torch.Tensor:
    return torch.empty_like(scores, dtype=torch.bool)


@torch.library.custom_op("segkit::pool_levels", mutates_args=())
def pool_levels(
    features: list[torch.Tensor],
    boxes: torch.Tensor,
    levels: torch.Tensor,
    scales: list[float],
    side: int,
    sampling_ratio: int,
    aligned: bool,
) -> torch.Tensor:
    """Pool each box from its level, by torchvision's roi_align.

    Args:
        features: (B, C, h, w) of each level.
        boxes: (R, 5) float32, number of the image, left, top, right, bottom in its pixels.
        levels: (R,) int64, index of the level.
        scales: cells per pixel of each level.
        side: height and width of the result.
        sampling_ratio: samples per bin and axis, 0 for as many as the bin has cells.
        aligned: whether half a cell is subtracted.

    Returns:
        (R, C, side, side) float32.
    """
    pooled = features[0].new_zeros((len(boxes), features[0].shape[1], side, side))
    for level, (feature, scale) in enumerate(zip(features, scales, strict=True)):
        rows = (levels == level).nonzero()[:, 0]
        pooled[rows] = roi_align(feature, boxes[rows], side, scale, sampling_ratio, aligned)
    return pooled


@pool_levels.register_fake
def _(
    features: list[torch.Tensor],
    boxes: torch.Tensor,
    levels: torch.Tensor,
    scales: list[float],
    side: int,
    sampling_ratio: int,
    aligned: bool,
) -> torch.Tensor:
    return boxes.new_empty((boxes.shape[0], features[0].shape[1], side, side))
