"""Stuff in void pixels and segments from pixel owners on hand-drawn maps, compiled and in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segkit.fusion import segments as module
from segkit.fusion.explanations import Rejection, RejectionLog
from segkit.fusion.segments import build_segments_from_owners, build_thing_segment, fill_stuff
from segkit.structures import InstanceMasks, PanopticSegmentation, Segment
from segkit.utils.compiled import COMPILED

WAYS = [pytest.param(True, marks=pytest.mark.skipif(not COMPILED, reason="needs numba")), False]
both_ways = pytest.mark.parametrize("way", WAYS, ids=["compiled", "numpy"])
THING = Segment(1, 0, True, 2, score=0.75, instance_id=0)

IDS = [[1, 1, 0, 0], [0, 0, 0, 0]]
STUFF = [[7, 7, 7, 0], [3, 3, 7, 9]]  # of 7 two pixels are taken, two are left


def filled(
    way: bool, ids: Any, stuff: Any, limit: float, rejections: RejectionLog | None = None
) -> PanopticSegmentation:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "COMPILED", way)
        return fill_stuff(np.array(ids, dtype=np.int32), [THING], np.asarray(stuff), limit, rejections)


@both_ways
def test_stuff_fills_void_pixels_by_rising_id(way: bool) -> None:
    """Free pixels: 2 of class 3, 2 of class 7, 1 of class 9; the thing channel 0 stays void."""
    fused = filled(way, IDS, STUFF, 1)
    assert fused.segment_ids.tolist() == [[1, 1, 3, 0], [2, 2, 3, 4]]
    assert fused.segments == (THING, Segment(2, 3, False, 2), Segment(3, 7, False, 2), Segment(4, 9, False, 1))


@both_ways
def test_classes_below_the_limit_stay_void_and_their_ids_go_to_the_next(way: bool) -> None:
    """2 pixels are not fewer than 2; class 9 has 1."""
    rejections = RejectionLog()
    fused = filled(way, IDS, STUFF, 2, rejections)
    assert fused.segment_ids.tolist() == [[1, 1, 3, 0], [2, 2, 3, 0]]
    assert rejections == RejectionLog(stuff={9: Rejection("area", 1, 2)})
    assert filled(way, IDS, STUFF, 2.5).segments == (THING,)


@both_ways
def test_a_fully_occluded_class_makes_an_empty_segment_only_at_limit_0(way: bool) -> None:
    """Class 7 has no free pixel; classes 1 to 6 are not on the map at all, and make none."""
    rejections = RejectionLog()
    assert filled(way, [[1, 1, 1]], [[7, 7, 0]], 0, rejections).segments == (THING, Segment(2, 7, False, 0))
    assert filled(way, [[1, 1, 1]], [[7, 7, 0]], 1, rejections).segments == (THING,)
    assert rejections == RejectionLog()  # no pixel was lost for its area


@both_ways
def test_an_image_without_pixels(way: bool) -> None:
    assert filled(way, np.zeros((0, 3)), np.zeros((0, 3), dtype=int), 0).segments == (THING,)


@both_ways
@given(
    ids=hnp.arrays(np.int32, (4, 7), elements=st.integers(0, 1)),
    stuff=hnp.arrays(np.uint8, (7, 4), elements=st.sampled_from([0, 2, 5, 255])),
    limit=st.sampled_from([0, 0.5, 1, 3]),
)
@settings(max_examples=150, deadline=None)
def test_equal_to_one_class_after_another(way: bool, ids: Any, stuff: Any, limit: float) -> None:
    """Transposed, big-endian and read-only maps give the same result."""
    expected, listed = ids.copy(), [THING]
    for stuff_id in sorted({*stuff.ravel().tolist()} - {0}):
        free = (ids == 0) & (stuff_id == stuff.T)
        if free.sum() >= limit:
            listed.append(Segment(len(listed) + 1, stuff_id, False, int(free.sum())))
            expected[free] = len(listed)
    frozen = stuff.T.astype(np.int64)
    frozen.flags.writeable = False
    for given_map in (stuff.T, stuff.T.astype(">i4"), frozen):
        fused = filled(way, ids, given_map, limit)
        assert fused.segment_ids.tolist() == expected.tolist()
        assert fused.segments == tuple(listed)


def build_instances(scores: list[float], class_ids: list[int]) -> InstanceMasks:
    count = len(scores)
    masks = np.zeros((count, 2, 3), dtype=bool)
    return InstanceMasks.from_full(
        masks, np.zeros((count, 4), np.float32), np.array(scores, dtype=np.float32), np.array(class_ids)
    )


def test_owners_become_segments_in_the_given_order() -> None:
    """Row 2 owns 3 pixels, row 0 owns 1, row 1 none, 2 have no owner: ids 1 and 2, and void."""
    instances = build_instances([0.5, 0.75, 0.875], [4, 5, 6])
    owners = np.array([[2, 2, -1], [0, 2, -1]], dtype=np.int32)
    ids, segments = build_segments_from_owners(owners, [2, 1, 0], instances)
    assert ids.tolist() == [[1, 1, 0], [2, 1, 0]]
    assert ids.dtype == np.int32
    assert segments == [
        Segment(1, 6, True, 3, score=0.875, instance_id=2),
        Segment(2, 4, True, 1, score=0.5, instance_id=0),
    ]


def test_rows_outside_the_order_own_no_pixels() -> None:
    ids, segments = build_segments_from_owners(
        np.array([[0, 1]], dtype=np.int32), [1], build_instances([0.5, 0.5], [1, 2])
    )
    assert ids.tolist() == [[0, 1]]
    assert [s.instance_id for s in segments] == [1]


def test_no_pixel_has_an_owner() -> None:
    ids, segments = build_segments_from_owners(np.full((2, 3), -1, dtype=np.int32), [], build_instances([], []))
    assert (ids.tolist(), segments) == ([[0, 0, 0], [0, 0, 0]], [])


def test_a_thing_segment_names_its_instance() -> None:
    assert build_thing_segment(3, build_instances([0.5, 0.25], [4, 5]), 1, 9) == Segment(
        3, 5, True, 9, score=0.25, instance_id=1
    )
