"""Thresholds and suppression: hand-drawn boxes and masks, and comparison with a slow simple version."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segkit.fusion.candidates import NMS_KINDS, count_shared_px, select_candidates
from segkit.fusion.explanations import Rejection, RejectionLog
from segkit.structures import InstanceMasks


def instances(masks: Any, scores: Any, boxes: Any = None, class_ids: Any = None) -> InstanceMasks:
    full = np.array(masks, dtype=bool)
    boxes = np.zeros((len(full), 4)) if boxes is None else np.array(boxes)
    class_ids = np.zeros(len(full), dtype=int) if class_ids is None else np.array(class_ids)
    return InstanceMasks.from_full(full, boxes.astype(np.float32), np.array(scores, dtype=np.float32), class_ids)


def select(
    candidates: InstanceMasks, nms: str = "none", threshold: float = 0.5, rejections: RejectionLog | None = None
) -> list[int]:
    return select_candidates(candidates, 0, {}, nms, threshold, rejections)


DOT = [[1, 0, 0, 0]]


def test_candidates_are_sorted_by_falling_score_then_row() -> None:
    assert select(instances([DOT] * 5, [0.5, 0.9, 0.5, 0.95, 0.9])) == [3, 1, 4, 0, 2]


def test_a_class_has_its_own_threshold() -> None:
    """Class 4 needs 0.8, class 5 needs 0.1, the others 0.5; a score at its threshold is good enough.

    float32(0.8) is 0.800000012 and stays; float32(0.1) is 0.100000001 and stays; 0.45 of class 4 and 6 goes.
    """
    five = instances([DOT] * 5, [0.8, 0.45, 0.1, 0.45, 0.05], class_ids=[4, 4, 5, 6, 5])
    rejections = RejectionLog()
    assert select_candidates(five, 0.5, {4: 0.8, 5: 0.1, 99: 0.0}, "none", 0.5, rejections) == [0, 2]
    short = float(np.float32(0.45))
    assert rejections.instances == {
        1: Rejection("score", short, 0.8),
        3: Rejection("score", short, 0.5),
        4: Rejection("score", float(np.float32(0.05)), 0.1),
    }


# Boxes of 4 x 2: the second moved by 1 shares 3 x 2 = 6 of 8 + 8 - 6 = 10, IoU 0.6; the third moved by 2 from the
# first shares 4 of 12, 1/3, and with the second, moved by 1, 0.6.
BOXES = [[0, 0, 4, 2], [1, 0, 5, 2], [2, 0, 6, 2]]


def test_a_box_is_suppressed_only_by_better_boxes_that_remain() -> None:
    """The second is suppressed (0.6 > 0.5). Only it overlaps the third by more than 0.5: the third is kept."""
    three = instances([DOT] * 3, [0.9, 0.8, 0.7], BOXES)
    rejections = RejectionLog()
    assert select(three, "box", 0.5, rejections) == [0, 2]
    assert rejections.instances == {1: Rejection("nms", 0.6, 0.5)}
    assert select(three, "box", 0.6) == [0, 1, 2]  # 0.6 is not above 0.6
    assert select(three, "box", 0.3) == [0]


def test_the_rejection_names_the_largest_overlap() -> None:
    """Both kept boxes overlap the last: 1/3 (moved by 2) and 0.6 (moved by 1)."""
    three = instances([DOT] * 3, [0.9, 0.8, 0.7], [[0, 0, 4, 2], [3, 0, 7, 2], [2, 0, 6, 2]])
    rejections = RejectionLog()
    assert select(three, "box", 0.3, rejections) == [0, 1]
    assert rejections.instances == {2: Rejection("nms", 0.6, 0.3)}


ROWS = [[[1, 1, 1, 1, 0, 0]], [[0, 1, 1, 1, 1, 0]], [[0, 0, 0, 0, 1, 1]]]  # IoU 3/5, then 1/5 and 0


def test_masks_suppress_each_other_across_classes() -> None:
    three = instances(ROWS, [0.9, 0.8, 0.7], class_ids=[0, 1, 2])
    rejections = RejectionLog()
    assert select(three, "mask", 0.5, rejections) == [0, 2]
    assert rejections.instances == {1: Rejection("nms", 0.6, 0.5)}
    assert select(three, "mask", 0.6) == [0, 1, 2]
    assert select(three, "box", 0.0) == [0, 1, 2]  # their boxes are empty, and only boxes count


@pytest.mark.parametrize("nms", NMS_KINDS)
def test_no_instances_and_empty_instances(nms: str) -> None:
    """Boxes and masks without area overlap nothing, even at a threshold of 0."""
    assert select(instances(np.zeros((0, 2, 3)), []), nms, 0) == []
    assert select(instances(np.zeros((2, 2, 3)), [0.5, 0.6]), nms, 0) == [1, 0]
    wrong_order = [[4, 2, 0, 0], [3, 0, 1, 2]]
    assert select(instances(np.zeros((2, 2, 3)), [0.5, 0.6], wrong_order), nms, 0) == [1, 0]


def test_instances_below_the_threshold_suppress_nothing() -> None:
    pair = instances(ROWS[:2], [0.4, 0.3], class_ids=[1, 2])
    assert select_candidates(pair, 0.5, {2: 0.1}, "mask", 0.1, None) == [1]


@st.composite
def scenes(draw: st.DrawFn) -> InstanceMasks:
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    count, height, width = draw(st.integers(0, 8)), draw(st.integers(1, 6)), draw(st.integers(1, 6))
    left, top = rng.integers(0, width, count), rng.integers(0, height, count)
    right, bottom = left + rng.integers(0, width + 1, count), top + rng.integers(0, height + 1, count)
    boxes = np.column_stack([left, top, right, bottom])
    masks = rng.random((count, height, width)) < 0.8
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[:y0], mask[y1:], mask[:, :x0], mask[:, x1:] = False, False, False, False
    return instances(masks, rng.choice([0.25, 0.5, 0.75], count), boxes)


@given(candidates=scenes(), threshold=st.sampled_from([0, 0.2, 1 / 3, 0.5, 0.8, 1]))
@settings(max_examples=200, deadline=None)
@pytest.mark.parametrize("nms", ["box", "mask"])
def test_equals_a_slow_simple_version(nms: str, candidates: InstanceMasks, threshold: float) -> None:
    """Boxes of whole pixels are masks too, so both IoUs are computed from sets of pixels."""
    if nms == "mask":
        sets = [{*zip(*np.nonzero(mask), strict=True)} for mask in candidates.to_full()]
    else:
        sets = [{(x, y) for x in range(a, c) for y in range(b, d)} for a, b, c, d in candidates.boxes_xyxy.astype(int)]
    expected: list[int] = []
    expected_rejections = {}
    for row in sorted(range(len(candidates)), key=lambda row: (-candidates.scores[row], row)):
        ious = [len(sets[row] & sets[o]) / len(sets[row] | sets[o]) for o in expected if sets[row] | sets[o]]
        if max(ious, default=0) > threshold:
            expected_rejections[row] = Rejection("nms", max(ious), threshold)
        else:
            expected.append(row)
    rejections = RejectionLog()
    assert select(candidates, nms, threshold, rejections) == expected
    assert rejections.instances == expected_rejections


@given(scenes())
@settings(max_examples=100, deadline=None)
def test_shared_pixels_are_counted(candidates: InstanceMasks) -> None:
    full = candidates.to_full()
    for first in range(len(candidates)):
        for second in range(len(candidates)):
            assert count_shared_px(candidates, first, second) == (full[first] & full[second]).sum()
