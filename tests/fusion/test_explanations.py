"""Explanations on one-row maps: which instance claimed which pixels, which segment has them, and the reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from segkit.fusion import DroppedSegment, HeuristicFusion, method
from segkit.fusion.explanations import Rejection, RejectionLog, explain_segments
from segkit.structures import HeadOutputs, InstanceMasks, PanopticSegmentation, Segment, SemanticScores

A = [1, 1, 1, 1, 0, 0]  # class 5
B = [0, 0, 1, 1, 1, 0]  # class 7: 2 of its 3 pixels are under A
STUFF = [0, 0, 0, 1, 2, 2]


def instances(rows: list[list[int]], scores: list[float]) -> InstanceMasks:
    masks = np.array(rows, dtype=bool).reshape(-1, 1, 6)
    class_ids = np.array([5, 7, 9][: len(rows)], dtype=int)
    boxes = np.array([[0, 0, 4, 1], [2, 0, 5, 1], [0, 0, 6, 1]], dtype=np.float32)[: len(rows)]
    return InstanceMasks.from_full(masks, boxes, np.array(scores, dtype=np.float32), class_ids)


def outputs(rows: list[list[int]], scores: list[float], stuff: list[int] | None = None) -> HeadOutputs:
    return HeadOutputs(instances(rows, scores), SemanticScores.from_stuff_ids(np.array([stuff or [0] * 6])))


def fused_and_told(given: HeadOutputs, **options: Any) -> tuple[list[list[int]], list[DroppedSegment]]:
    dropped_segments: list[DroppedSegment] = []
    fused = HeuristicFusion(**{"stuff_area_limit_px": 1} | options)(given, dropped_segments)
    return fused.segment_ids.tolist(), dropped_segments


def test_instances_that_keep_all_pixels_are_not_listed() -> None:
    assert fused_and_told(outputs([A], [0.75], [0, 0, 0, 0, 2, 2])) == ([[1, 1, 1, 1, 2, 2]], [])


def test_score() -> None:
    """A (0.25) is below 0.5. B holds 2 of its pixels; 2 are void: of equal counts the lower id, void, first."""
    ids, dropped_segments = fused_and_told(outputs([A, B], [0.25, 0.75]))
    assert ids == [[0, 0, 1, 1, 1, 0]]
    assert dropped_segments == [
        DroppedSegment(
            reason="score",
            isthing=True,
            category_id=5,
            instance_id=0,
            score=0.25,
            area_px=4,
            kept_px=0,
            segment_id=0,
            overlapped_by=((0, 2), (1, 2)),
            value=0.25,
            limit=0.5,
        )
    ]


def test_nms() -> None:
    """The boxes share 2 of 4 + 3 - 2 = 5 pixels: IoU 0.4 > 0.3. B's third pixel becomes stuff."""
    given = outputs([A, B], [0.875, 0.75], [0, 0, 0, 0, 2, 2])
    ids, dropped_segments = fused_and_told(given, nms="box", nms_threshold=0.3)
    assert ids == [[1, 1, 1, 1, 2, 2]]
    assert dropped_segments == [
        DroppedSegment(
            reason="nms",
            isthing=True,
            category_id=7,
            instance_id=1,
            score=0.75,
            area_px=3,
            kept_px=0,
            segment_id=0,
            overlapped_by=((1, 2), (2, 1)),
            value=0.4,
            limit=0.3,
        )
    ]


def test_overlap_of_a_dropped_instance() -> None:
    """2 of B's 3 pixels are taken, 2/3 > 0.5; the third is void."""
    ids, dropped_segments = fused_and_told(outputs([A, B], [0.875, 0.75]))
    assert ids == [[1, 1, 1, 1, 0, 0]]
    assert dropped_segments == [
        DroppedSegment(
            reason="overlap",
            isthing=True,
            category_id=7,
            instance_id=1,
            score=0.75,
            area_px=3,
            kept_px=0,
            segment_id=0,
            overlapped_by=((1, 2), (0, 1)),
            value=2 / 3,
            limit=0.5,
        )
    ]


def test_overlap_of_a_kept_instance() -> None:
    """At 0.75 B stays with its third pixel: it is shrunk, and no threshold decided."""
    ids, dropped_segments = fused_and_told(outputs([A, B], [0.875, 0.75]), overlap_threshold=0.75)
    assert ids == [[1, 1, 1, 1, 2, 0]]
    assert dropped_segments == [
        DroppedSegment(
            reason="overlap",
            isthing=True,
            category_id=7,
            instance_id=1,
            score=0.75,
            area_px=3,
            kept_px=1,
            segment_id=2,
            overlapped_by=((1, 2),),
        )
    ]


def test_overlap_of_a_kept_instance_without_pixels() -> None:
    """At 1 a second A is kept with no pixel, as Detectron2 does, and at 0 stuff 1: no file can hold such segments."""
    given = outputs([A, A], [0.875, 0.75], [1, 0, 0, 0, 0, 0])
    ids, dropped_segments = fused_and_told(given, overlap_threshold=1, stuff_area_limit_px=0)
    assert ids == [[1, 1, 1, 1, 0, 0]]
    assert len(HeuristicFusion(overlap_threshold=1, stuff_area_limit_px=0)(given).segments) == 3
    assert dropped_segments == [
        DroppedSegment(
            reason="occluded",
            isthing=True,
            category_id=7,
            instance_id=1,
            score=0.75,
            area_px=4,
            kept_px=0,
            segment_id=0,
            overlapped_by=((1, 4),),
        ),
        DroppedSegment(
            reason="occluded",
            isthing=False,
            category_id=1,
            instance_id=None,
            score=None,
            area_px=1,
            kept_px=0,
            segment_id=0,
            overlapped_by=((1, 1),),
        ),
    ]


def test_stuff_that_is_shrunk_fully_occluded_or_too_small() -> None:
    """A takes the one pixel of stuff 1 and one of the three of stuff 2; of stuff 3 it leaves one, fewer than 2."""
    ids, dropped_segments = fused_and_told(outputs([A], [0.75], [0, 0, 1, 2, 2, 2]), stuff_area_limit_px=2)
    assert ids == [[1, 1, 1, 1, 2, 2]]
    assert dropped_segments == [
        DroppedSegment(
            reason="occluded",
            isthing=False,
            category_id=1,
            instance_id=None,
            score=None,
            area_px=1,
            kept_px=0,
            segment_id=0,
            overlapped_by=((1, 1),),
        ),
        DroppedSegment(
            reason="overlap",
            isthing=False,
            category_id=2,
            instance_id=None,
            score=None,
            area_px=3,
            kept_px=2,
            segment_id=2,
            overlapped_by=((1, 1),),
        ),
    ]
    ids, dropped_segments = fused_and_told(outputs([A], [0.75], [0, 0, 0, 3, 3, 0]), stuff_area_limit_px=2)
    assert ids == [[1, 1, 1, 1, 0, 0]]
    assert dropped_segments == [
        DroppedSegment(
            reason="area",
            isthing=False,
            category_id=3,
            instance_id=None,
            score=None,
            area_px=2,
            kept_px=0,
            segment_id=0,
            overlapped_by=((0, 1), (1, 1)),
            value=1,
            limit=2,
        )
    ]


def test_empty() -> None:
    _, dropped_segments = fused_and_told(outputs([A, [0] * 6], [0.75, 0.875]))
    assert dropped_segments == [
        DroppedSegment(
            reason="empty",
            isthing=True,
            category_id=7,
            instance_id=1,
            score=0.875,
            area_px=0,
            kept_px=0,
            segment_id=0,
            overlapped_by=(),
        )
    ]


def by_hand(
    given: HeadOutputs, ids: list[int], *segments: Segment, rejections: RejectionLog | None = None
) -> list[DroppedSegment]:
    """The explanations if a method gave these ids, without rejections unless given."""
    fused = PanopticSegmentation(np.array([ids], dtype=np.int32), segments)
    return explain_segments(given, fused, rejections or RejectionLog())


def test_occluded_instances_name_the_segments_that_overlap_them() -> None:
    """B lost two pixels to A and one to stuff, without a threshold: the occluder with the most pixels comes first."""
    given = outputs([A, B], [0.875, 0.75], [0, 0, 0, 0, 2, 2])
    segments = Segment(1, 5, True, 4, score=0.875, instance_id=0), Segment(2, 2, False, 2)
    assert by_hand(given, [1, 1, 1, 1, 2, 2], *segments) == [
        DroppedSegment(
            reason="occluded",
            isthing=True,
            category_id=7,
            instance_id=1,
            score=0.75,
            area_px=3,
            kept_px=0,
            segment_id=0,
            overlapped_by=((1, 2), (2, 1)),
        ),
    ]


def test_void_of_a_kept_and_of_a_dropped_instance() -> None:
    """A keeps two pixels and leaves two void; C, of the last two pixels, is dropped and leaves both."""
    given = outputs([A, [0, 0, 0, 0, 1, 1]], [0.875, 0.75])
    assert by_hand(given, [1, 1, 0, 0, 0, 0], Segment(1, 5, True, 2, score=0.875, instance_id=0)) == [
        DroppedSegment(
            reason="void",
            isthing=True,
            category_id=5,
            instance_id=0,
            score=0.875,
            area_px=4,
            kept_px=2,
            segment_id=1,
            overlapped_by=((0, 2),),
        ),
        DroppedSegment(
            reason="void",
            isthing=True,
            category_id=7,
            instance_id=1,
            score=0.75,
            area_px=2,
            kept_px=0,
            segment_id=0,
            overlapped_by=((0, 2),),
        ),
    ]


def test_a_rejection_comes_before_the_map() -> None:
    given = outputs([A], [0.75])
    rejections = RejectionLog(instances={0: Rejection("area", 4, 9)})
    assert by_hand(given, [0] * 6, rejections=rejections) == [
        DroppedSegment(
            reason="area",
            isthing=True,
            category_id=5,
            instance_id=0,
            score=0.75,
            area_px=4,
            kept_px=0,
            segment_id=0,
            overlapped_by=((0, 4),),
            value=4,
            limit=9,
        )
    ]


def test_masks_of_stuff_claim_together() -> None:
    """Two masks of stuff 3 claim pixels 0..3 together; the segment of stuff 3 holds 0..2, an instance the fourth."""
    first, second = [1, 1, 0, 0, 0, 0], [0, 1, 1, 1, 0, 0]
    masks = np.array([first, second], dtype=bool).reshape(2, 1, 6)
    stuff = InstanceMasks.from_full(masks, np.zeros((2, 4), np.float32), np.ones(2, np.float32), np.array([3, 3]))
    things = instances([[0, 0, 0, 1, 1, 1]], [0.75])
    given = HeadOutputs(things, SemanticScores.from_stuff_ids(np.zeros((1, 6), dtype=int)), stuff_masks=stuff)
    segments = Segment(1, 5, True, 3, score=0.75, instance_id=0), Segment(2, 3, False, 3)
    assert by_hand(given, [2, 2, 2, 1, 1, 1], *segments) == [
        DroppedSegment(
            reason="overlap",
            isthing=False,
            category_id=3,
            instance_id=None,
            score=None,
            area_px=4,
            kept_px=3,
            segment_id=2,
            overlapped_by=((1, 1),),
        ),
    ]


def test_without_a_rejection_log_nothing_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_issue(*args: Any) -> Any:
        raise RuntimeError("called")

    monkeypatch.setattr(method, "explain_segments", raise_issue)
    monkeypatch.setattr(method, "RejectionLog", raise_issue)
    given = outputs([A, B], [0.875, 0.25], STUFF)
    assert HeuristicFusion(stuff_area_limit_px=9, nms="mask")(given).segment_ids.tolist() == [[1, 1, 1, 1, 0, 0]]
    with pytest.raises(RuntimeError, match="called"):
        HeuristicFusion()(given, [])
