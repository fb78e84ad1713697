"""The heuristic fusion on tensors: no value is read back before the end, and no N x H x W is needed.

Every function runs under torch.compile(fullgraph=True), exports to ONNX, and queues its work on a GPU without waiting.
"""

from __future__ import annotations

import torch

from segkit.fusion import HeuristicFusion
from segkit.fusion.paste import MASK_THRESHOLD
from segkit.modeling.postprocessing.detections import (
    Detections,
    find_input_errors,
    select_candidate_rows,
    sort_by_score,
)
from segkit.modeling.postprocessing.panoptic_tensors import FusedTensors, build_fused_tensors, count_labels
from segkit.modeling.postprocessing.paste import compute_sampling_axes, paste_each, paste_probs
from segkit.modeling.postprocessing.resampling import is_exporting
from segkit.structures.segment_table import STUFF_RANGE
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
    place = _place_in_loop if is_exporting() else _place_each
    owners, placed = place(ranked, candidates, owners, fusion.overlap_threshold)
    # With a limit of 0 a class that is fully covered makes a segment too, if it is in the map.
    limit = fusion.stuff_area_limit_px
    stuff = count_labels(stuff_map, stuff_count + 1)[:, 1:] > 0 if limit <= 0 else stuff_count
    return build_fused_tensors(ranked, instance_ids, owners, placed, stuff, limit, all_errors)


def _place_each(
    ranked: Detections, candidates: torch.Tensor, owners: torch.Tensor, overlap_threshold: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, H, W) owners with the instances in them, and (B, N) bool, which were placed."""
    is_placed = []
    for rank, _, mask, area_px in paste_each(ranked, (owners.shape[1], owners.shape[2])):
        owners, placed = _place(
            owners, mask, area_px, candidates[:, rank], rank, candidates.shape[1], overlap_threshold
        )
        is_placed.append(placed)
    return owners, torch.stack(is_placed, dim=1) if is_placed else candidates


def _place_in_loop(
    ranked: Detections, candidates: torch.Tensor, owners: torch.Tensor, overlap_threshold: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `_place_each`, as a loop in the graph, which ends after the last candidate of the batch."""
    total = candidates.shape[1]
    if not total:
        return owners, candidates
    ranks = torch.arange(total, device=owners.device)
    count = torch.where(candidates.any(0), ranks + 1, 0).amax(0)
    xs, ys = compute_sampling_axes(ranked.boxes_xyxy, (owners.shape[1], owners.shape[2]))

    def is_unfinished(rank: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return rank < count

    def place_next(
        rank: torch.Tensor, owners: torch.Tensor, placed: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        index = rank.reshape(1)
        mask = (
            paste_probs(*(field.index_select(1, index) for field in (ranked.mask_probs, xs, ys)))[:, 0]
            >= MASK_THRESHOLD
        )
        candidate = candidates.index_select(1, index)[:, 0]
        owners, is_placed = _place(owners, mask, mask.sum((1, 2)), candidate, rank, total, overlap_threshold)
        return rank + 1, owners, placed | (is_placed[:, None] & (ranks == rank))

    start = torch.zeros((), dtype=torch.int64, device=owners.device), owners, torch.zeros_like(candidates)
    _, owners, placed = torch.while_loop(is_unfinished, place_next, start)
    return owners, placed


def _place(
    owners: torch.Tensor,
    mask: torch.Tensor,
    area_px: torch.Tensor,
    candidate: torch.Tensor,
    rank: torch.Tensor | int,
    total: int,
    overlap_threshold: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give one instance of each image its free pixels, unless better ones hold too much: owners, and (B,) bool."""
    free = mask & (owners >= total)
    share = (area_px - free.sum((1, 2))).double() / area_px.double()
    placed = candidate & (area_px > 0) & (share <= overlap_threshold)
    return owners.masked_fill(free & placed[:, None, None], rank), placed
