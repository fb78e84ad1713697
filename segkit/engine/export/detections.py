"""Detectron2's RPN and ROI heads for a batch of images of one size, with as many rows for each image.

The weights, the modules and the numbers are Detectron2's. Rows that its lists leave out are padding here: `valid` is
False. So no shape depends on a value, which an exported graph needs.
"""

from __future__ import annotations

from typing import Any

import torch
from detectron2.modeling.roi_heads import CascadeROIHeads

from segkit.engine.export import operators
from segkit.modeling.postprocessing.detections import Detections

SIDES = 4  # of a box
EPSILON = 1e-8  # of assign_boxes_to_levels in detectron2/modeling/poolers.py


def propose(rpn: Any, features: dict[str, torch.Tensor], size_hw: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the RPN, as `find_top_rpn_proposals` of Detectron2 in evaluation.

    Args:
        rpn: Detectron2's RPN.
        features: level -> (B, C, h, w).
        size_hw: (height, width) of the images without padding.

    Returns:
        (B, P, 4) boxes and (B, P) bool, whether a box is a proposal.
    """
    levels = [features[name] for name in rpn.in_features]
    logits, deltas = rpn.rpn_head(levels)
    batch, limit = levels[0].shape[0], rpn.pre_nms_topk[False]
    boxes, scores = [], []
    generator = rpn.anchor_generator
    for level, (objectness, delta) in enumerate(zip(logits, deltas, strict=True)):
        level_scores = objectness.permute(0, 2, 3, 1).flatten(1)
        level_deltas = delta.unflatten(1, (-1, SIDES)).permute(0, 3, 4, 1, 2).flatten(1, 3)
        # Padded by as many rows as are selected, so that their number does not depend on the size of the level.
        padding = level_scores.new_full((1, limit), -torch.inf).expand(batch, limit)
        best, rows = torch.cat([level_scores, padding], dim=1).topk(limit, dim=1)
        rows = rows.clamp(max=level_scores.shape[1] - 1)
        chosen = level_deltas.gather(1, rows[:, :, None].expand(batch, limit, SIDES))
        anchors = _compute_anchors(generator, level, rows, objectness.shape[3])
        decoded = rpn.box2box_transform.apply_deltas(chosen.flatten(0, 1), anchors.flatten(0, 1))
        boxes.append(decoded.reshape(batch, limit, SIDES))
        scores.append(best)
    all_boxes, all_scores = torch.stack(boxes, dim=1), torch.stack(scores, dim=1)  # (B, L, limit, ...)
    all_boxes, finite = _clip(all_boxes, size_hw)
    width, height = (all_boxes[..., 2:] - all_boxes[..., :2]).unbind(-1)
    usable = finite & all_scores.isfinite() & (width > rpn.min_box_size) & (height > rpn.min_box_size)
    all_scores = torch.where(usable, all_scores, -torch.inf)
    lowest = float(torch.finfo(all_scores.dtype).min)
    stays = operators.nms_mask(all_boxes.flatten(0, 1), all_scores.flatten(0, 1), rpn.nms_thresh, lowest)
    all_scores = torch.where(stays.reshape(all_scores.shape), all_scores, -torch.inf).flatten(1)
    count = min(rpn.post_nms_topk[False], all_scores.shape[1])
    best, rows = all_scores.topk(count, dim=1)
    return all_boxes.flatten(1, 2).gather(1, rows[:, :, None].expand(batch, count, 4)), best.isfinite()


def detect(
    roi_heads: Any,
    features: dict[str, torch.Tensor],
    boxes: torch.Tensor,
    valid: torch.Tensor,
    size_hw: tuple[int, int],
) -> Detections:
    """Run the ROI heads on proposals.

    Args:
        roi_heads: Detectron2's StandardROIHeads or CascadeROIHeads.
        features: level -> (B, C, h, w).
        boxes: (B, P, 4) from `propose`.
        valid: (B, P) bool.
        size_hw: (height, width) of the images without padding.

    Returns:
        Detections in pixels of the images, by falling score of the boxes.
    """
    levels = [features[name] for name in roi_heads.box_in_features]
    stages = (
        [*zip(roi_heads.box_head, roi_heads.box_predictor, strict=True)]
        if isinstance(roi_heads, CascadeROIHeads)
        else [(roi_heads.box_head, roi_heads.box_predictor)]
    )
    batch, count = valid.shape
    probs: Any = 0
    for stage, (head, predictor) in enumerate(stages):
        if stage:
            boxes = _clip(boxes[:, :, 0], size_hw)[0]
        logits, deltas = predictor(head(pool(roi_heads.box_pooler, levels, boxes)))
        probs = probs + (logits.sigmoid() if predictor.use_sigmoid_ce else logits.softmax(-1))
        boxes = predictor.box2box_transform.apply_deltas(deltas, boxes.flatten(0, 1))
        boxes = boxes.reshape(batch, count, -1, 4)
    scores = (probs * (1.0 / len(stages))).reshape(batch, count, -1)
    usable = valid & scores.isfinite().all(2)
    boxes, finite = _clip(boxes, size_hw)
    usable = usable & finite.all(2)
    scores = torch.where(usable[:, :, None], scores[:, :, :-1], -torch.inf)
    classes = scores.shape[2]
    by_class = boxes.expand(batch, count, classes, 4).transpose(1, 2)  # (B, K, P, 4)
    scores = scores.transpose(1, 2)
    stays = operators.nms_mask(
        by_class.flatten(0, 1).contiguous(),
        scores.flatten(0, 1),
        predictor.test_nms_thresh,
        predictor.test_score_thresh,
    )
    ranked = torch.where(stays.reshape(scores.shape), scores, -torch.inf).flatten(1)
    limit = min(predictor.test_topk_per_image, ranked.shape[1])
    best, rows = ranked.topk(limit, dim=1)
    chosen = by_class.flatten(1, 2).gather(1, rows[:, :, None].expand(batch, limit, 4))
    is_detection = best.isfinite()
    scores = torch.where(is_detection, best, 0.0)
    class_ids = torch.where(is_detection, rows // count, 0)
    chosen = torch.where(is_detection[:, :, None], chosen, 0.0)
    masks, quality = _predict_masks(roi_heads, features, chosen, class_ids)
    return Detections(masks, chosen, scores * quality, class_ids, is_detection)


def pool(pooler: Any, levels: list[torch.Tensor], boxes: torch.Tensor) -> torch.Tensor:
    """Run Detectron2's ROIPooler on (B, N, 4) boxes; returns (B N, C, side, side)."""
    batch, count = boxes.shape[:2]
    images = torch.arange(batch, device=boxes.device, dtype=boxes.dtype)[:, None, None].expand(batch, count, 1)
    rows = torch.cat([images, boxes], dim=2).flatten(0, 1)
    sides = rows[:, 3:] - rows[:, 1:3]
    lengths = (sides[:, 0] * sides[:, 1]).sqrt() / pooler.canonical_box_size
    level = (pooler.canonical_level + (lengths + EPSILON).log2()).floor()
    level = level.clamp(pooler.min_level, pooler.max_level).long() - pooler.min_level
    align = pooler.level_poolers[0]
    scales = [each.spatial_scale for each in pooler.level_poolers]
    side = pooler.output_size[0]
    return operators.pool_levels(levels, rows, level, scales, side, align.sampling_ratio, align.aligned)


def compute_probs(logits: torch.Tensor) -> torch.Tensor:
    """Compute the sigmoid, at most 1: that of onnxruntime gives up to 1.0000001, which the fusion reports as an error.

    Args:
        logits: of any shape.

    Returns:
        In [0, 1], or NaN if the logit is NaN.
    """
    probs = logits.sigmoid()
    return torch.where(probs > 1, 1.0, probs)


def _compute_anchors(generator: Any, level: int, rows: torch.Tensor, width: int) -> torch.Tensor:
    """(B, N, 4): the anchors with these numbers, counted by line, column and kind; the level has `width` columns."""
    kinds, stride = [*generator.cell_anchors][level], generator.strides[level]
    cells = rows // len(kinds)
    lines = cells // width
    x, y = ((index.float() + generator.offset) * stride for index in (cells - lines * width, lines))
    return torch.stack([x, y, x, y], dim=-1) + kinds[rows % len(kinds)]


def _predict_masks(
    roi_heads: Any, features: dict[str, torch.Tensor], boxes: torch.Tensor, class_ids: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | float]:
    """(B, D, m, m) probabilities, and (B, D) factors of the scores."""
    head, shape = roi_heads.mask_head, class_ids.shape
    pooled = pool(roi_heads.mask_pooler, [features[name] for name in roi_heads.mask_in_features], boxes)
    logits = head.layers(pooled)
    if logits.shape[1] > 1:
        index = class_ids.reshape(-1, 1, 1, 1).expand(-1, 1, *logits.shape[2:])
        logits = logits.gather(1, index)
    probs = compute_probs(logits[:, 0])
    masks = probs.reshape(*shape, *probs.shape[1:])
    if not hasattr(head, "mask_iou_head"):
        return masks, 1.0
    ious = head.mask_iou_head(pooled, probs).gather(1, class_ids.reshape(-1, 1))
    return masks, ious.clamp(0, 1).reshape(shape)


def _clip(boxes: torch.Tensor, size_hw: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """(..., 4) boxes within the image, 0 if they are not finite; and (...) bool, whether they are finite."""
    finite = boxes.isfinite().all(-1)
    boxes = torch.where(finite[..., None], boxes, 0.0)
    x0, y0, x1, y1 = boxes.unbind(-1)
    height, width = size_hw
    sides = [x0.clamp(0, width), y0.clamp(0, height), x1.clamp(0, width), y1.clamp(0, height)]
    return torch.stack(sides, dim=-1), finite
