"""EfficientPS's fusion: a hand-drawn map for each rule, and comparison with the paper's formula pixel by pixel.

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
from segkit.fusion.efficientps import EfficientPSFusion
from segkit.fusion.explanations import DroppedSegment
from segkit.structures import HeadOutputs
from segkit.utils.compiled import INSTALLED
from segkit.utils.errors import ConfigError
from tests.helpers import slow_fusion
from tests.helpers.slow_fusion import drawn, highest, scene, semantic, summarize

WAYS = [True, False] if INSTALLED else [False]
ANY_AREA = EfficientPSFusion(stuff_area_limit_px=0)
NONE: Any = np.zeros((0, 1, 4))


def heads(stuff: list[float], thing: list[float], masks: Any) -> HeadOutputs:
    return HeadOutputs(masks, semantic([[stuff], [thing]], [1, 0], [-1, 0]))


def ids(fusion: EfficientPSFusion, outputs: HeadOutputs) -> list[int]:
    segment_ids: list[int] = fusion(outputs).segment_ids[0].tolist()
    return segment_ids


def test_the_fused_logit() -> None:
    """FL = (sigmoid(A) + sigmoid(B)) (A + B), with sigmoid(A) = p and A = log(p / (1 - p)):

    p = 0.5, B = 1: (0.5 + 0.7311) (0 + 1) = 1.2311, between 1.22 and 1.24.
    p = 0.9, B = 2: (0.9 + 0.8808) (2.1972 + 2) = 7.4744, between 7.46 and 7.48.
    """
    masks = drawn([[[0.5, 0.5, 0.9, 0.9]]], [0.9], [0])
    fused = ANY_AREA(heads([1.22, 1.24, 7.46, 7.48], [1, 1, 2, 2], masks))
    assert fused.segment_ids.tolist() == [[1, 2, 1, 2]]
    assert [(s.category_id, s.isthing, s.area_px, s.instance_id) for s in fused.segments] == [
        (0, True, 2, 0),
        (1, False, 2, None),
    ]


def test_agreement_of_the_heads_beats_a_higher_score() -> None:
    """Both have p = 0.9. The semantic head has 3 for class 1 (row 1) and 0 for class 0 (row 0): row 1 gets the pixels.

    If both classes have 3, FL is equal and the better score, row 0, gets the pixels.
    """
    masks = drawn([[[0.9] * 4], [[0.9] * 4]], [0.9, 0.8], [0, 1])
    scores = semantic([[[-9] * 4], [[0, 0, 3, 3]], [[3, 3, 3, 3]]], [1, 0, 0], [-1, 0, 1])
    assert ids(replace(ANY_AREA, overlap_threshold=1.0), HeadOutputs(masks, scores)) == [2, 2, 1, 1]


def test_of_equal_values_stuff_comes_first() -> None:
    """p = 1/2 and B = 0: FL = (1/2 + 1/2) (0 + 0) = 0, which stuff has in column 0. In column 3 stuff 1 and 2 tie."""
    masks = drawn([[[0.5] * 4]], [0.9], [0])
    scores = semantic([[[0, -1, -1, 1]], [[-2, -1, -2, 1]], [[0, 0, 0, 0]]], [1, 2, 0], [-1, -1, 0])
    assert ids(ANY_AREA, HeadOutputs(masks, scores)) == [2, 1, 1, 2]


def test_a_thing_that_no_instance_wins_is_void() -> None:
    """p = 0.1, B = 2: FL = (0.1 + 0.8808) (-2.1972 + 2) = -0.1934.

    Stuff has 1.9 in column 0: it beats FL, but the semantic head's best is the thing: void. Column 1: stuff has 2.1.
    Columns 2 and 3 lie outside the box, where the instance takes no part: void and, at 3, stuff.
    """
    masks = drawn([[[0.1, 0.1, 0, 0]]], [0.9], [0], [[0, 0, 2, 1]])
    masks = replace(masks, crops=(np.ones_like(masks.crops[0]),))  # its binary mask is not empty
    assert ids(ANY_AREA, heads([1.9, 2.1, -1, 3], [2, 2, 0, 2], masks)) == [0, 1, 0, 1]


def test_covered_instances_are_left_out_whatever_their_class() -> None:
    """Row 0 has columns 0 to 2. Row 1 has columns 2 and 3, half of it under row 0: 0.5 > 0.5 is false.

    Row 2 has columns 1 and 2, all of it under row 0. Row 3 has a score below 0.5.
    """
    probs = [[[0.9, 0.9, 0.9, 0]], [[0, 0, 0.9, 0.9]], [[0, 0.9, 0.9, 0]], [[0.9] * 4]]
    boxes = [[0, 0, 4, 1], [2, 0, 4, 1], [1, 0, 3, 1], [0, 0, 4, 1]]
    scores = semantic([[[-9] * 4], [[2] * 4], [[2] * 4]], [1, 0, 0], [-1, 0, 1])
    dropped_segments: list[DroppedSegment] = []
    fused = ANY_AREA(HeadOutputs(drawn(probs, [0.9, 0.8, 0.7, 0.4], [0, 1, 1, 0], boxes), scores), dropped_segments)
    assert fused.segment_ids.tolist() == [[1, 1, 1, 2]]
    rejected = {
        f.instance_id: (f.reason, f.value, f.limit) for f in dropped_segments if f.segment_id == 0 and f.isthing
    }
    assert rejected == {2: ("overlap", 1, 0.5), 3: ("score", pytest.approx(0.4), 0.5)}
    tight = replace(ANY_AREA, overlap_threshold=0.49)
    selected = tight(HeadOutputs(drawn(probs, [0.9, 0.8, 0.7, 0.4], [0, 1, 1, 0], boxes), scores))
    assert [s.instance_id for s in selected.segments] == [0]


def test_small_stuff_is_void() -> None:
    """Stuff 1 has 1 pixel, stuff 2 three, of which the instance takes one: with a limit of 2 stuff 2 stays, with 3 not.

    Nothing reaches the default limit.
    """
    masks = drawn([[[0, 0, 0, 0.9]]], [0.9], [0], [[3, 0, 4, 1]])
    scores = semantic([[[3, 0, 0, 0]], [[0, 3, 3, 3]], [[0, 0, 0, 2]]], [1, 2, 0], [-1, -1, 0])
    dropped_segments: list[DroppedSegment] = []
    outputs = HeadOutputs(masks, scores)
    assert EfficientPSFusion(stuff_area_limit_px=2)(outputs, dropped_segments).segment_ids.tolist() == [[0, 2, 2, 1]]
    assert [(f.reason, f.value, f.limit) for f in dropped_segments if f.category_id == 1] == [("area", 1, 2)]
    assert EfficientPSFusion(stuff_area_limit_px=3)(outputs).segment_ids.tolist() == [[0, 0, 0, 1]]
    assert [s.isthing for s in EfficientPSFusion()(outputs).segments] == [True]


def test_fully_occluded_stuff_makes_no_segment() -> None:
    """Stuff 1 is the best channel only in column 0, which the instance gets: FL = 7.47 > 3 (see above)."""
    masks = drawn([[[0.9, 0, 0, 0]]], [0.9], [0], [[0, 0, 1, 1]])
    scores = semantic([[[3, 0, 0, 0]], [[0, 3, 3, 3]], [[2, 0, 0, 0]]], [1, 2, 0], [-1, -1, 0])
    fused = ANY_AREA(HeadOutputs(masks, scores))
    assert fused.segment_ids.tolist() == [[1, 2, 2, 2]]
    assert [(s.category_id, s.isthing) for s in fused.segments] == [(0, True), (2, False)]


def test_one_channel_may_stand_for_all_things() -> None:
    """p = 0.9, B = 2: FL = 7.47 (see above), stuff has 7 and 8 in the box."""
    masks = drawn([[[0.9, 0.9, 0, 0]]], [0.9], [17], [[0, 0, 2, 1]])
    scores = semantic([[[2, 2, 2, 2]], [[7, 8, 1, 3]]], [0, 1], [-1, -1])
    assert ids(ANY_AREA, HeadOutputs(masks, scores)) == [1, 2, 0, 2]


def test_unknown_stuff_channels_own_no_pixels() -> None:
    """Only the highest logit is kept: in columns 0 and 1 the thing's, 2; stuff counts as 2 too, and has no owner.

    p = 0.9: FL = 7.47 > 2. p = 0.1: FL = -0.19 < 2, and the semantic head's best is a thing: void.
    """
    masks = drawn([[[0.9, 0.1, 0.1, 0.1]]], [0.9], [0])
    outputs = heads([1, 1, 4, 4], [2, 2, 0, 0], masks)
    assert ids(ANY_AREA, replace(outputs, semantic=highest(outputs.semantic, 1))) == [1, 0, 2, 2]


@pytest.mark.filterwarnings("error")
def test_very_large_and_infinite_logits() -> None:
    """B = -200: sigmoid(B) = 0, FL = 0.9 (2.2 - 200) = -178 > -1000. B = -infinity: lowest FL; infinity: highest."""
    masks = drawn([[[0.9] * 4]], [0.9], [0])
    outputs = heads([-1000, 0, 0, 0], [-200, -np.inf, np.inf, -1], masks)
    assert ids(ANY_AREA, outputs) == [1, 2, 1, 1]


def test_options_are_checked() -> None:
    for name in ("instance_score_threshold", "overlap_threshold"):
        with pytest.raises(ConfigError, match=name):
            EfficientPSFusion(**{name: -0.1})
    with pytest.raises(ConfigError, match="stuff_area_limit_px"):
        EfficientPSFusion(stuff_area_limit_px=float("nan"))


@pytest.mark.parametrize("way", WAYS)
@given(seed=st.integers(0, 10**6), ties=st.booleans(), shared=st.booleans())
@settings(max_examples=60, deadline=None)
def test_equal_to_the_formula(way: bool, seed: int, ties: bool, shared: bool) -> None:
    fusion = EfficientPSFusion(stuff_area_limit_px=2)
    outputs = scene(seed, ties=ties, shared=shared)
    some, all_of_them = (replace(outputs, semantic=highest(outputs.semantic, count)) for count in (1 + seed % 5, 5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pixel_argmax, "COMPILED", way)
        dense = summarize(fusion(outputs))
        assert dense == slow_fusion.efficientps(fusion, outputs)
        assert dense == summarize(fusion(all_of_them))
        assert summarize(fusion(some)) == slow_fusion.efficientps(fusion, some)
