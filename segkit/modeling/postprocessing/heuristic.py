"""The heuristic fusion on tensors: no value is read back before the end, and no N x H x W is needed.

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
from segkit.modeling.postprocessing.panoptic_tensors import FusedTensors, build_fused_tensors, count_labels
from segkit.modeling.postprocessing.paste import ROWS_PER_STEP, compute_sampling_axes, paste_probs
from segkit.utils.errors import ConfigError

NMS_ON_TENSORS = ("none", "box")


def fuse_heuristic(
    detections: Detections,
    stuff_map: torch.Tensor,
    stuff_count: int,
    fusion: HeuristicFusion,
    class_thresholds: torch.Tensor,
    has_nan_logits: torch.Tensor | None = None,
) -> FusedTensors:
    """Paste and fuse B images of one size, with the ids and segments of HeuristicFusion.

    Of equal scores the earlier row is better. N and stuff_count may be 0. The table reports invalid inputs.

    Args:
        detections: Boxes in pixels of the (H, W) images.
        stuff_map: (B, H, W) integers in 0..stuff_count, stuff contiguous ids, 0 for things.
        stuff_count: The highest stuff contiguous id.
        fusion: The options.
        class_thresholds: `build_class_thresholds(fusion)` on the device.
        has_nan_logits: (B,) bool, reported in the table; None: none.

    Returns:
        The fused batch.

    Raises:
        ConfigError: The options ask for suppression by masks.
    """
    if fusion.nms not in NMS_ON_TENSORS:
        problem = f"nms must be one of {NMS_ON_TENSORS} on tensors, got {fusion.nms!r}"
        raise ConfigError(problem, remedy="fuse on the CPU")
    outside = (stuff_map < 0) | (stuff_map > stuff_count)
    errors = find_input_errors(detections, has_nan_logits) + outside.flatten(1).any(1) * STUFF_RANGE
    stuff_map = stuff_map.clamp(0, stuff_count)
    ranked, instance_ids = sort_by_score(detections)
    nms_threshold = fusion.nms_threshold if fusion.nms == "box" else None
    candidates = select_candidate_rows(ranked, fusion.instance_score_threshold, class_thresholds, nms_threshold)
    owners = stuff_map.int() + candidates.shape[1]
    placed, owners = _place(ranked, candidates, owners, fusion.overlap_threshold)
    # With a limit of 0 a class that is fully covered makes a segment too, if it is in the map.
    limit = fusion.stuff_area_limit_px
    stuff = count_labels(stuff_map, stuff_count + 1)[:, 1:] > 0 if limit <= 0 else stuff_count
    return build_fused_tensors(ranked, instance_ids, owners, placed, stuff, limit, errors)


def _place(
    ranked: Detections, candidates: torch.Tensor, owners: torch.Tensor, overlap_threshold: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give each candidate by rank its free pixels, unless too many are taken; return (B, N) bool and the owners."""
    total = candidates.shape[1]
    xs, ys = compute_sampling_axes(ranked.boxes_xyxy, (owners.shape[1], owners.shape[2]))
    placed = []
    for start in range(0, total, ROWS_PER_STEP):
        rows = slice(start, min(start + ROWS_PER_STEP, total))
        masks = paste_probs(ranked.mask_probs[:, rows], xs[:, rows], ys[:, rows]) >= MASK_THRESHOLD
        areas_px = masks.sum((2, 3))
        possible = candidates[:, rows] & (areas_px > 0)
        for step, rank in enumerate(range(rows.start, rows.stop)):
            free = masks[:, step] & (owners >= total)
            share = (areas_px[:, step] - free.sum((1, 2))).double() / areas_px[:, step].double()
            placed.append(possible[:, step] & (share <= overlap_threshold))
            owners = owners.masked_fill(free & placed[-1][:, None, None], rank)
    return (torch.stack(placed, dim=1) if placed else candidates), owners
