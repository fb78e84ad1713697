"""Properties that every fusion method has."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segkit.fusion import CENTERS, FUSION_METHODS, LOGITS, REASONS, DroppedSegment, build_fusion, method
from segkit.fusion.paste import paste_masks
from segkit.structures import VOID, HeadOutputs, PanopticSegmentation, SemanticScores
from segkit.utils.errors import ConfigError
from tests.helpers.fusion_scenes import STUFF_IDS, THING_IDS, reordered, scene, with_scores

# Thresholds that let small scenes through; a method takes those that it has.
LOOSE = {"stuff_area_limit_px": 2.0, "instance_score_threshold": 0.3, "object_mask_threshold": 0.3}
pytestmark = pytest.mark.parametrize("name", sorted(FUSION_METHODS))
seeds = given(seed=st.integers(0, 10**6))
some = settings(max_examples=60, deadline=None)


def fusion(name: str, **options: Any) -> Any:
    option_names = FUSION_METHODS[name].__dataclass_fields__  # type: ignore[attr-defined]
    return build_fusion(name, **{k: v for k, v in LOOSE.items() if k in option_names} | options)


def summarize(fused: PanopticSegmentation, rows: Any = None) -> list[Any]:
    """The segments, with the instances named by `rows`."""
    return [
        (s, None)
        if s.instance_id is None
        else (replace(s, instance_id=None), s.instance_id if rows is None else rows[s.instance_id])
        for s in fused.segments
    ]


@seeds
@some
def test_each_pixel_has_one_segment_and_areas_add_up(name: str, seed: int) -> None:
    outputs = scene(seed)
    fused = fusion(name)(outputs)
    assert fused.segment_ids.shape == outputs.semantic.size_hw
    assert fused.segment_ids.dtype == np.int32
    assert [s.segment_id for s in fused.segments] == [*range(1, len(fused.segments) + 1)]
    counts = np.bincount(fused.segment_ids.ravel(), minlength=len(fused.segments) + 1)
    assert counts[1:].tolist() == [s.area_px for s in fused.segments]  # also: no id beyond N
    assert not any(s.iscrowd for s in fused.segments)


@seeds
@some
def test_things_come_first_by_falling_score_then_stuff_by_rising_id(name: str, seed: int) -> None:
    fused = fusion(name)(scene(seed))
    things = [s for s in fused.segments if s.isthing]
    stuff = [s for s in fused.segments if not s.isthing]
    assert list(fused.segments) == [*things, *stuff]
    assert [s.score for s in things] == sorted((s.score for s in things), reverse=True)
    assert [s.category_id for s in stuff] == sorted({s.category_id for s in stuff})
    assert {s.category_id for s in things} <= {0, 1, 2}
    assert {s.category_id for s in stuff} <= {1, 2}
    assert all(s.score is None and s.instance_id is None for s in stuff)


@seeds
@some
def test_the_order_of_instances_does_not_matter(name: str, seed: int) -> None:
    outputs = scene(seed)
    order = np.random.default_rng(seed).permutation(len(outputs.instances))
    first, second = fusion(name)(outputs), fusion(name)(reordered(outputs, order))
    assert np.array_equal(first.segment_ids, second.segment_ids)
    assert summarize(first) == summarize(second, rows=order.tolist())


@seeds
@some
def test_of_equal_scores_the_earlier_instance_comes_first(name: str, seed: int) -> None:
    fused = fusion(name)(with_scores(scene(seed), 0.9))
    rows = [s.instance_id for s in fused.segments if s.isthing]
    assert rows == sorted(rows)


@seeds
@some
def test_inputs_are_not_modified_and_explaining_changes_no_result(name: str, seed: int) -> None:
    outputs, dropped_segments = scene(seed), []
    before = copy.deepcopy(outputs)
    silent = fusion(name)(outputs)
    explained = fusion(name)(outputs, dropped_segments)
    assert np.array_equal(silent.segment_ids, explained.segment_ids)
    assert silent.segments == explained.segments
    for old, new in (
        (before.instances.scores, outputs.instances.scores),
        (before.instances.mask_probs, outputs.instances.mask_probs),
        (before.instances.to_full(), outputs.instances.to_full()),
        (before.semantic.channels, outputs.semantic.channels),
        (before.semantic.logits, outputs.semantic.logits),
    ):
        assert np.array_equal(old, new)  # type: ignore[arg-type]


@seeds
@some
def test_every_dropped_or_shrunk_instance_has_its_reason(name: str, seed: int) -> None:
    outputs = scene(seed)
    dropped_segments: list[DroppedSegment] = []
    fused = fusion(name)(outputs, dropped_segments)
    by_row = {dropped.instance_id: dropped for dropped in dropped_segments if dropped.isthing}
    segment_of_row = {s.instance_id: s for s in fused.segments if s.isthing}
    for row in range(len(outputs.instances)):
        mask = np.zeros(outputs.semantic.size_hw, dtype=bool)
        mask[outputs.instances.window(row)] = outputs.instances.crops[row]
        kept_px = int((fused.segment_ids[mask] == segment_of_row[row].segment_id).sum()) if row in segment_of_row else 0
        if row in segment_of_row and kept_px == mask.sum():
            assert row not in by_row
            continue
        dropped = by_row[row]
        assert dropped.reason in REASONS
        assert (dropped.area_px, dropped.kept_px) == (mask.sum(), kept_px)
        assert dropped.kept_px + sum(pixels for _, pixels in dropped.overlapped_by) == dropped.area_px
        assert dropped.segment_id == (segment_of_row[row].segment_id if row in segment_of_row else VOID)


@seeds
@settings(max_examples=20, deadline=None)
def test_without_instances_only_stuff_remains(name: str, seed: int) -> None:
    fused = fusion(name)(scene(seed, count=0))
    assert not any(s.isthing and s.instance_id is not None for s in fused.segments)


def test_thing_pixels_without_instances_are_void_or_things(name: str) -> None:
    """The semantic head predicts thing 0 everywhere, without detections: no stuff may appear."""
    outputs = scene(1, count=0, size_hw=(4, 5))
    logits = np.zeros((5, 4, 5), dtype=np.float32)
    logits[1] = 9
    outputs = replace(
        outputs,
        semantic=SemanticScores(
            channels=logits.argmax(axis=0), stuff_ids=STUFF_IDS, thing_ids=THING_IDS, logits=logits
        ),
    )
    fused = build_fusion(name)(outputs)
    assert not fused.segment_ids.any()
    assert fused.segments == ()


def test_no_stuff_keeps_the_instances(name: str) -> None:
    """Two adjacent instances on which both heads agree; the semantic head predicts things everywhere else."""
    rng_free = scene(3, count=2, size_hw=(6, 8))
    boxes = np.array([[0, 0, 4, 6], [4, 0, 8, 6]], dtype=np.float32)
    masks = paste_masks(
        np.ones((2, 4, 4), np.float32), boxes, np.array([0.99, 0.95], np.float32), np.array([0, 1]), (6, 8)
    )
    logits = np.full((5, 6, 8), -9, dtype=np.float32)
    logits[1, :, :4] = logits[2, :, 4:] = 9
    semantic = SemanticScores(channels=logits.argmax(axis=0), stuff_ids=STUFF_IDS, thing_ids=THING_IDS, logits=logits)
    fused = fusion(name)(replace(rng_free, instances=masks, semantic=semantic))
    assert fused.segment_ids.tolist() == [[1] * 4 + [2] * 4] * 6
    assert [(s.category_id, s.isthing, s.area_px) for s in fused.segments] == [(0, True, 24), (1, True, 24)]


def test_an_image_without_pixels(name: str) -> None:
    outputs = scene(0, count=0, size_hw=(1, 1))
    nothing = np.zeros((5, 0, 3), dtype=np.float32)
    semantic = SemanticScores(channels=nothing[0].astype(int), stuff_ids=STUFF_IDS, thing_ids=THING_IDS, logits=nothing)
    masks = replace(outputs.instances, size_hw=(0, 3))
    fused = fusion(name)(HeadOutputs(masks, semantic))
    assert fused.segment_ids.shape == (0, 3)
    assert fused.segments == ()


def test_low_scores_equal_no_instances(name: str) -> None:
    outputs = scene(5, count=4, size_hw=(9, 9))
    low = fusion(name)(with_scores(outputs, 0.0))
    none = fusion(name)(reordered(outputs, np.zeros(0, dtype=int)))
    assert np.array_equal(low.segment_ids, none.segment_ids)
    assert summarize(low) == summarize(none)


def test_missing_inputs_of_a_method_are_named(name: str) -> None:
    """Without logits and probabilities a method runs or names the missing inputs; no other error occurs."""
    outputs = scene(2, count=3, size_hw=(8, 8))
    bare = HeadOutputs(
        replace(outputs.instances, mask_probs=None),
        SemanticScores(outputs.semantic.channels, STUFF_IDS, THING_IDS),
    )
    needs = FUSION_METHODS[name].needs
    if needs - {CENTERS}:
        with pytest.raises(ConfigError, match="|".join(sorted(needs))):
            fusion(name)(bare)
    else:
        assert fusion(name)(bare).segment_ids.shape == (8, 8)


def test_sorted_logits_of_all_channels_equal_dense_logits(name: str) -> None:
    outputs = scene(11, count=5, size_hw=(10, 12))
    logits = outputs.semantic.logits
    assert logits is not None
    order = np.argsort(-logits, axis=0, kind="stable")
    listed = SemanticScores(
        channels=outputs.semantic.channels,
        stuff_ids=STUFF_IDS,
        thing_ids=THING_IDS,
        logits=np.take_along_axis(logits, order, axis=0),
        logit_channels=order,
    )
    dense, sparse = fusion(name)(outputs), fusion(name)(replace(outputs, semantic=listed))
    assert np.array_equal(dense.segment_ids, sparse.segment_ids)
    assert summarize(dense) == summarize(sparse)


def test_too_many_segments_for_a_png_are_rejected(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(method, "MAX_SEGMENT_ID", 0)
    outputs = scene(11, count=5, size_hw=(10, 12))
    with pytest.raises(ValueError, match="segments"):
        fusion(name)(outputs)


def test_options_are_checked(name: str) -> None:
    with pytest.raises(ConfigError, match="no option"):
        build_fusion(name, threshhold=0.5)
    for option, field in FUSION_METHODS[name].__dataclass_fields__.items():  # type: ignore[attr-defined]
        if field.type in (float, "float"):
            with pytest.raises(ConfigError, match=option):
                build_fusion(name, **{option: float("nan")})
            with pytest.raises(ConfigError, match=option):
                build_fusion(name, **{option: "a lot"})


def test_missing_logits_are_named(name: str) -> None:
    assert FUSION_METHODS[name].needs <= {"mask_probs", LOGITS, CENTERS}
