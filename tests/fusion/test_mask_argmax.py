"""MaskFormer's fusion: a hand-drawn map for each rule, and comparison with the reference's rule pixel by pixel.

Boxes fill the image, so that every mask competes everywhere; THINGS is a semantic map without stuff.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segkit.fusion import mask_argmax, pixel_argmax
from segkit.fusion.explanations import DroppedSegment
from segkit.fusion.mask_argmax import MaskArgmaxFusion
from segkit.structures import HeadOutputs, SemanticScores
from segkit.utils.compiled import INSTALLED
from segkit.utils.errors import ConfigError
from tests.helpers import slow_fusion
from tests.helpers.slow_fusion import drawn, highest, scene, semantic, summarize

WAYS = [True, False] if INSTALLED else [False]
THINGS = SemanticScores.from_stuff_ids(np.zeros((1, 4), dtype=int))
NONE: Any = np.zeros((0, 1, 4))


def queries(things: Any, stuff: Any) -> HeadOutputs:
    return HeadOutputs(things, THINGS, drawn(NONE, [], []) if stuff is None else stuff)


def ids(fusion: MaskArgmaxFusion, outputs: HeadOutputs) -> list[int]:
    segment_ids: list[int] = fusion(outputs).segment_ids[0].tolist()
    return segment_ids


def test_score_times_probability_decides() -> None:
    """Row 0: 0.9 x (0.9, 0.9, 0.6, 0.4) = 0.81, 0.81, 0.54, 0.36; stuff: 0.85 x (0.3, 0.4, 0.9, 1) = ..., 0.77, 0.85.

    Row 0 has the argmax in 2 of its 3 pixels: 2/3 < 0.8 drops it, 0.5 keeps it. Stuff has 2 of its 2.
    """
    things = drawn([[[0.9, 0.9, 0.6, 0.4]]], [0.9], [3])
    stuff = drawn([[[0.3, 0.4, 0.9, 1]]], [0.85], [2])
    fused = MaskArgmaxFusion(overlap_threshold=0.5)(queries(things, stuff))
    assert fused.segment_ids.tolist() == [[1, 1, 2, 2]]
    assert [(s.category_id, s.isthing, s.area_px, s.instance_id) for s in fused.segments] == [
        (3, True, 2, 0),
        (2, False, 2, None),
    ]
    dropped_segments: list[DroppedSegment] = []
    assert MaskArgmaxFusion()(queries(things, stuff), dropped_segments).segment_ids.tolist() == [[0, 0, 1, 1]]
    assert [(f.instance_id, f.reason, f.value, f.limit) for f in dropped_segments] == [(0, "overlap", 2 / 3, 0.8)]


def test_pixels_below_one_half_are_void_but_count_as_owned() -> None:
    """Row 0 has the argmax in all 4 pixels, in 2 of them below 0.5: 4 / 2 >= 0.8, and it keeps the other 2."""
    assert ids(MaskArgmaxFusion(), queries(drawn([[[0.9, 0.5, 0.4, 0.1]]], [0.9], [3]), None)) == [1, 1, 0, 0]


def test_masks_need_a_score_above_the_threshold() -> None:
    """Row 0's score 0.5 is not above 0.5, row 1's is: row 1 gets the image instead of row 0."""
    things = drawn([[[1.0] * 4], [[0.9] * 4]], [0.5, 0.625], [3, 4])
    dropped_segments: list[DroppedSegment] = []
    fused = MaskArgmaxFusion(object_mask_threshold=0.5)(queries(things, None), dropped_segments)
    assert [(s.category_id, s.area_px) for s in fused.segments] == [(4, 4)]
    assert [(f.instance_id, f.reason, f.value, f.limit) for f in dropped_segments] == [(0, "score", 0.5, 0.5)]


def test_of_equal_values_stuff_comes_first_then_the_better_then_the_earlier() -> None:
    """0.9 x p is equal: in column 0 stuff has it too. Row 1 and row 2 are equal in columns 2 and 3: row 1, the earlier.

    All keep at least the share 0 of their own.
    """
    stuff = drawn([[[1, 0, 0, 0]]], [0.9], [2])
    things = drawn([[[1, 0, 0, 0]], [[0, 0, 1, 1]], [[0, 0, 1, 1]], [[0, 1, 1, 1]]], [0.9, 0.9, 0.9, 0.85], [3] * 4)
    fused = MaskArgmaxFusion(overlap_threshold=0.0)(queries(things, stuff))
    assert fused.segment_ids.tolist() == [[3, 2, 1, 1]]
    assert [s.instance_id for s in fused.segments] == [1, 3, None]


def test_stuff_masks_of_a_class_make_one_segment() -> None:
    """Rows 0 and 2 are stuff 4, row 1 is stuff 2; row 3, of stuff 5, has no pixel; row 4 has a low score.

    Row 5, of stuff 5, has a low score too, but the reason is that of row 3, the better mask of its class.
    """
    probs = [[[1, 0, 0, 0]], [[0, 1, 1, 0]], [[0, 0, 0, 1]], [[0, 0.9, 0.9, 0]], [[1.0] * 4], [[0, 1, 0, 0]]]
    stuff = drawn(probs, [0.9, 0.9, 0.9, 0.9, 0.5, 0.5], [4, 2, 4, 5, 6, 5])
    dropped_segments: list[DroppedSegment] = []
    fused = MaskArgmaxFusion()(queries(drawn(NONE, [], []), stuff), dropped_segments)
    assert fused.segment_ids.tolist() == [[2, 1, 1, 2]]
    assert [(s.category_id, s.isthing, s.area_px) for s in fused.segments] == [(2, False, 2), (4, False, 2)]
    assert [(f.category_id, f.reason) for f in dropped_segments] == [(5, "occluded"), (6, "score")]


def test_a_dropped_stuff_class_has_the_reason_of_its_best_mask() -> None:
    """Row 1 has 1 of its 4 pixels (0.95 x 1 beats 0.9 x 1 in the others): 1/4 < 0.8. Row 2, same class, has 0.5."""
    stuff = drawn([[[1, 1, 1, 0]], [[1, 1, 1, 1]], [[1, 1, 1, 1]]], [0.95, 0.9, 0.5], [2, 3, 3])
    dropped_segments: list[DroppedSegment] = []
    fused = MaskArgmaxFusion()(queries(drawn(NONE, [], []), stuff), dropped_segments)
    assert fused.segment_ids.tolist() == [[1, 1, 1, 0]]
    assert [(f.category_id, f.reason, f.value, f.limit) for f in dropped_segments] == [(3, "overlap", 0.25, 0.8)]


def test_channels_of_the_semantic_head_are_masks_of_score_1() -> None:
    """Channels: stuff 1, stuff 2, things; e^x = 6, 3, 1 gives softmax 0.6, 0.3, 0.1.

    Column 0: stuff 1 has 0.6, row 0 has 0.9 x 0.6 = 0.54: stuff. Column 1: 0.9 x 0.9 = 0.81: row 0.
    Column 2: stuff 2 has 0.45 and is the best channel (of 0.15, 0.45, 0.4): its own, though less than a half.
    Column 3: the best channel is the thing's (0.1, 0.4, 0.5), row 0 has 0.9 x 0.25: stuff 2 loses its pixel.
    """
    softmax = np.array([[0.6, 0.6, 0.15, 0.1], [0.3, 0.3, 0.45, 0.4], [0.1, 0.1, 0.4, 0.5]])
    scores = semantic(np.log(softmax)[:, None], [1, 2, 0], [-1, -1, 0])
    things = drawn([[[0.6, 0.9, 0.25, 0.25]]], [0.9], [0])
    fused = MaskArgmaxFusion(overlap_threshold=0.5)(HeadOutputs(things, scores))
    assert fused.segment_ids.tolist() == [[2, 1, 3, 0]]
    assert [(s.category_id, s.area_px) for s in fused.segments] == [(0, 1), (1, 1), (2, 1)]


def test_unknown_channels_share_the_remaining_probability() -> None:
    """The highest of 3 logits is known, 1, the others count as 1 too: stuff 1 has 1/3 < 0.9 x 0.5 = 0.45 of row 0.

    By all three logits (1, -9, -9) stuff 1 has nearly 1.
    """
    scores = semantic([[[1.0] * 4], [[-9.0] * 4], [[-9.0] * 4]], [1, 2, 0], [-1, -1, 0])
    outputs = HeadOutputs(drawn([[[0.5] * 4]], [0.9], [0]), scores)
    assert [s.category_id for s in MaskArgmaxFusion()(outputs).segments] == [1]
    assert [s.category_id for s in MaskArgmaxFusion()(replace(outputs, semantic=highest(scores, 1))).segments] == [0]


def test_probabilities_are_sums_of_whole_numbers() -> None:
    """Sums of integers below 2^53 are exact, so they do not depend on the order of the logits."""
    logits = np.random.default_rng(0).normal(0, 4, (20, 3, 5)).astype(np.float32)
    powers = mask_argmax._exp_fixed_point(logits, logits.max(axis=0))
    assert np.array_equal(powers, np.rint(powers))
    assert powers.max() == 2**24
    assert powers / 2**24 == pytest.approx(np.exp(logits - logits.max(axis=0)), abs=2**-24)


def test_small_stuff_can_be_made_void() -> None:
    scores = semantic([[[3, 0, 0, 0]], [[0, 3, 3, 3]], [[-9] * 4]], [1, 2, 0], [-1, -1, 0])
    outputs = HeadOutputs(drawn(NONE, [], []), scores)
    assert ids(MaskArgmaxFusion(), outputs) == [1, 2, 2, 2]
    assert ids(MaskArgmaxFusion(stuff_area_limit_px=2), outputs) == [0, 1, 1, 1]


def test_logits_are_required_only_without_stuff_masks() -> None:
    masks = drawn([[[1.0] * 4]], [0.9], [3])
    bare = replace(masks, mask_probs=None)
    with pytest.raises(ConfigError, match=r"needs \['logits'\]"):
        MaskArgmaxFusion()(HeadOutputs(masks, THINGS))
    with pytest.raises(ConfigError, match="mask_probs of instances"):
        MaskArgmaxFusion()(queries(bare, None))
    with pytest.raises(ConfigError, match="mask_probs of stuff_masks"):
        MaskArgmaxFusion()(queries(masks, bare))
    assert ids(MaskArgmaxFusion(), queries(masks, None)) == [1] * 4


def test_empty_inputs_give_void() -> None:
    fused = MaskArgmaxFusion()(queries(drawn(NONE, [], []), None))
    assert fused.segment_ids.tolist() == [[0] * 4]
    assert fused.segments == ()


@pytest.mark.filterwarnings("error")
def test_infinite_logits_count_as_equal_to_themselves() -> None:
    """Column 0: stuff 1 has infinity, all of the probability. Column 1: all are -infinity, a third each, stuff 1 first.

    Row 0 has 0.9 x 0.9 = 0.81 < 1 in column 0, and in column 1 more than 1/3.
    """
    endless = [[[np.inf, -np.inf, 0, 0]], [[0, -np.inf, 0, 0]], [[0, -np.inf, 0, 0]]]
    outputs = HeadOutputs(drawn([[[0.9] * 4]], [0.9], [0]), semantic(endless, [1, 2, 0], [-1, -1, 0]))
    assert ids(MaskArgmaxFusion(overlap_threshold=0.5), outputs) == [2, 1, 1, 1]


@pytest.mark.filterwarnings("error")
def test_without_stuff_channels_minus_infinity_has_no_owner() -> None:
    """The only channel is for things: row 0 gets all pixels, whatever its logit is."""
    outputs = HeadOutputs(drawn([[[0.9] * 4]], [0.9], [0]), semantic([[[-np.inf, 0, np.inf, 1]]], [0], [-1]))
    assert ids(MaskArgmaxFusion(), outputs) == [1, 1, 1, 1]


def test_options_are_checked() -> None:
    for name in ("object_mask_threshold", "overlap_threshold"):
        with pytest.raises(ConfigError, match=name):
            MaskArgmaxFusion(**{name: 1.1})
    with pytest.raises(ConfigError, match="stuff_area_limit_px"):
        MaskArgmaxFusion(stuff_area_limit_px=float("nan"))


@pytest.mark.parametrize("way", WAYS)
@given(seed=st.integers(0, 10**6), ties=st.booleans(), shared=st.booleans(), stuff_masks=st.booleans())
@settings(max_examples=60, deadline=None)
def test_equal_to_the_rule(way: bool, seed: int, ties: bool, shared: bool, stuff_masks: bool) -> None:
    fusion = MaskArgmaxFusion(object_mask_threshold=0.4, overlap_threshold=0.6)
    outputs = scene(seed, ties=ties, shared=shared, stuff_masks=stuff_masks)
    some, all_of_them = (replace(outputs, semantic=highest(outputs.semantic, count)) for count in (1 + seed % 5, 5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pixel_argmax, "COMPILED", way)
        dense = summarize(fusion(outputs))
        assert dense == slow_fusion.mask_argmax(fusion, outputs)
        assert dense == summarize(fusion(all_of_them))
        assert summarize(fusion(some)) == slow_fusion.mask_argmax(fusion, some)
