"""The heuristic fusion by hand-drawn maps, and against Detectron2's function on random ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from detectron2.modeling.meta_arch.panoptic_fpn import combine_semantic_and_instance_outputs
from detectron2.structures import Boxes, Instances
from hypothesis import given, settings
from hypothesis import strategies as st

from segkit.fusion import HeuristicFusion, build_fusion
from segkit.modeling.meta_arch.panoptic_rcnn import detectron2_segments_info
from segkit.structures import ConfigError, HeadOutputs, InstanceMasks, SemanticScores


def instances(masks: list[list[list[int]]], scores: list[float], class_ids: list[int]) -> InstanceMasks:
    full = np.array(masks, dtype=bool)
    boxes = np.zeros((len(full), 4), dtype=np.float32)
    return InstanceMasks.from_full(full, boxes, np.array(scores, dtype=np.float32), np.array(class_ids))


def outputs(masks: InstanceMasks, stuff_ids: Any) -> HeadOutputs:
    return HeadOutputs(masks, SemanticScores.of_stuff_ids(stuff_ids))


LEFT = [[1, 1, 1, 0], [1, 1, 1, 0]]  # columns 0 to 2
RIGHT = [[0, 0, 1, 1], [0, 0, 1, 1]]  # columns 2 and 3: half of it under LEFT
STUFF = np.array([[0, 0, 0, 0], [1, 2, 2, 2]])


def test_better_instances_lie_on_top_and_stuff_fills_the_rest() -> None:
    """RIGHT is better: it keeps its 4 pixels. LEFT has 2 of 6 taken (1/3 <= 0.5) and keeps columns 0 and 1.

    Of the stuff nothing is left, so that neither 1 nor 2 becomes a segment.
    """
    fused = HeuristicFusion(stuff_area_limit_px=1)(outputs(instances([LEFT, RIGHT], [0.6, 0.9], [5, 7]), STUFF))
    assert fused.segment_ids.tolist() == [[2, 2, 1, 1], [2, 2, 1, 1]]
    assert [(s.segment_id, s.category_id, s.area_px, s.instance_id) for s in fused.segments] == [
        (1, 7, 4, 1),
        (2, 5, 4, 0),
    ]


def test_an_instance_that_is_mostly_taken_is_left_out() -> None:
    """LEFT is better and takes 2 of RIGHT's 4 pixels: 0.5 is not > 0.5, so RIGHT stays; at 0.4 it goes.

    Then column 3 is free: row 0 is void (a thing to the semantic head), row 1 is stuff 2 with one pixel.
    """
    pair = instances([LEFT, RIGHT], [0.9, 0.6], [5, 7])
    assert HeuristicFusion(stuff_area_limit_px=1)(outputs(pair, STUFF)).segment_ids.tolist() == [
        [1, 1, 1, 2],
        [1, 1, 1, 2],
    ]
    strict = HeuristicFusion(overlap_threshold=0.4, stuff_area_limit_px=1)(outputs(pair, STUFF))
    assert strict.segment_ids.tolist() == [[1, 1, 1, 0], [1, 1, 1, 2]]
    assert [(s.category_id, s.isthing, s.area_px) for s in strict.segments] == [(5, True, 6), (2, False, 1)]


def test_scores_below_the_threshold_and_small_stuff_are_left_out() -> None:
    """Both instances are below 0.95; stuff 1 has 1 pixel, stuff 2 has 3: with a limit of 2 only stuff 2 stays."""
    fusion = HeuristicFusion(stuff_area_limit_px=2, instance_score_threshold=0.95)
    fused = fusion(outputs(instances([LEFT, RIGHT], [0.6, 0.9], [5, 7]), STUFF))
    assert fused.segment_ids.tolist() == [[0, 0, 0, 0], [0, 1, 1, 1]]
    assert [(s.category_id, s.area_px) for s in fused.segments] == [(2, 3)]


def test_equal_scores_keep_the_order_of_the_instances() -> None:
    fused = HeuristicFusion()(outputs(instances([RIGHT, LEFT], [0.8, 0.8], [7, 5]), STUFF))
    assert [s.instance_id for s in fused.segments] == [0, 1]


def test_nothing_gives_void_and_inputs_stay_as_they_were() -> None:
    none = InstanceMasks.from_full(np.zeros((0, 2, 4), bool), *np.zeros((3, 0)))  # type: ignore[arg-type]
    assert HeuristicFusion()(outputs(none, np.zeros((2, 4), dtype=int))).segments == ()
    pair, stuff = instances([LEFT, RIGHT], [0.6, 0.9], [5, 7]), STUFF.copy()
    HeuristicFusion()(outputs(pair, stuff))
    assert pair.to_full().tolist() == np.array([LEFT, RIGHT], dtype=bool).tolist()
    assert stuff.tolist() == STUFF.tolist()


def test_sizes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match=r"size \(3, 4\), got \(2, 4\)"):
        HeuristicFusion()(outputs(instances([LEFT], [0.9], [0]), np.zeros((3, 4), dtype=int)))
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        HeuristicFusion()(outputs(instances([LEFT], [0.9], [0]), STUFF - 1))


def test_unknown_methods_and_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown fusion method 'magic'"):
        build_fusion("magic")
    with pytest.raises(ConfigError, match=r"no option \['overlap'\]"):
        build_fusion("heuristic", overlap=0.5)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[Any, ...]:
    height, width, count = draw(st.integers(1, 7)), draw(st.integers(1, 7)), draw(st.integers(0, 6))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    masks = rng.random((count, height, width)) < draw(st.floats(0, 1))
    scores = rng.choice([0.0, 0.2, 0.4999, 0.5, 0.7, 0.7, 0.9], count).astype(np.float32)
    stuff = rng.integers(0, 4, (height, width))
    thresholds = draw(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.integers(0, 9), st.floats(0, 1)))
    return masks, scores, rng.integers(0, 5, count), stuff, thresholds


@given(scenes())
@settings(max_examples=300, deadline=None)
def test_identical_to_detectron2(scene: tuple[Any, ...]) -> None:
    masks, scores, class_ids, stuff, (overlap, limit, score) = scene
    given_to_detectron2 = Instances(stuff.shape)
    given_to_detectron2.pred_masks = torch.from_numpy(masks)
    given_to_detectron2.scores = torch.from_numpy(scores)
    given_to_detectron2.pred_classes = torch.from_numpy(class_ids)
    given_to_detectron2.pred_boxes = Boxes(torch.zeros(len(scores), 4))
    ids, info = combine_semantic_and_instance_outputs(
        given_to_detectron2, torch.from_numpy(stuff), overlap, limit, score
    )
    ours = InstanceMasks.from_full(masks, np.zeros((len(scores), 4), np.float32), scores, class_ids)
    fused = HeuristicFusion(overlap, limit, score)(outputs(ours, stuff))
    assert fused.segment_ids.tolist() == ids.tolist()
    assert detectron2_segments_info(fused) == info
