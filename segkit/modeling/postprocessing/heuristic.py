"""The heuristic fusion on tensors: no value is read back before the end, and no N x H x W is needed.

Every function runs under torch.compile(fullgraph=True), exports to ONNX, and queues its work on a GPU without waiting.
"""

from __future__ import annotations

import torch

from segkit.fusion import HeuristicFusion
from segkit.modeling.postprocessing.detections import (
    STUFF_RANGE,
    Detections,
    find_input_errors,
    select_candidate_rows,
    sort_by_score,
)
from segkit.modeling.postprocessing.panoptic_tensors import FusedTensors, build_fused_tensors, count_labels
from segkit.modeling.postprocessing.paste import paste_each
from segkit.utils.errors import ConfigError

NMS_ON_TENSORS = ("none", "box")


def fuse_heuristic(
    detections: Detections,
    stuff_map: torch.Tensor,
    stuff_count: int,
    fusion: HeuristicFusion,
    class_thresholds: torch.Tensor,
    errors: torch.Tensor | int = 0,
) -> FusedTensors:
    """Paste and fuse B images of one size, with the ids and segments of HeuristicFusion.

    Of equal scores the earlier row is better. N and stuff_count may be 0. The table reports invalid inputs.

    Args:
        detections: Boxes in pixels of the (H, W) images.
        stuff_map: (B, H, W) integers in 0..stuff_count, stuff contiguous ids, 0 for things.
        stuff_count: The highest stuff contiguous id.
        fusion: The options.
        class_thresholds: `build_class_thresholds(fusion)` on the device.
        errors: (B,) int64, keys of `INPUT_ERRORS` for other inputs, reported in the table too; 0: none.

    Returns:
        The fused batch.

    Raises:
        ConfigError: The options ask for suppression by masks.
    """
    if fusion.nms not in NMS_ON_TENSORS:
        problem = f"nms must be one of {NMS_ON_TENSORS} on tensors, got {fusion.nms!r}"
        raise ConfigError(problem, remedy="fuse on the CPU")
    outside = (stuff_map < 0) | (stuff_map > stuff_count)
    all_errors = find_input_errors(detections) + errors + outside.flatten(1).any(1) * STUFF_RANGE
    stuff_map = stuff_map.clamp(0, stuff_count)
    ranked, instance_ids = sort_by_score(detections)
    nms_threshold = fusion.nms_threshold if fusion.nms == "box" else None
    candidates = select_candidate_rows(ranked, fusion.instance_score_threshold, class_thresholds, nms_threshold)
    total = candidates.shape[1]
    owners = stuff_map.int() + total
    is_placed = []
    for rank, _, mask, area_px in paste_each(ranked, (owners.shape[1], owners.shape[2])):
        free = mask & (owners >= total)
        share = (area_px - free.sum((1, 2))).double() / area_px.double()
        is_placed.append(candidates[:, rank] & (area_px > 0) & (share <= fusion.overlap_threshold))
        owners = owners.masked_fill(free & is_placed[-1][:, None, None], rank)
    placed = torch.stack(is_placed, dim=1) if is_placed else candidates
    # With a limit of 0 a class that is fully covered makes a segment too, if it is in the map.
    limit = fusion.stuff_area_limit_px
    stuff = count_labels(stuff_map, stuff_count + 1)[:, 1:] > 0 if limit <= 0 else stuff_count
    return build_fused_tensors(ranked, instance_ids, owners, placed, stuff, limit, all_errors)
