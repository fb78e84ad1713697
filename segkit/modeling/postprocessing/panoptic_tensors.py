"""The result of a fusion on tensors: a map of ids and a table of fixed size; read by the CPU in one transfer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn import functional as F

from segkit.structures import VOID, PanopticSegmentation, Segment

COLUMNS = ("segment_id", "isthing", "category_id", "score", "instance_id", "area_px")
NAN_INSTANCES, NAN_LOGITS, STUFF_RANGE, NEGATIVE_CLASS, NO_CHANNEL, NO_THINGS = (2**i for i in range(6))  # bits
PROBLEMS = {
    NAN_INSTANCES: "boxes and scores must be finite, mask_probs in [0, 1], got others: did the training diverge?",
    NAN_LOGITS: "logits must be finite, got NaN or infinity: did the training diverge?",
    STUFF_RANGE: "stuff_map must be in 0..stuff_count, got an id outside",
    NEGATIVE_CLASS: "class_ids of instances must not be negative, got one that is",
    NO_THINGS: "the semantic map has no channel of things, but there are instances",
    NO_CHANNEL: "the semantic map has no channel for the class of an instance, nor one for all things",
}


class FusedTensors(NamedTuple):
    """A fused image, or with a leading B a batch of images of one size.

    ids: (H, W) int32 segment ids, 0 = void. table: (N + S + 1, 6) float64, `COLUMNS`: the N instances by falling score,
    then stuff 1..S, segment_id 0 for what is no segment; category_id is contiguous; instance_id counts the valid rows,
    -1 for stuff. The first number of the last row is 0, or the sum of the keys of `PROBLEMS` that hold.
    """

    ids: torch.Tensor
    table: torch.Tensor

    def with_problems(self, problems: torch.Tensor) -> FusedTensors:
        """A batch with further problems: (B,) int64, keys of `PROBLEMS` that its tables do not have yet, or 0."""
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
    for bit, problem in PROBLEMS.items():
        if int(problems) & bit:
            raise ValueError(problem)
    return tuple(_segment(row) for row in rows if row[0] != VOID)


def _segment(row: list[float]) -> Segment:
    segment_id, isthing, category_id, score, instance_id, area_px = row
    if not isthing:
        return Segment(int(segment_id), int(category_id), False, int(area_px))
    return Segment(int(segment_id), int(category_id), True, int(area_px), score=score, instance_id=int(instance_id))
