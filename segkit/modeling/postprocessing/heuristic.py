"""The heuristic fusion on tensors: no value is read back before the end, and no N x H x W is made.

Every function runs under torch.compile(fullgraph=True), exports to ONNX, and queues its work on a GPU without waiting.
"""

from __future__ import annotations

import torch

from segkit.fusion import HeuristicFusion
from segkit.fusion.paste import MASK_THRESHOLD
from segkit.modeling.postprocessing.detections import (
    STUFF_RANGE,
    Detections,
    find_input_errors,
    select_candidate_rows,
    sort_by_score,
)
from segkit.modeling.postprocessing.panoptic_tensors import FusedTensors, build_fused_tensors, histogram
from segkit.modeling.postprocessing.paste import ROWS_PER_STEP, paste_probs, sampling_axes
from segkit.utils.errors import ConfigError

NMS_ON_TENSORS = ("none", "box")


def fuse_heuristic(
    found: Detections,
    stuff_map: torch.Tensor,
    stuff_count: int,
    rule: HeuristicFusion,
    limits: torch.Tensor,
    nan_logits: torch.Tensor | None = None,
) -> FusedTensors:
    """Paste and fuse B images of one size: the ids and segments of `rule` (segkit/fusion/heuristic.py), as tensors.

    found: boxes in pixels of the (H, W) images. stuff_map: (B, H, W) integers in 0..stuff_count, 0 for things.
    limits: `build_class_thresholds(rule)` on the device. nan_logits: (B,) bool, reported in the table.
    Of equal scores the earlier row is better; N may be 0, and stuff_count too. Bad values are reported in the table;
    ConfigError where the rule asks for suppression by masks.
    """
    if rule.nms not in NMS_ON_TENSORS:
        raise ConfigError(f"nms must be one of {NMS_ON_TENSORS} on tensors, got {rule.nms!r}", remedy="fuse on the CPU")
    outside = (stuff_map < 0) | (stuff_map > stuff_count)
    problems = find_input_errors(found, nan_logits) + outside.flatten(1).any(1) * STUFF_RANGE
    stuff_map = stuff_map.clamp(0, stuff_count)
    best, instance_ids = sort_by_score(found)
    nms_threshold = rule.nms_threshold if rule.nms == "box" else None
    good = select_candidate_rows(best, rule.instance_score_threshold, limits, nms_threshold)
    kept, owners = _claim(best, good, stuff_map.int() + good.shape[1], rule.overlap_threshold)
    # At a limit of 0 even a class that is all taken makes a segment, but only if the map holds it.
    at_zero = rule.stuff_area_limit_px <= 0
    there = histogram(stuff_map, stuff_count + 1)[:, 1:] > 0 if at_zero else stuff_count
    return build_fused_tensors(best, instance_ids, owners, kept, there, rule.stuff_area_limit_px, problems)


def _claim(
    best: Detections, good: torch.Tensor, owners: torch.Tensor, overlap_threshold: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rank by rank, the free pixels of each mask of which not too much is taken; (B, N) bool and the owners then."""
    total = good.shape[1]
    xs, ys = sampling_axes(best.boxes_xyxy, (owners.shape[1], owners.shape[2]))
    kept = []
    for start in range(0, total, ROWS_PER_STEP):
        rows = slice(start, min(start + ROWS_PER_STEP, total))
        masks = paste_probs(best.mask_probs[:, rows], xs[:, rows], ys[:, rows]) >= MASK_THRESHOLD
        areas_px = masks.sum((2, 3))
        possible = good[:, rows] & (areas_px > 0)
        for step, rank in enumerate(range(rows.start, rows.stop)):
            free = masks[:, step] & (owners >= total)
            taken = (areas_px[:, step] - free.sum((1, 2))).double() / areas_px[:, step].double()
            keep = possible[:, step] & (taken <= overlap_threshold)
            owners = owners.masked_fill(free & keep[:, None, None], rank)
            kept.append(keep)
    return (torch.stack(kept, dim=1) if kept else good), owners
