"""Why a segment was dropped or shrunk: told after the fusion, from what went in and what came out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from segkit.structures import THING_CHANNEL, VOID, HeadOutputs, InstanceMasks, PanopticSegmentation, Segment

REASONS = ("score", "nms", "overlap", "area", "occluded", "void", "empty")


@dataclass(frozen=True)
class Rejection:
    """Why a candidate was dropped: one of REASONS, the value that was looked at and the limit that it broke."""

    reason: str
    value: float
    limit: float


@dataclass
class RejectionLog:
    """What a method says while it runs. instances: by row of the instances; stuff: by stuff contiguous id."""

    instances: dict[int, Rejection] = field(default_factory=dict)
    stuff: dict[int, Rejection] = field(default_factory=dict)


@dataclass(frozen=True)
class DroppedSegment:
    """What became of one instance, or of one stuff class of the semantic map, that lost pixels or was dropped.

    reason: "score" (too low), "nms" (a better instance is at the same place), "overlap" (of a dropped one: too much
    of it was taken; of a kept one: some pixels were), "area" (too few pixels were left), "occluded" (dropped, since
    others hold its pixels), "void" (none of its pixels was taken, but some were left to nobody), "empty" (its mask has
    no pixel).
    category_id: contiguous. instance_id: row of the instances, None of stuff. area_px: of its binary mask, or of its
    class in the semantic map. kept_px: of these, those that its segment holds. segment_id: VOID (0) where it was
    dropped. taken_by: (segment_id, pixels) of those who hold the others, VOID for nobody, most pixels first.
    value, limit: what was compared, where a threshold decided.
    """

    reason: str
    isthing: bool
    category_id: int
    instance_id: int | None
    score: float | None
    area_px: int
    kept_px: int
    segment_id: int
    overlapped_by: tuple[tuple[int, int], ...]
    value: float | None = None
    limit: float | None = None


def explain_segments(
    outputs: HeadOutputs, fused: PanopticSegmentation, rejections: RejectionLog
) -> list[DroppedSegment]:
    """The fates of instances in their order, then of stuff by id; those that kept every pixel are not listed. A segment
    without a pixel, which no file can hold, counts as dropped."""
    instances, ids = outputs.instances, fused.segment_ids
    made_of = {s.instance_id: s for s in fused.segments if s.isthing and s.area_px}
    made_as = {s.category_id: s for s in fused.segments if not s.isthing and s.area_px}
    found = []
    for row in range(len(instances)):
        held = ids[instances.window(row)][instances.crops[row]]
        claim = (True, int(instances.class_ids[row]), row, float(instances.scores[row]))
        found.append(_fate(claim, held, made_of.get(row), rejections.instances.get(row)))
    for stuff_id, pixels in _claims_of_stuff(outputs):
        found.append(
            _fate((False, stuff_id, None, None), ids[pixels], made_as.get(stuff_id), rejections.stuff.get(stuff_id))
        )
    return [fate for fate in found if fate is not None]


def _claims_of_stuff(outputs: HeadOutputs) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    if outputs.stuff_masks is not None:
        yield from _union_by_class(outputs.stuff_masks).items()
        return
    stuff_map = outputs.semantic.stuff_map()
    for stuff_id in np.flatnonzero(np.bincount(stuff_map.ravel())).tolist():
        if stuff_id != THING_CHANNEL:
            yield stuff_id, stuff_map == stuff_id


def _union_by_class(masks: InstanceMasks) -> dict[int, NDArray[np.bool_]]:
    union: dict[int, NDArray[np.bool_]] = {}
    for row in np.argsort(masks.class_ids, kind="stable").tolist():
        whole = union.setdefault(int(masks.class_ids[row]), np.zeros(masks.size_hw, dtype=np.bool_))
        whole[masks.window(row)] |= masks.crops[row]
    return union


def _fate(
    claim: tuple[bool, int, int | None, float | None],
    held: NDArray[np.int32],
    segment: Segment | None,
    verdict: Rejection | None,
) -> DroppedSegment | None:
    """held: the segment ids that lie at the pixels which the candidate claimed."""
    shares = {holder: pixels for holder, pixels in enumerate(np.bincount(held).tolist()) if pixels}
    segment_id = VOID if segment is None else segment.segment_id
    kept_px = 0 if segment is None else shares.pop(segment_id, 0)
    if segment is not None and kept_px == held.size:
        return None
    overlapped_by = tuple(sorted(shares.items(), key=lambda share: (-share[1], share[0])))
    value, limit = (None, None) if verdict is None else (verdict.value, verdict.limit)
    reason = _reason(held.size, segment, overlapped_by) if verdict is None else verdict.reason
    return DroppedSegment(reason, *claim, held.size, kept_px, segment_id, overlapped_by, value, limit)


def _reason(area_px: int, segment: Segment | None, overlapped_by: tuple[tuple[int, int], ...]) -> str:
    if area_px == 0:
        return "empty"
    if all(holder == VOID for holder, _ in overlapped_by):
        return "void"
    return "overlap" if segment is not None else "occluded"
