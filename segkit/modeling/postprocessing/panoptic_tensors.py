"""The result of a fusion on tensors: a map of ids and a table of fixed size; read by the CPU in one transfer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn import functional as F

from segkit.modeling.postprocessing.detections import INPUT_ERRORS, Detections
from segkit.structures import VOID, PanopticSegmentation, Segment

COLUMNS = ("segment_id", "isthing", "category_id", "score", "instance_id", "area_px")


class FusedTensors(NamedTuple):
    """A fused image, or with a leading B a batch of images of one size.

    ids: (H, W) int32 segment ids, 0 = void. table: (N + S + 1, 6) float64, `COLUMNS`: the N instances by falling score,
    then stuff 1..S, segment_id 0 for what is no segment; category_id is contiguous; instance_id counts the valid rows,
    -1 for stuff. The first number of the last row is 0, or the sum of the keys of `INPUT_ERRORS` that hold.
    """

    ids: torch.Tensor
    table: torch.Tensor

    def with_input_errors(self, problems: torch.Tensor) -> FusedTensors:
        """A batch with further problems: (B,) int64, keys of `INPUT_ERRORS` that its tables do not have yet, or 0."""
        *_, rows, columns = self.table.shape
        return self._replace(table=self.table + F.pad(problems[:, None, None].double(), (0, columns - 1, rows - 1, 0)))

    def unbatched(self) -> list[FusedTensors]:
        """The images of a batch, as views."""
        return [FusedTensors(ids, table) for ids, table in zip(self.ids, self.table, strict=True)]


def to_panoptic(fused: Sequence[FusedTensors]) -> list[PanopticSegmentation]:
    """The images on the CPU, all of them in one transfer: the only synchronisation.

    fused: of single images, of any sizes, on one device. Things by falling score, then stuff by rising id. The maps
    are views of one buffer. Raises ValueError where a table says that the inputs were bad.
    """
    # The tables first: each begins at a multiple of eight bytes, so that it can be read as float64 again.
    packed = [*(one.table.view(torch.int32).flatten() for one in fused), *(one.ids.flatten() for one in fused)]
    parts = torch.cat(packed).cpu().split([part.numel() for part in packed]) if packed else ()
    made = []
    for one, table, ids in zip(fused, parts[: len(fused)], parts[len(fused) :], strict=True):
        segments = _segments(table.view(torch.float64).reshape(one.table.shape))
        made.append(PanopticSegmentation(ids.reshape(one.ids.shape).numpy(), segments))
    return made


def to_segments(fused: Sequence[FusedTensors]) -> list[tuple[Segment, ...]]:
    """The segments alone, in one transfer, for maps that stay where they are. Raises as `to_panoptic` does."""
    rows = [len(one.table) for one in fused]
    return [_segments(table) for table in torch.cat([one.table for one in fused]).cpu().split(rows)] if rows else []


def _segments(table: torch.Tensor) -> tuple[Segment, ...]:
    *rows, (problems, *_) = table.tolist()
    for bit, problem in INPUT_ERRORS.items():
        if int(problems) & bit:
            raise ValueError(problem)
    return tuple(_segment(row) for row in rows if row[0] != VOID)


def _segment(row: list[float]) -> Segment:
    segment_id, isthing, category_id, score, instance_id, area_px = row
    if not isthing:
        return Segment(int(segment_id), int(category_id), False, int(area_px))
    return Segment(int(segment_id), int(category_id), True, int(area_px), score=score, instance_id=int(instance_id))


def build_fused_tensors(
    best: Detections,
    instance_ids: torch.Tensor,
    owners: torch.Tensor,
    kept: torch.Tensor | None,
    stuff_there: torch.Tensor | int,
    stuff_area_limit_px: float,
    problems: torch.Tensor,
) -> FusedTensors:
    """
    best, instance_ids: of `sort_by_score`. owners: (B, H, W) int32, the rank of the instance that owns a pixel; where
    none does, N + stuff contiguous id, N for none. kept: (B, N) bool, the instances that make a segment, with pixels or
    not; None: those with pixels. stuff_there: S, stuff with a pixel at least can make a segment; or (B, S) bool, that
    which can. A class with fewer pixels than the limit is left out. problems: (B,) int64, see `table.INPUT_ERRORS`.
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
