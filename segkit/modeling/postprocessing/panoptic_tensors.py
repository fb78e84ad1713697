"""The result of a fusion on tensors: a map of ids and a table of fixed size, which the CPU reads in one transfer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn import functional as F

from segkit.modeling.postprocessing.detections import Detections
from segkit.structures import PanopticSegmentation, Segment
from segkit.structures.segment_table import read_segments


class FusedTensors(NamedTuple):
    """A fused image, or with a leading B a batch of images of one size.

    Attributes:
        ids: (H, W) int32 segment ids, 0 = void.
        table: (N + S + 1, 6) float64, see `COLUMNS` in segkit/structures/segment_table.py: the N instances by falling
            score, stuff 1..S, and a row whose first number is the sum of the keys of `INPUT_ERRORS` that apply.
            segment_id is 0 without a segment. category_id is contiguous. instance_id counts the valid rows, -1 for
            stuff.
    """

    ids: torch.Tensor
    table: torch.Tensor

    def unbatched(self) -> list[FusedTensors]:
        """Split a batch.

        Returns:
            One for each image, as views.
        """
        return [FusedTensors(ids, table) for ids, table in zip(self.ids, self.table, strict=True)]


def build_fused_tensors(
    ranked: Detections,
    instance_ids: torch.Tensor,
    owners: torch.Tensor,
    placed: torch.Tensor | None,
    stuff: torch.Tensor | int,
    stuff_area_limit_px: float,
    errors: torch.Tensor,
) -> FusedTensors:
    """Build ids, areas and the table from the owners of pixels. Nothing is read back.

    Args:
        ranked: Detections from `sort_by_score`.
        instance_ids: (B, N) int64 from `sort_by_score`.
        owners: (B, H, W) int32, the rank of the instance that owns a pixel, or N + stuff contiguous id, or N for none.
        placed: (B, N) bool, the instances that make a segment, even without pixels; None: those with pixels.
        stuff: (B, S) bool, the stuff classes that may make a segment, even without pixels; or S: those with pixels.
        stuff_area_limit_px: Stuff classes with fewer pixels are left out.
        errors: (B,) int64, sums of keys of `INPUT_ERRORS`.

    Returns:
        The fused batch.
    """
    total = ranked.scores.shape[1]
    count = stuff if isinstance(stuff, int) else stuff.shape[1]
    areas_px = count_labels(owners, total + count + 1)
    if placed is None:
        placed = areas_px[:, :total] > 0
    stuff_px = areas_px[:, total + 1 :]
    placed_stuff = stuff_px.double() >= stuff_area_limit_px
    placed_stuff = placed_stuff & ((stuff_px > 0) if isinstance(stuff, int) else stuff)
    is_segment = torch.cat([placed, placed.new_zeros((placed.shape[0], 1)), placed_stuff], dim=1)  # no owner is between
    segment_ids = is_segment.long().cumsum(1) * is_segment
    ids = segment_ids.gather(1, owners.flatten(1).long()).reshape(owners.shape).int()
    stuff_ids = torch.arange(1, count + 1, device=errors.device).expand_as(stuff_px)
    columns = [  # in the order of COLUMNS
        torch.cat([segment_ids[:, :total], segment_ids[:, total + 1 :]], dim=1),
        torch.cat([torch.ones_like(ranked.class_ids), torch.zeros_like(stuff_ids)], dim=1),
        torch.cat([ranked.class_ids, stuff_ids], dim=1),
        torch.cat([ranked.scores.double(), torch.zeros_like(stuff_ids, dtype=torch.float64)], dim=1),
        torch.cat([instance_ids, torch.full_like(stuff_ids, -1)], dim=1),
        torch.cat([areas_px[:, :total], stuff_px], dim=1),
    ]
    rows = torch.stack([column.double() for column in columns], dim=2)
    status = F.pad(errors[:, None, None].double(), (0, len(columns) - 1))
    return FusedTensors(ids, torch.cat([rows, status], dim=1))


def count_labels(labels: torch.Tensor, bins: int) -> torch.Tensor:
    """(B, bins) int64: pixels of each label of (B, H, W). Counted by line, so that pixels do not share one counter."""
    counts = torch.zeros((*labels.shape[:2], bins), dtype=torch.int32, device=labels.device)
    return counts.scatter_add(2, labels.long(), torch.ones_like(labels, dtype=torch.int32)).sum(1)


def to_panoptic(fused: Sequence[FusedTensors]) -> list[PanopticSegmentation]:
    """Copy images to the CPU, all of them in one transfer. This is the only synchronisation.

    Args:
        fused: Single images of any sizes, on one device.

    Returns:
        Segmentations with things by falling score, then stuff by rising id. The maps are views of one buffer.

    Raises:
        ValueError: A table reports an error of the inputs.
    """
    # The tables first: each begins at a multiple of eight bytes, so that it can be read as float64 again.
    packed = [*(image.table.view(torch.int32).flatten() for image in fused), *(image.ids.flatten() for image in fused)]
    parts = torch.cat(packed).cpu().split([part.numel() for part in packed]) if packed else ()
    segmentations = []
    for image, table, ids in zip(fused, parts[: len(fused)], parts[len(fused) :], strict=True):
        segments = _read_table(table.view(torch.float64).reshape(image.table.shape))
        segmentations.append(PanopticSegmentation(ids.reshape(image.ids.shape).numpy(), segments))
    return segmentations


def to_segments(fused: Sequence[FusedTensors]) -> list[tuple[Segment, ...]]:
    """As `to_panoptic`, but only the segments are copied: the maps stay on the device."""
    rows = [len(image.table) for image in fused]
    if not rows:
        return []
    return [_read_table(table) for table in torch.cat([image.table for image in fused]).cpu().split(rows)]


def _read_table(table: torch.Tensor) -> tuple[Segment, ...]:
    *rows, (errors, *_) = table.tolist()
    return read_segments(rows, int(errors))
