"""Why a segment was dropped or lost pixels, computed after the fusion from its input, its result and its rejections."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from segkit.structures import THING_CHANNEL, VOID, HeadOutputs, PanopticSegmentation, Segment

REASONS = ("score", "nms", "overlap", "area", "occluded", "void", "empty")


@dataclass(frozen=True)
class Rejection:
    """Why a method rejected a candidate.

    Attributes:
        reason: One of REASONS.
        value: The value that was compared.
        limit: The limit that the value broke.
    """

    reason: str
    value: float
    limit: float


@dataclass
class RejectionLog:
    """The rejections of one fusion.

    Attributes:
        instances: Rejection by row of the instances.
        stuff: Rejection by stuff contiguous id.
    """

    instances: dict[int, Rejection] = field(default_factory=dict)
    stuff: dict[int, Rejection] = field(default_factory=dict)


@dataclass(frozen=True)
class DroppedSegment:
    """An instance, or a stuff class of the semantic map, that was dropped or lost pixels.

    Attributes:
        reason: One of REASONS. "score": too low. "nms": suppressed by a better instance. "overlap": too many pixels
            of a dropped segment were taken, or some of a kept one. "area": too few pixels were left. "occluded": other
            segments hold all its pixels. "void": no other segment holds its pixels. "empty": its mask has no pixel.
        isthing: Whether it is an instance.
        category_id: Contiguous id.
        instance_id: Row of the instances, None for stuff.
        score: Score of the instance, None for stuff.
        area_px: Pixels of its binary mask, or of its class in the semantic map.
        kept_px: Number of these pixels in its segment.
        segment_id: Id of its segment, VOID (0) if it was dropped.
        overlapped_by: (segment_id, pixels) of the holders of its other pixels, VOID for none, most pixels first.
        value: The value that broke a limit, None without a limit.
        limit: The limit, None without a limit.
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
    """Explain every candidate that did not keep all its pixels.

    A segment without a pixel counts as dropped, because no file can hold it.

    Args:
        outputs: Input of the fusion.
        fused: Result of the fusion.
        rejections: What the method logged.

    Returns:
        Instances by row, then stuff by contiguous id. Candidates that kept every pixel are not listed.
    """
    instances, ids = outputs.instances, fused.segment_ids
    thing_segments = {s.instance_id: s for s in fused.segments if s.isthing and s.area_px}
    stuff_segments = {s.category_id: s for s in fused.segments if not s.isthing and s.area_px}
    explanations = []
    for row in range(len(instances)):
        ids_on_mask = ids[instances.window(row)][instances.crops[row]]
        candidate = (True, int(instances.class_ids[row]), row, float(instances.scores[row]))
        explanations.append(_explain(candidate, ids_on_mask, thing_segments.get(row), rejections.instances.get(row)))
    for class_id, mask in _iterate_stuff(outputs):
        stuff = stuff_segments.get(class_id), rejections.stuff.get(class_id)
        explanations.append(_explain((False, class_id, None, None), ids[mask], *stuff))
    return [dropped for dropped in explanations if dropped is not None]


def _iterate_stuff(outputs: HeadOutputs) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Stuff contiguous ids and their (H, W) masks."""
    if (masks := outputs.stuff_masks) is not None:
        unions: dict[int, NDArray[np.bool_]] = {}
        for row in np.argsort(masks.class_ids, kind="stable").tolist():
            union = unions.setdefault(int(masks.class_ids[row]), np.zeros(masks.size_hw, dtype=np.bool_))
            union[masks.window(row)] |= masks.crops[row]
        yield from unions.items()
        return
    stuff_map = outputs.semantic.stuff_map()
    for class_id in np.flatnonzero(np.bincount(stuff_map.ravel())).tolist():
        if class_id != THING_CHANNEL:
            yield class_id, stuff_map == class_id


def _explain(
    candidate: tuple[bool, int, int | None, float | None],
    ids_on_mask: NDArray[np.int32],
    segment: Segment | None,
    rejection: Rejection | None,
) -> DroppedSegment | None:
    """candidate: isthing, category_id, instance_id and score."""
    shares = {segment_id: pixels for segment_id, pixels in enumerate(np.bincount(ids_on_mask).tolist()) if pixels}
    segment_id = VOID if segment is None else segment.segment_id
    kept_px = 0 if segment is None else shares.pop(segment_id, 0)
    if segment is not None and kept_px == ids_on_mask.size:
        return None
    overlapped_by = tuple(sorted(shares.items(), key=lambda share: (-share[1], share[0])))
    value, limit = (None, None) if rejection is None else (rejection.value, rejection.limit)
    reason = _find_reason(ids_on_mask.size, segment, overlapped_by) if rejection is None else rejection.reason
    return DroppedSegment(reason, *candidate, ids_on_mask.size, kept_px, segment_id, overlapped_by, value, limit)


def _find_reason(area_px: int, segment: Segment | None, overlapped_by: tuple[tuple[int, int], ...]) -> str:
    if area_px == 0:
        return "empty"
    if all(segment_id == VOID for segment_id, _ in overlapped_by):
        return "void"
    return "overlap" if segment is not None else "occluded"
