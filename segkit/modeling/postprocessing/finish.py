"""From who owns which pixel to FusedTensors: ids, areas, the table; nothing is read back."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from segkit.modeling.postprocessing.detections import Detections
from segkit.modeling.postprocessing.panoptic_tensors import FusedTensors


def fused_of_owners(
    best: Detections,
    instance_ids: torch.Tensor,
    owners: torch.Tensor,
    kept: torch.Tensor | None,
    stuff_there: torch.Tensor | int,
    stuff_area_limit_px: float,
    problems: torch.Tensor,
) -> FusedTensors:
    """
    best, instance_ids: of `by_score`. owners: (B, H, W) int32, the rank of the instance that owns a pixel; where none
    does, N + stuff contiguous id, N for none. kept: (B, N) bool, the instances that make a segment, with pixels or not;
    None: those with pixels. stuff_there: S, stuff with a pixel at least can make a segment; or (B, S) bool, that which
    can. A class with fewer pixels than the limit is left out. problems: (B,) int64, see `table.PROBLEMS`.
    """
    total = best.scores.shape[1]
    count = stuff_there if isinstance(stuff_there, int) else stuff_there.shape[1]
    areas_px = histogram(owners, total + count + 1)
    if kept is None:
        kept = areas_px[:, :total] > 0
    free_px = areas_px[:, total + 1 :]
    stuff_kept = free_px.double() >= stuff_area_limit_px
    stuff_kept = stuff_kept & ((free_px > 0) if isinstance(stuff_there, int) else stuff_there)
    segment_ids = _numbered(kept, stuff_kept)
    ids = segment_ids.gather(1, owners.flatten(1).long()).reshape(owners.shape).int()
    listed = torch.cat([segment_ids[:, :total], segment_ids[:, total + 1 :]], dim=1)
    listed_px = torch.cat([areas_px[:, :total], free_px], dim=1)
    return FusedTensors(ids, _table(best, instance_ids, listed, listed_px, problems))


def histogram(labels: torch.Tensor, bins: int) -> torch.Tensor:
    """(B, bins) int64: pixels of each label of (B, H, W). Line by line, lest the whole image wait for one counter."""
    counts = torch.zeros((*labels.shape[:2], bins), dtype=torch.int32, device=labels.device)
    return counts.scatter_add(2, labels.long(), torch.ones_like(labels, dtype=torch.int32)).sum(1)


def _numbered(kept: torch.Tensor, stuff_kept: torch.Tensor) -> torch.Tensor:
    """(B, N + 1 + S) int64: the segment ids 1.. of the kept ones, 0 for the others and between things and stuff."""
    listed = torch.cat([kept, kept.new_zeros((len(kept), 1)), stuff_kept], dim=1)
    return listed.long().cumsum(1) * listed


def _table(
    best: Detections,
    instance_ids: torch.Tensor,
    segment_ids: torch.Tensor,
    areas_px: torch.Tensor,
    problems: torch.Tensor,
) -> torch.Tensor:
    """(B, N + S + 1, 6) float64, see `FusedTensors`."""
    batch, total = best.scores.shape
    stuff = segment_ids.shape[1] - total
    stuff_ids = torch.arange(1, stuff + 1, device=problems.device).expand(batch, stuff)
    columns = [
        segment_ids,
        torch.cat([torch.ones_like(best.class_ids), torch.zeros_like(stuff_ids)], dim=1),
        torch.cat([best.class_ids, stuff_ids], dim=1),
        torch.cat([best.scores.double(), torch.zeros_like(stuff_ids, dtype=torch.float64)], dim=1),
        torch.cat([instance_ids, torch.full_like(stuff_ids, -1)], dim=1),
        areas_px,
    ]
    rows = torch.stack([column.double() for column in columns], dim=2)
    status = F.pad(problems[:, None, None].double(), (0, len(columns) - 1))
    return torch.cat([rows, status], dim=1)
