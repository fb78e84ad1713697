"""Ids over the frames of drawn clips."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segkit.metrics import VideoPanopticQuality
from segkit.runtime.tracking import SegmentTracker, track
from segkit.utils.errors import DatasetError
from tests.helpers.panoptic_scenes import CAR, CATEGORIES, DOG, SEA, SKY, panoptic, segmentations

WIDTH = 12
EMPTY = panoptic([[0] * WIDTH])


def row(*objects):
    """A frame of one row: (left, right, category_id) of each object, whose ids count from 1, later ones on top."""
    ids = np.zeros((1, WIDTH), dtype=np.int32)
    for number, (left, right, _) in enumerate(objects, 1):
        ids[0, left:right] = number
    shown = {f"s{n}": category_id for n, (_, _, category_id) in enumerate(objects, 1) if (ids == n).any()}
    return panoptic(ids, **shown)


def id_at(frame, column):
    return int(frame.segment_ids[0, column])


def test_a_moving_object_keeps_its_id():
    # 4 pixels, one step each: IoU 3 / 5. The order of segments changes, so their own ids do too.
    frames = [
        row((0, 4, CAR), (8, 12, CAR)),
        row((8, 12, CAR), (1, 5, CAR)),
        row((2, 6, CAR), (8, 12, CAR)),
    ]
    tracked = [*track(frames)]
    assert [id_at(frame, 4 if number else 3) for number, frame in enumerate(tracked)] == [1, 1, 1]
    assert [id_at(frame, 11) for frame in tracked] == [2, 2, 2]
    assert [{s.segment_id: s.area_px for s in frame.segments} for frame in tracked] == [{1: 4, 2: 4}] * 3


@pytest.mark.parametrize(("gap", "expected"), [(0, 1), (2, 1), (3, 2)])
def test_an_object_is_remembered_for_max_gap_frames(gap, expected):
    frames = [row((0, 4, CAR)), *[EMPTY] * gap, row((0, 4, CAR))]
    assert id_at([*track(frames, SegmentTracker(max_gap=2))][-1], 0) == expected


def test_an_object_that_moves_too_far_is_another_one():
    # 4 pixels, two steps: IoU 2 / 6 is above 0.3, three steps: 1 / 7 is not.
    assert id_at([*track([row((0, 4, CAR)), row((2, 6, CAR))])][-1], 4) == 1
    assert id_at([*track([row((0, 4, CAR)), row((3, 7, CAR))])][-1], 4) == 2
    # A match is above the limit.
    assert id_at([*track([row((0, 4, CAR)), row((2, 6, CAR))], SegmentTracker(2 / 6))][-1], 4) == 2


def test_an_object_that_another_one_hides_comes_back():
    # The car drives from the left, in front of a standing one of 3 pixels, which it hides in frames 2 and 3.
    frames = [
        row((5, 8, CAR), (left, left + 6, CAR)) if left < 8 else row((left, left + 4, CAR), (5, 8, CAR))
        for left in (0, 2, 3, 5, 8)
    ]
    assert [len(frame.segments) for frame in frames] == [2, 1, 1, 1, 2]
    tracked = [*track(frames)]
    standing, driving = id_at(tracked[0], 7), id_at(tracked[0], 0)
    assert [id_at(tracked[number], column) for number, column in ((1, 3), (2, 4), (3, 9))] == [driving] * 3
    assert id_at(tracked[4], 6) == standing


@pytest.mark.parametrize("category_id", [CAR, DOG])
def test_two_objects_that_cross_keep_their_ids(category_id):
    # A car in rows 0 and 1 drives to the left, behind an object in rows 1 and 2 that goes to the right. All are six
    # wide and go two columns a frame: the object in front has IoU 8 / 16, the car, half hidden in the middle, 6 / 14,
    # 4 / 12 and 6 / 14.
    frames = []
    for step in (0, 2, 4, 6):
        ids = np.zeros((3, WIDTH), dtype=np.int32)
        ids[0:2, 6 - step : 12 - step] = 1
        ids[1:3, step : step + 6] = 2
        frames.append(panoptic(ids, s1=CAR, s2=category_id))
    for before, after in zip(frames, track(frames), strict=True):
        assert after.segment_ids.tolist() == before.segment_ids.tolist()


def test_the_greatest_iou_wins_and_each_object_is_taken_once():
    # Before: 1 in 0..8. After: 0..3 (IoU 3 / 8) and 3..8 (5 / 8).
    after = [*track([row((0, 8, CAR)), row((0, 3, CAR), (3, 8, CAR))])][-1]
    assert (id_at(after, 0), id_at(after, 5)) == (2, 1)


def test_a_change_of_class_is_another_object():
    tracked = [*track([row((0, 4, CAR)), row((0, 4, DOG)), row((0, 4, CAR))])]
    assert [id_at(frame, 0) for frame in tracked] == [1, 2, 1]


def test_stuff_has_one_id_per_class():
    frames = [
        row((0, 2, SKY), (4, 6, SKY), (6, 8, SEA)),
        EMPTY,
        row((0, 2, SEA), (2, 4, CAR)),
        *[EMPTY] * 10,
        row((10, 12, SKY)),
    ]
    tracked = [*track(frames)]
    assert tracked[0].segment_ids.tolist() == [[1, 1, 0, 0, 1, 1, 2, 2, 0, 0, 0, 0]]
    assert [(s.segment_id, s.category_id, s.area_px) for s in tracked[0].segments] == [(1, SKY, 4), (2, SEA, 2)]
    assert tracked[2].segment_ids.tolist() == [[2, 2, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0]]
    assert id_at(tracked[-1], 11) == 1


def test_empty_frames_and_maps():
    assert [*track([])] == []
    tracked = [*track([EMPTY, EMPTY])]
    assert [frame.segments for frame in tracked] == [(), ()]
    nothing = panoptic(np.zeros((0, 0), dtype=np.int32))
    assert SegmentTracker().update(nothing).segment_ids.shape == (0, 0)


def test_invalid_input():
    with pytest.raises(DatasetError, match=r"frames of a video: expected .* one size, got 1 x 12 and 1 x 1"):
        [*track([EMPTY, panoptic([[1]], s1=CAR)])]
    with pytest.raises(ValueError, match="min_iou must be in"):
        SegmentTracker(1.0)
    with pytest.raises(ValueError, match="max_gap must be at least 0"):
        SegmentTracker(max_gap=-1)


def test_tracked_frames_score_as_videos():
    """Ids that change in every frame are no tubes; with the tracker's ids, VPQ is 100."""
    objects = [[(left, left + 4, CAR), (8, 12, SKY)] for left in (0, 1, 2, 3)]
    ground_truth = [row(*each) for each in objects]
    prediction = [row(*(each if number % 2 else each[::-1])) for number, each in enumerate(objects)]
    metric = VideoPanopticQuality(CATEGORIES, windows=(1, 4))
    with pytest.raises(DatasetError, match="expected one category over the whole video"):
        metric.update("clip", ground_truth, prediction)
    metric.update("clip", ground_truth, track(prediction))
    assert metric.compute()["VPQ"] == 100


@settings(max_examples=30)
@given(st.lists(segmentations((3, 4)), min_size=1, max_size=6))
def test_only_ids_change(frames):
    tracked = [*track(frames)]
    category_by_id = {}
    for before, after in zip(frames, tracked, strict=True):
        pairs = {*zip(before.segment_ids.ravel().tolist(), after.segment_ids.ravel().tolist(), strict=True)}
        assert {old for old, new in pairs if new == 0} <= {0}, "void stays void, and nothing becomes void"
        things = {s.segment_id for s in before.segments if s.isthing}
        new_by_thing = {old: new for old, new in pairs if old in things}
        assert len({*new_by_thing.values()}) == len(things) == sum(old in things for old, _ in pairs)
        assert {s.segment_id for s in after.segments} == {new for _, new in pairs} - {0}
        old_category = {s.segment_id: s.category_id for s in before.segments}
        new_category = {s.segment_id: s.category_id for s in after.segments}
        assert all(old_category[old] == new_category[new] for old, new in pairs if old)
        for segment_id, category_id in new_category.items():
            assert category_by_id.setdefault(segment_id, category_id) == category_id
