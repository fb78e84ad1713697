"""Detections of a batch of images as tensors of one shape: sorted, filtered by score, suppressed, checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from segkit.fusion import HeuristicFusion
from segkit.structures.segment_table import NAN_INSTANCES, NEGATIVE_CLASS


class Detections(NamedTuple):
    """N rows for each of B images. Without the leading B: one image.

    Attributes:
        mask_probs: (B, N, m, m') float in [0, 1].
        boxes_xyxy: (B, N, 4) float, pixels.
        scores: (B, N) float.
        class_ids: (B, N) int64, thing contiguous ids.
        valid: (B, N) bool. The other rows are padding and may hold any values.
    """

    mask_probs: torch.Tensor
    boxes_xyxy: torch.Tensor
    scores: torch.Tensor
    class_ids: torch.Tensor
    valid: torch.Tensor


def detections_from_instances(instances: Any) -> Detections:
    """The rows of Detectron2's Instances of one image, with pred_masks (N, 1, m, m) from the ROI heads."""
    boxes, valid = instances.pred_boxes.tensor, torch.ones_like(instances.scores, dtype=torch.bool)
    return Detections(instances.pred_masks[:, 0], boxes, instances.scores, instances.pred_classes, valid)


def stack_detections(images: Sequence[Detections]) -> Detections:
    """Single images as a batch. Rows are padded to the largest number of rows."""
    total = max(len(image.scores) for image in images)

    def pad(field: torch.Tensor) -> torch.Tensor:
        return F.pad(field, (0, 0) * (field.ndim - 1) + (0, total - len(field)))

    return Detections(*(torch.stack([pad(field) for field in fields]) for fields in zip(*images, strict=True)))


def build_class_thresholds(fusion: HeuristicFusion) -> torch.Tensor:
    """(2, K) float64: thing contiguous ids with a score threshold of their own, and these thresholds.

    Build it once and keep it on the device, because moving it there is a synchronisation.
    """
    thresholds = sorted(fusion.class_score_thresholds.items())
    return torch.tensor(thresholds, dtype=torch.float64).reshape(-1, 2).T.contiguous()


def scale_boxes(
    boxes_xyxy: torch.Tensor, image_size: tuple[int, int], size_hw: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale boxes from the network's image to the output, and clip them there.

    After `detector_postprocess` in detectron2/modeling/postprocessing.py.

    Args:
        boxes_xyxy: (B, N, 4) float, pixels of the network's image.
        image_size: (height, width) of the network's image without padding.
        size_hw: (height, width) of the output.

    Returns:
        (B, N, 4) boxes, and (B, N) bool, whether a box has an area. A box that is not finite is unchanged and counts as
        one with an area, so that it is reported as an error.
    """
    scale_x, scale_y = size_hw[1] / image_size[1], size_hw[0] / image_size[0]
    x0, y0, x1, y1 = boxes_xyxy.unbind(2)
    finite = boxes_xyxy.isfinite().all(2)
    x0, x1 = ((x * scale_x).clamp(0, size_hw[1]) for x in (x0, x1))
    y0, y1 = ((y * scale_y).clamp(0, size_hw[0]) for y in (y0, y1))
    boxes = torch.where(finite[:, :, None], torch.stack([x0, y0, x1, y1], dim=2), boxes_xyxy)
    return boxes, ((x1 > x0) & (y1 > y0)) | ~finite


def find_input_errors(detections: Detections) -> torch.Tensor:
    """(B,) int64: sums of the keys of `INPUT_ERRORS` that apply to detections."""
    finite = detections.boxes_xyxy.isfinite().all(2) & detections.scores.isfinite()
    in_range = (detections.mask_probs >= 0) & (detections.mask_probs <= 1)  # NaN is not
    correct = finite & in_range.flatten(2).all(2)
    errors = (~correct & detections.valid).any(1) * NAN_INSTANCES
    return errors + ((detections.class_ids < 0) & detections.valid).any(1) * NEGATIVE_CLASS


def sort_by_score(detections: Detections) -> tuple[Detections, torch.Tensor]:
    """Sort rows by falling score, of equal scores the earlier row first, padding last.

    Returns the sorted rows, and (B, N) int64, the index of each among the valid rows.
    """
    instance_ids = detections.valid.long().cumsum(1) - 1
    order = sort_stably(torch.where(detections.valid, detections.scores.float(), -torch.inf))

    def gather(field: torch.Tensor) -> torch.Tensor:
        return field.gather(1, order.reshape(*order.shape, *[1] * (field.ndim - 2)).expand_as(field))

    return Detections(*(gather(field) for field in detections)), gather(instance_ids)


def select_candidate_rows(
    ranked: Detections,
    score_threshold: float,
    class_thresholds: torch.Tensor | None = None,
    nms_threshold: float | None = None,
) -> torch.Tensor:
    """Select the rows that take part, as segkit/fusion/candidates.py does.

    Args:
        ranked: From `sort_by_score`.
        score_threshold: Lowest score.
        class_thresholds: From `build_class_thresholds`, or None.
        nms_threshold: Highest IoU with a better box that is not suppressed itself; None suppresses nothing.

    Returns:
        (B, N) bool.
    """
    limit: torch.Tensor | float = score_threshold
    if class_thresholds is not None and class_thresholds.shape[1]:  # ONNX's `any` of nothing is true
        is_class = ranked.class_ids[:, :, None] == class_thresholds[0]
        limit = torch.where(is_class.any(2), torch.where(is_class, class_thresholds[1], 0.0).sum(2), score_threshold)
    selected = ranked.valid & (ranked.scores.double() >= limit)
    return selected if nms_threshold is None else _suppress_boxes(ranked.boxes_xyxy, selected, nms_threshold)


def sort_stably(scores: torch.Tensor) -> torch.Tensor:
    """Sort rows by falling score, of equal scores the earlier first. Ranks are counted, as ONNX has no stable sort.

    Args:
        scores: (B, N), no NaN.

    Returns:
        (B, N) int64 indices.
    """
    rows = torch.arange(scores.shape[1], device=scores.device)
    scores, others = scores[:, :, None], scores[:, None, :]
    ranks = ((others > scores) | ((others == scores) & (rows < rows[:, None]))).sum(2)
    return torch.zeros_like(ranks).scatter(1, ranks, rows.expand_as(ranks))


def _suppress_boxes(boxes_xyxy: torch.Tensor, selected: torch.Tensor, threshold: float) -> torch.Tensor:
    """(B, N) bool: the selected rows whose box has no IoU above the threshold with a better one that stays."""
    overlaps = _compute_box_ious(boxes_xyxy.double()) > threshold
    suppressed = torch.zeros_like(selected)
    stays = []
    for row in range(selected.shape[1]):
        stays.append(selected[:, row] & ~suppressed[:, row])
        suppressed = suppressed | (stays[-1][:, None] & overlaps[:, row])
    return torch.stack(stays, dim=1) if stays else selected


def _compute_box_ious(boxes: torch.Tensor) -> torch.Tensor:
    """(B, N, N), 0 if both boxes are empty."""
    low = torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    high = torch.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:])
    shared = (high - low).clamp(min=0).prod(3)
    areas = (boxes[:, :, 2:] - boxes[:, :, :2]).prod(2)
    union = areas[:, :, None] + areas[:, None, :] - shared
    return torch.where(union > 0, shared / union, 0.0)
