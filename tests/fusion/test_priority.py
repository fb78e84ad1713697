"""The priority fusion: hand-drawn maps, and comparison with a slow simple version and with the heuristic."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segkit.fusion import DroppedSegment, HeuristicFusion
from segkit.fusion.occlusion_priors import OcclusionPriors
from segkit.fusion.priority import PriorityFusion
from segkit.structures import HeadOutputs, InstanceMasks, SemanticScores
from segkit.utils.errors import ConfigError, DatasetError

PERSON, TIE, TABLE = 0, 1, 2  # contiguous ids of the categories 1, 32, 67
THINGS = ((1, "person"), (32, "tie"), (67, "dining table"))
OVER = {(32, 1): 9, (1, 67): 9, (32, 67): 9}


@pytest.fixture(scope="module")
def priors(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tie occludes a person, both occlude a table; each seen 9 times: a probability of 10 / 11."""
    path = tmp_path_factory.mktemp("priors") / "priors.json"
    path.write_text(json.dumps(OcclusionPriors(THINGS, OVER).to_json()))
    return str(path)


def outputs(masks: Any, scores: list[float], class_ids: list[int], stuff: Any = None) -> HeadOutputs:
    full = np.array(masks, dtype=bool)
    boxes = np.zeros((len(full), 4), dtype=np.float32)
    instances = InstanceMasks.from_full(full, boxes, np.array(scores, dtype=np.float32), np.array(class_ids))
    stuff_map = np.zeros(full.shape[1:], dtype=np.int64) if stuff is None else np.array(stuff)
    return HeadOutputs(instances, SemanticScores.from_stuff_ids(stuff_map))


BODY = [[1, 1, 1, 1, 1, 1, 1, 1]]
CHEST = [[0, 0, 0, 1, 1, 0, 0, 0]]
TWO = outputs([BODY, CHEST], [0.9, 0.6], [PERSON, TIE])


def test_a_tie_takes_its_pixels_from_the_person(priors: str) -> None:
    """The tie is completely inside the better person: the heuristic drops it. Here it takes its 2 pixels, and the
    person, with 2 of 8 lost (0.25 is not > 0.25), keeps 6: shrunk, but no threshold was broken."""
    assert HeuristicFusion()(TWO).segment_ids.tolist() == [[1] * 8]
    dropped_segments: list[DroppedSegment] = []
    fused = PriorityFusion(priors=priors, overlap_threshold=0.25)(TWO, dropped_segments)
    assert [(dropped.reason, dropped.instance_id, dropped.value) for dropped in dropped_segments] == [
        ("overlap", 0, None)
    ]
    assert fused.segment_ids.tolist() == [[1, 1, 1, 2, 2, 1, 1, 1]]
    assert [(s.category_id, s.area_px, s.instance_id) for s in fused.segments] == [(PERSON, 6, 0), (TIE, 2, 1)]


def test_the_occluded_class_takes_no_pixels(priors: str) -> None:
    """The tie is better: it has its pixels already, and a person does not occlude it."""
    swapped = replace(TWO, instances=replace(TWO.instances, scores=np.array([0.6, 0.9], np.float32)))
    fused = PriorityFusion(priors=priors)(swapped)
    assert fused.segment_ids.tolist() == [[2, 2, 2, 1, 1, 2, 2, 2]]


@pytest.mark.parametrize("options", [{"margin": 0.42}, {"min_count": 10}, {"priors": ""}])
def test_uncertain_priors_are_not_applied(priors: str, options: dict[str, Any]) -> None:
    """10 / 11 = 0.909 is above 0.5 + 0.4 but not above 0.5 + 0.42; 9 pairs are fewer than 10."""
    assert PriorityFusion(**{"priors": priors, **options})(TWO).segment_ids.tolist() == [[1] * 8]
    sure = PriorityFusion(priors=priors, margin=0.4, min_count=9)(TWO)
    assert sure.segment_ids.tolist() == [[1, 1, 1, 2, 2, 1, 1, 1]]


def test_small_overlaps_do_not_apply_priors(priors: str) -> None:
    """The masks share column 4: 1 of the tie's 4 pixels, the smaller mask: 0.25. At a min_overlap of 0.3 the person
    keeps it; at 0.25 the tie takes it."""
    masks = [[[1, 1, 1, 1, 1, 0, 0, 0]], [[0, 0, 0, 0, 1, 1, 1, 1]]]
    beside = outputs(masks, [0.9, 0.6], [PERSON, TIE])
    assert PriorityFusion(priors=priors, min_overlap=0.3)(beside).segment_ids.tolist() == [[1] * 5 + [2] * 3]
    assert PriorityFusion(priors=priors, min_overlap=0.25)(beside).segment_ids.tolist() == [[1] * 4 + [2] * 4]


def test_pixels_taken_by_a_prior_do_not_count_as_occluded(priors: str) -> None:
    """The tie, columns 2 to 5, shares 2 pixels with the better person (columns 0 to 3) and 1 with the better tie of row
    1 (column 5). It takes the person's two, so 1 of 4 is occluded: 0.25 is not > 0.25. The heuristic has 3 of 4."""
    masks = [[[1, 1, 1, 1, 0, 0, 0, 0]], [[0, 0, 0, 0, 0, 1, 1, 1]], [[0, 0, 1, 1, 1, 1, 0, 0]]]
    three = outputs(masks, [0.9, 0.8, 0.6], [PERSON, TIE, TIE])
    fused = PriorityFusion(priors=priors, overlap_threshold=0.5)(three)
    assert fused.segment_ids.tolist() == [[1, 1, 3, 3, 3, 2, 2, 2]]
    assert [s.instance_id for s in HeuristicFusion(overlap_threshold=0.5)(three).segments] == [0, 1]


def test_a_dropped_instance_takes_no_pixels(priors: str) -> None:
    """As above, but the better tie covers columns 4 to 7: 2 of 4 pixels are taken, more than 0.4: it is left out, and
    the person keeps all 4."""
    masks = [[[1, 1, 1, 1, 0, 0, 0, 0]], [[0, 0, 0, 0, 1, 1, 1, 1]], [[0, 0, 1, 1, 1, 1, 0, 0]]]
    three = outputs(masks, [0.9, 0.8, 0.6], [PERSON, TIE, TIE])
    dropped_segments: list[DroppedSegment] = []
    fused = PriorityFusion(priors=priors, overlap_threshold=0.4)(three, dropped_segments)
    assert fused.segment_ids.tolist() == [[1] * 4 + [2] * 4]
    assert [(dropped.reason, dropped.instance_id, dropped.value, dropped.limit) for dropped in dropped_segments] == [
        ("overlap", 2, 0.5, 0.4)
    ]


def test_an_instance_that_loses_too_many_pixels_is_dropped_and_frees_the_rest(priors: str) -> None:
    """The table has columns 0 to 4, the person 2 to 4: 3 of the table's 5 pixels, 0.6 > 0.5: the table goes. Of its
    columns 0 and 1 the later tie takes column 1, and stuff 1 fills column 0. Ids: person 1, tie 2, stuff 3."""
    masks = [[[1, 1, 1, 1, 1]], [[0, 0, 1, 1, 1]], [[0, 1, 0, 0, 0]]]
    three = outputs(masks, [0.9, 0.8, 0.7], [TABLE, PERSON, TIE], [[1, 1, 0, 0, 0]])
    dropped_segments: list[DroppedSegment] = []
    fused = PriorityFusion(priors=priors, stuff_area_limit_px=1)(three, dropped_segments)
    assert fused.segment_ids.tolist() == [[3, 2, 1, 1, 1]]
    assert [(s.category_id, s.isthing, s.instance_id) for s in fused.segments] == [
        (PERSON, True, 1),
        (TIE, True, 2),
        (1, False, None),
    ]
    table = dropped_segments[0]
    assert (table.reason, table.instance_id, table.value, table.limit) == ("overlap", 0, 0.6, 0.5)
    assert table.overlapped_by == ((1, 3), (2, 1), (3, 1))


def test_pixels_of_a_third_instance_are_not_transferred(priors: str) -> None:
    """Table columns 0 to 5 (0.9); person 2 to 5 takes 4 of its 6 at a threshold of 0.7 (0.67): the table stays with 0
    and 1. The second table, 1 to 3 (0.7), occludes nothing: 3 of 3 are taken, it is dropped."""
    masks = [[[1, 1, 1, 1, 1, 1]], [[0, 0, 1, 1, 1, 1]], [[0, 1, 1, 1, 0, 0]]]
    three = outputs(masks, [0.9, 0.8, 0.7], [TABLE, PERSON, TABLE])
    fused = PriorityFusion(priors=priors, overlap_threshold=0.7)(three)
    assert fused.segment_ids.tolist() == [[1, 1, 2, 2, 2, 2]]


def test_objects_with_equal_options_are_equal(priors: str) -> None:
    fusion = PriorityFusion(priors=priors)
    assert fusion == PriorityFusion(priors=priors)
    assert fusion != PriorityFusion()
    assert fusion != HeuristicFusion()
    assert PriorityFusion().combine_options == HeuristicFusion().combine_options
    sent = pickle.loads(pickle.dumps(fusion))
    assert sent == fusion
    assert sent(TWO).segment_ids.tolist() == fusion(TWO).segment_ids.tolist()


def test_a_class_beyond_the_priors_is_rejected(priors: str) -> None:
    unknown_class = outputs([BODY], [0.9], [3])
    with pytest.raises(ConfigError, match="list 3 thing classes, but an instance has the contiguous id 3"):
        PriorityFusion(priors=priors)(unknown_class)
    assert PriorityFusion()(unknown_class).segment_ids.tolist() == [[1] * 8]


def test_invalid_prior_files_are_reported_at_construction(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="cannot be read"):
        PriorityFusion(priors=str(tmp_path / "none.json"))
    (tmp_path / "cut.json").write_text(json.dumps(OcclusionPriors(THINGS, OVER).to_json())[:-9])
    with pytest.raises(DatasetError, match="cannot be read"):
        PriorityFusion(priors=str(tmp_path / "cut.json"))


@pytest.mark.parametrize("option", ["min_overlap", "margin", "overlap_threshold"])
def test_wrong_options_are_rejected(option: str) -> None:
    with pytest.raises(ConfigError, match=option):
        PriorityFusion(**{option: 1.5})


@st.composite
def scenes(draw: st.DrawFn) -> tuple[HeadOutputs, dict[str, Any]]:
    height, width, count = draw(st.integers(1, 7)), draw(st.integers(1, 7)), draw(st.integers(0, 6))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    masks = rng.random((count, height, width)) < draw(st.floats(0, 1))
    scores = rng.choice([0.2, 0.4999, 0.5, 0.7, 0.7, 0.9], count).tolist()
    head_outputs = outputs(masks, scores, rng.integers(0, 3, count).tolist(), rng.integers(0, 4, (height, width)))
    overlap, rho = draw(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])), draw(st.sampled_from([0.0, 0.2, 0.5, 1.0]))
    return head_outputs, {
        "overlap_threshold": overlap,
        "min_overlap": rho,
        "stuff_area_limit_px": draw(st.integers(0, 5)),
    }


@given(scenes(), st.sampled_from(["none", "box", "mask"]))
@settings(max_examples=200, deadline=None)
def test_without_priors_the_result_equals_the_heuristic(scene: tuple[HeadOutputs, dict[str, Any]], nms: str) -> None:
    head_outputs, options = scene
    plain = {key: value for key, value in options.items() if key != "min_overlap"}
    ours, theirs = PriorityFusion(nms=nms, **options)(head_outputs), HeuristicFusion(nms=nms, **plain)(head_outputs)
    assert ours.segment_ids.tolist() == theirs.segment_ids.tolist()
    assert ours.segments == theirs.segments


@given(scenes())
@settings(max_examples=300, deadline=None)
def test_equals_a_slow_simple_version(priors: str, scene: tuple[HeadOutputs, dict[str, Any]]) -> None:
    head_outputs, options = scene
    fused = PriorityFusion(priors=priors, **options)(head_outputs)
    expected = _obvious(head_outputs.instances, options["overlap_threshold"], options["min_overlap"])
    held = {
        s.instance_id: {*map(tuple, np.argwhere(fused.segment_ids == s.segment_id).tolist())}
        for s in fused.segments
        if s.isthing
    }
    assert [*held.items()] == [*expected.items()]
    assert [s.area_px for s in fused.segments if s.isthing] == [len(pixels) for pixels in expected.values()]
    free = np.ones(head_outputs.semantic.size_hw, dtype=bool)
    for pixels in expected.values():
        for pixel in pixels:
            free[pixel] = False
    stuff_map, limit = head_outputs.semantic.stuff_map(), options["stuff_area_limit_px"]
    for segment in fused.segments[len(expected) :]:
        filled = free & (stuff_map == segment.category_id)
        assert np.array_equal(fused.segment_ids == segment.segment_id, filled)
        assert filled.sum() >= limit


def _obvious(instances: InstanceMasks, limit: float, min_overlap: float) -> dict[int, set[Any]]:
    """Sets of pixels, by row in the order of placing."""
    full = [{*map(tuple, np.argwhere(mask).tolist())} for mask in instances.to_full()]
    classes, scores, held = instances.class_ids.tolist(), instances.scores.tolist(), {}
    on_top = {(TIE, PERSON), (PERSON, TABLE), (TIE, TABLE)}
    for i in sorted(range(len(full)), key=lambda row: (-scores[row], row)):
        if scores[i] < 0.5 or not full[i]:
            continue
        won = full[i] - set().union(*held.values())
        beaten = [
            j
            for j in held
            if (classes[i], classes[j]) in on_top
            and len(full[i] & full[j]) / min(len(full[i]), len(full[j])) >= min_overlap
        ]
        for j in beaten:
            won |= full[i] & held[j]
        if (len(full[i]) - len(won)) / len(full[i]) > limit:
            continue
        lost_some = [j for j in beaten if held[j] & won]
        held = {j: pixels - won for j, pixels in held.items()} | {i: won}
        for j in lost_some:
            if (len(full[j]) - len(held[j])) / len(full[j]) > limit:
                del held[j]
    return held
