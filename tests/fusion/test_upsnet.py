"""UPSNet's fusion: a hand-drawn map for each rule, and comparison with the paper's formula pixel by pixel.

Unless a test says otherwise: channel 0 is stuff 1, channel 1 is thing 0, and boxes fill the image.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segkit.fusion import pixel_argmax
from segkit.fusion.explanations import DroppedSegment
from segkit.fusion.upsnet import UPSNetFusion
from segkit.structures import HeadOutputs
from segkit.utils.compiled import INSTALLED
from segkit.utils.errors import ConfigError
from tests.helpers import slow_fusion
from tests.helpers.slow_fusion import drawn, highest, scene, semantic, summarize

WAYS = [True, False] if INSTALLED else [False]
ANY_AREA = UPSNetFusion(stuff_area_limit_px=0)
NONE: Any = np.zeros((0, 1, 4))


def heads(stuff: list[float], thing: list[float], masks: Any) -> HeadOutputs:
    return HeadOutputs(masks, semantic([[stuff], [thing]], [1, 0], [-1, 0]))


def ids(fusion: UPSNetFusion, outputs: HeadOutputs) -> list[int]:
    segment_ids: list[int] = fusion(outputs).segment_ids[0].tolist()
    return segment_ids


def test_an_instance_has_the_sum_of_both_logits() -> None:
    """p = 1/2, 1/2, 9/10, 1/10: Y = 0, 0, 2.197, -2.197; X = 1 everywhere: Z = 1, 1, 3.197, -1.197.

    X_stuff = 0, 2, 3, 0.5: instance, stuff, instance, stuff. Z_unknown = X_thing - X_mask = 0 is nowhere the highest.
    """
    masks = drawn([[[0.5, 0.5, 0.9, 0.1]]], [0.9], [0])
    fused = ANY_AREA(heads([0, 2, 3, 0.5], [1, 1, 1, 1], masks))
    assert fused.segment_ids.tolist() == [[1, 2, 1, 2]]
    assert [(s.category_id, s.isthing, s.area_px, s.instance_id) for s in fused.segments] == [
        (0, True, 2, 0),
        (1, False, 2, None),
    ]


def test_of_equal_values_stuff_comes_first_then_the_better_instance_then_unknown() -> None:
    """p = 1/2, so that Z_i = X = 2, 2, 0, 0; Z_unknown = 0. Stuff has 2, 1, -1, 0.

    Pixel 0: 2 = 2, stuff. Pixel 1: both instances have 2, row 1 is better. Pixel 2: instances and unknown have 0.
    Pixel 3: all have 0, stuff.
    """
    masks = drawn([[[0.5] * 4], [[0.5] * 4]], [0.7, 0.9], [0, 0])
    fusion = replace(ANY_AREA, nms_threshold=1.0, overlap_threshold=1.0)
    fused = fusion(heads([2, 1, -1, 0], [2, 2, 0, 0], masks))
    assert fused.segment_ids.tolist() == [[2, 1, 1, 2]]
    assert [s.instance_id for s in fused.segments] == [1, None]


def test_instances_own_no_pixels_outside_their_box() -> None:
    """The box covers columns 0 and 1. In columns 2 and 3 stuff has -5, X_thing -9, so Z_unknown = -9 - 0: stuff.

    By the letter of the formula the instance would have 0 there, more than -5.
    """
    masks = drawn([[[0.9, 0.9, 0, 0]]], [0.9], [0], [[0, 0, 2, 1]])
    assert ids(ANY_AREA, heads([0, 0, -5, -5], [3, 3, -9, -9], masks)) == [1, 1, 2, 2]


def test_thing_pixels_without_an_instance_are_unknown() -> None:
    """The box covers columns 0 and 1. Column 2: Z_unknown = 4 - 0 > 1, void; column 3: 4 - 0 = 4, stuff has 4 first."""
    masks = drawn([[[0.9, 0.9, 0, 0]]], [0.9], [0], [[0, 0, 2, 1]])
    outputs = heads([0, 0, 1, 4], [3, 3, 4, 4], masks)
    assert ids(ANY_AREA, outputs) == [1, 1, 0, 2]
    assert ids(replace(ANY_AREA, unknown_class=False), outputs) == [1, 1, 2, 2]
    alone = heads([0, 0, 1, 4], [3, 3, 4, 4], drawn(NONE, [], []))  # max(X_mask) of no instance is 0
    assert ids(ANY_AREA, alone) == [0, 0, 0, 1]


def test_pixels_of_another_thing_class_are_unknown() -> None:
    """Channels: stuff 1, things 0 and 1. The instance is of class 0: X_mask = -1, 1, 1, 1; X_thing = 6 everywhere, of
    class 1; Y = log 9 = 2.197. Z_i = 1.197, 3.197, ...

    One box, of the whole image: Z_unknown = 6 + 1 = 7, 6 - 1 = 5, above Z_i and stuff (0, 0, 5, 5.5), but 5 = 5 and
    5 < 5.5 are stuff.
    """
    scores = semantic([[[0, 0, 5, 5.5]], [[-1, 1, 1, 1]], [[6, 6, 6, 6]]], [1, 0, 0], [-1, 0, 1])
    assert ids(ANY_AREA, HeadOutputs(drawn([[[0.9] * 4]], [0.9], [0]), scores)) == [0, 0, 1, 1]


@pytest.mark.parametrize(("second_box", "expected"), [([0, 0, 4, 1], [0, 0, 0, 0]), ([2, 0, 4, 1], [1, 1, 0, 0])])
def test_in_max_of_x_mask_an_instance_counts_as_0_outside_its_box(second_box: list[int], expected: list[int]) -> None:
    """X is -3 for class 0, -4 for class 1, -9 for stuff. Row 0, class 0, fills the image: Z_0 = -3 + 2.197 = -0.803.

    Row 1, class 1: Z_1 is at most -4 + 2.197. Where both boxes are, max(X_mask) = -3 and Z_unknown = -3 + 3 = 0 is the
    highest. Outside row 1's box max(X_mask) = 0 and Z_unknown = -3 - 0: row 0 has the highest.
    """
    masks = drawn([[[0.9] * 4], [[0.1, 0.1, 0.1, 0.9]]], [0.9, 0.8], [0, 1], [[0, 0, 4, 1], second_box])
    scores = semantic([[[-9] * 4], [[-3] * 4], [[-4] * 4]], [1, 0, 0], [-1, 0, 1])
    assert ids(replace(ANY_AREA, nms_threshold=1.0), HeadOutputs(masks, scores)) == expected


def test_pruning_looks_at_the_same_class_only() -> None:
    """Row 0 has columns 0 to 2; row 1 and row 2 columns 2 and 3, half of each under row 0: 0.5 > 0.3.

    Row 1 is of another class and stays, row 2 is of row 0's class and goes. Their boxes overlap little: no NMS.
    """
    probs = [[[0.9, 0.9, 0.9, 0]], [[0, 0, 0.9, 0.9]], [[0, 0, 0.9, 0.9]]]
    boxes = [[0, 0, 4, 1], [2, 0, 4, 1], [2, 0, 4, 1]]
    scores = semantic([[[-9] * 4], [[2] * 4], [[2] * 4]], [1, 0, 0], [-1, 0, 1])
    dropped_segments: list[DroppedSegment] = []
    fusion = replace(ANY_AREA, nms_threshold=1.0)
    fused = fusion(HeadOutputs(drawn(probs, [0.9, 0.8, 0.7], [0, 1, 0], boxes), scores), dropped_segments)
    assert fused.segment_ids.tolist() == [[1, 1, 1, 2]]
    assert [(f.reason, f.value, f.limit) for f in dropped_segments if f.instance_id == 2] == [("overlap", 0.5, 0.3)]


def test_boxes_suppress_each_other_whatever_their_class() -> None:
    """The boxes, 4 x 1 and 3 x 1, have an IoU of 3/4 > 0.5; row 2 has a score below 0.6."""
    probs = [[[0.9] * 4], [[0.9, 0.9, 0.9, 0.9]], [[0.9] * 4]]
    boxes = [[0, 0, 4, 1], [0, 0, 3, 1], [0, 0, 4, 1]]
    scores = semantic([[[0] * 4], [[2] * 4], [[2] * 4]], [1, 0, 0], [-1, 0, 1])
    dropped_segments: list[DroppedSegment] = []
    fused = ANY_AREA(HeadOutputs(drawn(probs, [0.8, 0.7, 0.5], [0, 1, 0], boxes), scores), dropped_segments)
    assert [s.instance_id for s in fused.segments] == [0]
    rejected = {f.instance_id: (f.reason, f.value, f.limit) for f in dropped_segments if f.isthing}
    assert rejected == {1: ("nms", 0.75, 0.5), 2: ("score", 0.5, 0.6)}


def test_small_stuff_is_void() -> None:
    """Stuff 1 has 1 pixel, stuff 2 three: a limit of 2 keeps stuff 2. The default limit keeps none."""
    scores = semantic([[[3, 0, 0, 0]], [[0, 3, 3, 3]], [[-9] * 4]], [1, 2, 0], [-1, -1, 0])
    outputs, dropped_segments = HeadOutputs(drawn(NONE, [], []), scores), []
    assert UPSNetFusion(stuff_area_limit_px=2)(outputs, dropped_segments).segment_ids.tolist() == [[0, 1, 1, 1]]
    assert [(f.category_id, f.reason, f.value, f.limit) for f in dropped_segments] == [(1, "area", 1, 2)]
    assert UPSNetFusion()(outputs).segments == ()


def test_one_channel_may_stand_for_all_things() -> None:
    """Z_i = X_shared + 2.197 > stuff in the box; outside Z_unknown = X_shared = 2 > 1 in column 2, < 3 in column 3."""
    masks = drawn([[[0.9, 0.9, 0, 0]]], [0.9], [17], [[0, 0, 2, 1]])
    scores = semantic([[[2, 2, 2, 2]], [[1, 1, 1, 3]]], [0, 1], [-1, -1])
    assert ids(ANY_AREA, HeadOutputs(masks, scores)) == [1, 1, 0, 2]


def test_unknown_stuff_channels_own_no_pixels() -> None:
    """Only the highest logit is kept. Columns 0 and 1: thing, 5; stuff counts as 5 too, and has no owner.

    Column 0: Z_i = 5 + 2.197 > 5. Column 1: Z_i = 5 - 2.197 < 5: void. Columns 2 and 3: stuff, 4; X_mask counts as 4;
    Z_i = 4 + 2.197 > 4, 4 - 2.197 < 4.
    """
    masks = drawn([[[0.9, 0.1, 0.9, 0.1]]], [0.9], [0])
    outputs = heads([1, 1, 4, 4], [5, 5, 0, 0], masks)
    top_1 = replace(outputs, semantic=highest(outputs.semantic, 1))
    assert ids(ANY_AREA, top_1) == [1, 0, 1, 2]


def test_options_are_checked() -> None:
    for name in ("instance_score_threshold", "nms_threshold", "overlap_threshold"):
        with pytest.raises(ConfigError, match=name):
            UPSNetFusion(**{name: 1.5})
    with pytest.raises(ConfigError, match="stuff_area_limit_px"):
        UPSNetFusion(stuff_area_limit_px=float("nan"))


@pytest.mark.parametrize("way", WAYS)
@given(seed=st.integers(0, 10**6), ties=st.booleans(), shared=st.booleans(), unknown=st.booleans())
@settings(max_examples=60, deadline=None)
def test_equal_to_the_formula(way: bool, seed: int, ties: bool, shared: bool, unknown: bool) -> None:
    fusion = UPSNetFusion(stuff_area_limit_px=2, unknown_class=unknown)
    outputs = scene(seed, ties=ties, shared=shared)
    some, all_of_them = (replace(outputs, semantic=highest(outputs.semantic, count)) for count in (1 + seed % 5, 5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pixel_argmax, "COMPILED", way)
        dense = summarize(fusion(outputs))
        assert dense == slow_fusion.upsnet(fusion, outputs)
        assert dense == summarize(fusion(all_of_them))
        assert summarize(fusion(some)) == slow_fusion.upsnet(fusion, some)
