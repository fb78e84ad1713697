"""The heuristic fusion: hand-drawn maps, and comparison with Detectron2's function on random maps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segkit.fusion import DroppedSegment, HeuristicFusion, build_fusion, segments
from segkit.structures import HeadOutputs, InstanceMasks, SemanticScores
from segkit.utils.compiled import COMPILED
from segkit.utils.errors import ConfigError

WAYS = [pytest.param(True, marks=pytest.mark.skipif(not COMPILED, reason="needs numba")), False]


def instances(masks: list[list[list[int]]], scores: list[float], class_ids: list[int]) -> InstanceMasks:
    full = np.array(masks, dtype=bool)
    boxes = np.zeros((len(full), 4), dtype=np.float32)
    return InstanceMasks.from_full(full, boxes, np.array(scores, dtype=np.float32), np.array(class_ids))


def outputs(masks: InstanceMasks, stuff_ids: Any) -> HeadOutputs:
    return HeadOutputs(masks, SemanticScores.from_stuff_ids(stuff_ids))


LEFT = [[1, 1, 1, 0], [1, 1, 1, 0]]  # columns 0 to 2
RIGHT = [[0, 0, 1, 1], [0, 0, 1, 1]]  # columns 2 and 3: half of it under LEFT
STUFF = np.array([[0, 0, 0, 0], [1, 2, 2, 2]])


def test_better_instances_occlude_others_and_stuff_fills_the_rest() -> None:
    """RIGHT is better: it keeps its 4 pixels. LEFT has 2 of 6 taken (1/3 <= 0.5) and keeps columns 0 and 1.

    No stuff pixel remains, so stuff 1 and 2 make no segment.
    """
    fused = HeuristicFusion(stuff_area_limit_px=1)(outputs(instances([LEFT, RIGHT], [0.6, 0.9], [5, 7]), STUFF))
    assert fused.segment_ids.tolist() == [[2, 2, 1, 1], [2, 2, 1, 1]]
    assert [(s.segment_id, s.category_id, s.area_px, s.instance_id) for s in fused.segments] == [
        (1, 7, 4, 1),
        (2, 5, 4, 0),
    ]


def test_mostly_occluded_instances_are_dropped() -> None:
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


def test_empty_inputs_give_void_and_are_not_modified() -> None:
    none = InstanceMasks.from_full(np.zeros((0, 2, 4), bool), *np.zeros((3, 0)))  # type: ignore[arg-type]
    assert HeuristicFusion()(outputs(none, np.zeros((2, 4), dtype=int))).segments == ()
    pair, stuff = instances([LEFT, RIGHT], [0.6, 0.9], [5, 7]), STUFF.copy()
    HeuristicFusion()(outputs(pair, stuff))
    assert pair.to_full().tolist() == np.array([LEFT, RIGHT], dtype=bool).tolist()
    assert stuff.tolist() == STUFF.tolist()


def test_sizes_that_differ_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"size \(3, 4\), got \(2, 4\)"):
        HeuristicFusion()(outputs(instances([LEFT], [0.9], [0]), np.zeros((3, 4), dtype=int)))
    with pytest.raises(ValueError, match=r"must be in 0..16777215, got -1..1"):
        HeuristicFusion()(outputs(instances([LEFT], [0.9], [0]), STUFF - 1))


def test_unknown_methods_and_options_are_rejected() -> None:
    with pytest.raises(ConfigError, match="unknown fusion method 'magic'"):
        build_fusion("magic")
    with pytest.raises(ConfigError, match=r"no option \['overlap'\]"):
        build_fusion("heuristic", overlap=0.5)


def test_options_out_of_range_are_rejected() -> None:
    for options, message in (
        ({"overlap_threshold": 1.5}, r"overlap_threshold must be a number in \[0, 1\], got 1.5"),
        ({"nms_threshold": -0.1}, r"nms_threshold must be a number in \[0, 1\]"),
        ({"stuff_area_limit_px": -1}, "stuff_area_limit_px must be a number from 0, got -1"),
        ({"stuff_area_limit_px": float("nan")}, "stuff_area_limit_px must be a number from 0, got nan"),
        ({"instance_score_threshold": float("nan")}, "instance_score_threshold must be a number, got nan"),
        ({"class_score_thresholds": {-1: 0.5}}, "class_score_thresholds must have contiguous ids"),
        ({"nms": "soft"}, r"nms must be one of \['none', 'box', 'mask'\], got 'soft'"),
    ):
        with pytest.raises(ConfigError, match=message):
            HeuristicFusion(**options)  # type: ignore[arg-type]


def test_thresholds_of_classes_and_suppression_come_before_the_fusion() -> None:
    """LEFT (class 5, 0.6) falls below its own threshold of 0.7; RIGHT (class 7, 0.9) stays.

    Or: they share 2 of 8 pixels, an IoU of 0.25 > 0.2, so that LEFT goes, as the worse of the two.
    """
    pair = outputs(instances([LEFT, RIGHT], [0.6, 0.9], [5, 7]), STUFF)
    for options in ({"class_score_thresholds": {5: 0.7}}, {"nms": "mask", "nms_threshold": 0.2}):
        fused = HeuristicFusion(stuff_area_limit_px=1, **options)(pair)  # type: ignore[arg-type]
        assert fused.segment_ids.tolist() == [[0, 0, 1, 1], [2, 3, 1, 1]]
        assert [s.category_id for s in fused.segments] == [7, 1, 2]


def test_a_fully_occluded_instance_is_an_empty_segment_at_overlap_1() -> None:
    """RIGHT holds columns 2 and 3; the second RIGHT finds all 4 of 4 pixels taken: 1 is not > 1."""
    pair = instances([RIGHT, RIGHT], [0.9, 0.8], [7, 5])
    fused = HeuristicFusion(overlap_threshold=1, stuff_area_limit_px=9)(outputs(pair, STUFF))
    assert [(s.segment_id, s.area_px) for s in fused.segments] == [(1, 4), (2, 0)]
    assert fused.segment_ids.tolist() == [[0, 0, 1, 1], [0, 0, 1, 1]]


def test_float32_scores_are_compared_with_float64_thresholds() -> None:
    """float32(0.7) is 0.699999988, below 0.7; float32(0.3) is 0.300000012, not below 0.3."""
    pair = outputs(instances([LEFT], [0.7], [5]), STUFF)
    assert HeuristicFusion(instance_score_threshold=0.7, stuff_area_limit_px=9)(pair).segments == ()
    pair = outputs(instances([LEFT], [0.3], [5]), STUFF)
    assert len(HeuristicFusion(instance_score_threshold=0.3, stuff_area_limit_px=9)(pair).segments) == 1


@st.composite
def scenes(draw: st.DrawFn) -> tuple[Any, ...]:
    height, width, count = draw(st.integers(1, 7)), draw(st.integers(1, 7)), draw(st.integers(0, 6))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    masks = rng.random((count, height, width)) < draw(st.floats(0, 1))
    scores = rng.choice([0.0, 0.2, 0.4999, 0.5, 0.7, 0.7, 0.9], count).astype(np.float32)
    masks &= rng.random((count, 1, 1)) < 0.9  # some are empty
    stuff = rng.choice(draw(st.sampled_from([[0, 1, 2, 3], [0, 3, 90, 7], [5], [0]])), (height, width))
    overlap, area_px = draw(st.sampled_from([0.0, 0.25, 0.5, 1.0])), draw(st.sampled_from([0, 0.5, 1, 3, 9]))
    score = draw(st.sampled_from([0.0, 0.2, 0.4999, 0.5, 0.7, 0.9, 1.0]))
    return masks, scores, rng.integers(0, 5, count), stuff, (overlap, area_px, score)


@pytest.mark.parametrize("way", WAYS, ids=["compiled", "numpy"])
@given(scene=scenes(), dtype=st.sampled_from(["u1", "i8", ">i4", "u2"]))
@settings(max_examples=300, deadline=None)
def test_identical_to_detectron2(way: bool, scene: tuple[Any, ...], dtype: str) -> None:
    masks, scores, class_ids, stuff, (overlap, limit, score) = scene
    torch = pytest.importorskip("torch", reason="compares with torch")
    panoptic_fpn = pytest.importorskip("detectron2.modeling.meta_arch.panoptic_fpn", reason="compares with Detectron2")
    from detectron2.structures import Boxes, Instances

    from segkit.modeling.postprocessing.map_outputs import detectron2_segments_info

    given_to_detectron2 = Instances(stuff.shape)
    given_to_detectron2.pred_masks = torch.from_numpy(masks)
    given_to_detectron2.scores = torch.from_numpy(scores)
    given_to_detectron2.pred_classes = torch.from_numpy(class_ids)
    given_to_detectron2.pred_boxes = Boxes(torch.zeros(len(scores), 4))
    ids, info = panoptic_fpn.combine_semantic_and_instance_outputs(
        given_to_detectron2, torch.from_numpy(stuff), overlap, limit, score
    )
    ours = InstanceMasks.from_full(masks, np.zeros((len(scores), 4), np.float32), scores, class_ids)
    with in_a_way(way):
        fused = HeuristicFusion(overlap_threshold=overlap, stuff_area_limit_px=limit, instance_score_threshold=score)(
            outputs(ours, stuff.astype(dtype))
        )
    assert fused.segment_ids.tolist() == ids.tolist()
    assert fused.segment_ids.dtype == np.int32
    assert detectron2_segments_info(fused.segments) == info


@pytest.mark.skipif(not COMPILED, reason="needs numba")
@given(scene=scenes(), options=st.sampled_from([{}, {"nms": "mask", "nms_threshold": 0.1}]))
@settings(max_examples=100, deadline=None)
def test_compiled_and_numpy_report_the_same_rejections(scene: tuple[Any, ...], options: dict[str, Any]) -> None:
    masks, scores, class_ids, stuff, (overlap, limit, score) = scene
    given_outputs = outputs(
        InstanceMasks.from_full(masks, np.zeros((len(scores), 4), np.float32), scores, class_ids), stuff
    )
    results: list[Any] = []
    for way in (True, False):
        dropped_segments: list[DroppedSegment] = []
        with in_a_way(way):
            fused = HeuristicFusion(
                overlap_threshold=overlap, stuff_area_limit_px=limit, instance_score_threshold=score, **options
            )(given_outputs, dropped_segments)
        results.append((fused.segment_ids.tolist(), fused.segments, dropped_segments))
    assert results[0] == results[1]


@contextlib.contextmanager
def in_a_way(way: bool) -> Iterator[None]:
    """Select the compiled or the numpy version within the context."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "COMPILED", way)
        yield
