"""The majority vote: hand-drawn maps, and comparison with Detectron2's functions on random maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segkit.fusion import DroppedSegment
from segkit.fusion.majority_vote import MajorityVoteFusion
from segkit.structures import CenterOffsets, HeadOutputs, InstanceMasks, PanopticSegmentation, SemanticScores
from segkit.utils.errors import ConfigError

# Five channels, as a network for Cityscapes has them, stuff and things mixed: s1, t0, s2, t1, t2.
STUFF_IDS, THING_IDS = np.array([1, 0, 2, 0, 0]), np.array([-1, 0, -1, 1, 2])
THING_CHANNELS = {1, 3, 4}
DIVISOR, VOID_LABEL = 1000, -1


def semantic(channels: Any) -> SemanticScores:
    return SemanticScores(np.array(channels), STUFF_IDS, THING_IDS)


def no_instances(size_hw: tuple[int, int]) -> InstanceMasks:
    return InstanceMasks.from_full(np.zeros((0, *size_hw), bool), *np.zeros((3, 0)))  # type: ignore[arg-type]


def with_centers(channels: Any, heatmap: Any, offsets_yx: Any = None) -> HeadOutputs:
    heat = np.array(heatmap, dtype=np.float32)
    offsets = np.zeros((2, *heat.shape)) if offsets_yx is None else np.array(offsets_yx)
    centers = CenterOffsets(heat, offsets.astype(np.float32))
    return HeadOutputs(no_instances(heat.shape), semantic(channels), centers=centers)


def with_masks(channels: Any, masks: Any, scores: list[float], class_ids: list[int]) -> HeadOutputs:
    full = np.array(masks, dtype=bool)
    boxes = np.zeros((len(full), 4), dtype=np.float32)
    masks = InstanceMasks.from_full(full, boxes, np.array(scores, dtype=np.float32), np.array(class_ids))
    return HeadOutputs(masks, semantic(channels))


def listed(fused: PanopticSegmentation) -> list[tuple[Any, ...]]:
    return [(s.category_id, s.isthing, s.area_px, s.instance_id) for s in fused.segments]


FUSION = MajorityVoteFusion(nms_kernel=3, stuff_area_limit_px=1)


def test_pixels_go_to_the_nearest_centre_and_vote() -> None:
    """Peaks at (0, 1) with 0.5 and (0, 5) with 0.9: both are the highest of their 3 x 3 window.

    Columns 1 to 5 are things. Without offsets column 2 is nearest to 1, column 4 to 5; column 3 is 2 from both and goes
    to the first. Left group: t0 t0 t1 -> t0; right: t1 t2 -> a tie, the first channel, t1. The right one is hotter: 1.
    """
    fused = FUSION(with_centers([[0, 1, 1, 3, 3, 4, 0]], [[0, 0.5, 0, 0, 0, 0.9, 0]]))
    assert fused.segment_ids.tolist() == [[3, 2, 2, 2, 1, 1, 3]]
    assert listed(fused) == [(1, True, 2, None), (0, True, 3, None), (1, False, 2, None)]
    assert [s.score for s in fused.segments] == [pytest.approx(0.9), pytest.approx(0.5), None]


def test_offsets_point_to_centres() -> None:
    """As above, but column 2 points 3 to the right: to column 5, where the right centre is. Right: t0 t1 t2, a tie of
    three, thus t0; left: t0 t1, a tie, t0."""
    offsets = np.zeros((2, 1, 7))
    offsets[1, 0, 2] = 3
    fused = FUSION(with_centers([[0, 1, 1, 3, 3, 4, 0]], [[0, 0.5, 0, 0, 0, 0.9, 0]], offsets))
    assert fused.segment_ids.tolist() == [[3, 2, 1, 2, 1, 1, 3]]
    assert [s.category_id for s in fused.segments if s.isthing] == [0, 0]


def test_things_without_a_centre_are_void_and_centres_without_things_make_no_segment() -> None:
    """At 0.1 a heat of 0.1 is not above it: no centre, columns 1 and 2 are void. At 0.05 it is a centre, but the whole
    map being stuff it has no pixel."""
    none = FUSION(with_centers([[0, 1, 3, 2]], [[0, 0, 0.1, 0]]))
    assert none.segment_ids.tolist() == [[1, 0, 0, 2]]
    stuff = MajorityVoteFusion(center_threshold=0.05, stuff_area_limit_px=1)(
        with_centers([[0, 0, 2, 2]], [[0, 0, 0.1, 0]])
    )
    assert listed(stuff) == [(1, False, 2, None), (2, False, 2, None)]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, ">u2", np.int64, np.uint64])
def test_channels_of_every_integer_type(dtype: Any) -> None:
    """Channel 1 is thing 0, channel 2 stuff 2."""
    outputs = with_centers(np.array([[1, 1, 2]], dtype=dtype), [[0.9, 0, 0]])
    assert listed(FUSION(outputs)) == [(0, True, 2, None), (2, False, 1, None)]


def test_small_stuff_is_left_out() -> None:
    """s1 has 3 pixels, s2 has 2: with a limit of 3 only s1 stays."""
    fused = MajorityVoteFusion(stuff_area_limit_px=3)(with_centers([[0, 0, 0, 2, 2]], [[0] * 5]))
    assert fused.segment_ids.tolist() == [[1, 1, 1, 0, 0]]


MASKS = [[[1, 1, 1, 0, 0, 0, 0, 0]], [[0, 0, 1, 1, 0, 0, 0, 0]]]  # centres of mass at columns 1 and 2.5


def test_masks_are_groups_if_there_are_no_centres() -> None:
    """Row 1 is better (0.9): columns 2 and 3 are its own. Row 0 has columns 0 and 1. Column 5 is no mask's: 2.5 from
    row 1's centre, 4 from row 0's: row 1. Columns 4, 6 and 7 are stuff.

    Votes: row 1: t1 t2 t2 -> t2, though its box head says 0. Row 0: t0 t0 -> t0.
    """
    fused = FUSION(with_masks([[1, 1, 3, 4, 0, 4, 2, 2]], MASKS, [0.6, 0.9], [2, 0]))
    assert fused.segment_ids.tolist() == [[2, 2, 1, 1, 3, 1, 4, 4]]
    assert listed(fused)[:2] == [(2, True, 3, 1), (0, True, 2, 0)]
    assert fused.segments[0].score == pytest.approx(0.9)


def test_rings_around_one_centre_stay_apart() -> None:
    """Both masks have their centre of mass at column 2; pixels of a mask still belong to that mask."""
    masks = [[[1, 1, 0, 1, 1]], [[0, 0, 1, 0, 0]]]
    assert FUSION(with_masks([[1] * 5], masks, [0.6, 0.9], [0, 0])).segment_ids.tolist() == [[2, 2, 1, 2, 2]]


def test_weak_and_empty_instances_are_rejected_and_logged() -> None:
    """Row 0 is below 0.5, row 1 is empty: only row 2 (0.7) is left, at equal distance or not. Row 0's pixels are all
    in the hands of row 2's segment."""
    masks = [*MASKS[:1], np.zeros((1, 8)), *MASKS[1:]]
    dropped_segments: list[DroppedSegment] = []
    fused = FUSION(with_masks([[1, 1, 1, 1, 0, 0, 0, 0]], masks, [0.4, 0.9, 0.7], [0, 0, 0]), dropped_segments)
    assert fused.segment_ids.tolist() == [[1, 1, 1, 1, 2, 2, 2, 2]]
    assert [(dropped.reason, dropped.instance_id, dropped.overlapped_by) for dropped in dropped_segments] == [
        ("score", 0, ((1, 3),)),
        ("empty", 1, ()),
    ]


def test_one_channel_for_all_things_is_rejected() -> None:
    shared = SemanticScores.from_stuff_ids(np.array([[0, 1]]))
    with pytest.raises(ConfigError, match="a semantic channel for each thing class, but here things share one"):
        FUSION(HeadOutputs(no_instances((1, 2)), shared))


@pytest.mark.parametrize(
    "options",
    [
        {"nms_kernel": 4},
        {"nms_kernel": 0},
        {"top_k": 0},
        {"center_threshold": float("nan")},
        {"stuff_area_limit_px": -1.0},
        {"instance_score_threshold": float("nan")},
    ],
)
def test_wrong_options_are_rejected(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        MajorityVoteFusion(**options)


@st.composite
def deeplab_outputs(draw: st.DrawFn) -> HeadOutputs:
    height, width = draw(st.integers(2, 12)), draw(st.integers(2, 12))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    heat = rng.choice([0, 0.1, 0.2, 0.5, 0.5, 0.8], (height, width), p=draw(st.sampled_from([_FEW, _MANY])))
    if draw(st.booleans()):
        heat = rng.random((height, width))
    halves = rng.integers(-2 * height, 2 * height, (2, height, width)) / 2  # equal distances
    offsets = halves if draw(st.booleans()) else rng.normal(0, draw(st.sampled_from([0.1, 3, 1e25])), halves.shape)
    return with_centers(rng.integers(0, 5, (height, width)), heat, offsets)


_FEW, _MANY = [0.9, 0.02, 0.02, 0.02, 0.02, 0.02], [0.1, 0.1, 0.2, 0.2, 0.2, 0.2]


@given(deeplab_outputs(), st.sampled_from([1, 3, 7]), st.sampled_from([1, 2, 3, 4]), st.integers(0, 5))
@settings(max_examples=300, deadline=None)
def test_identical_to_detectron2(outputs: HeadOutputs, kernel: int, top_k: int, limit: int) -> None:
    torch = pytest.importorskip("torch", reason="compares with torch")
    path = "detectron2.projects.panoptic_deeplab.post_processing"
    post_processing = pytest.importorskip(path, reason="compares with Detectron2")
    assert outputs.centers is not None
    reference, _ = post_processing.get_panoptic_segmentation(
        torch.from_numpy(outputs.semantic.channels)[None],
        torch.from_numpy(outputs.centers.heatmap)[None],
        torch.from_numpy(outputs.centers.offsets_yx),
        THING_CHANNELS,
        DIVISOR,
        limit,
        VOID_LABEL,
        nms_kernel=kernel,
        top_k=top_k,
    )
    fused = MajorityVoteFusion(nms_kernel=kernel, top_k=top_k, stuff_area_limit_px=limit)(outputs)
    _same_partition(fused, reference[0].numpy())


def _same_partition(fused: PanopticSegmentation, reference: np.ndarray) -> None:
    """Segment ids correspond one to one, and corresponding segments have the same class."""
    pairs = {*zip(fused.segment_ids.ravel().tolist(), reference.ravel().tolist(), strict=True)}
    assert len(pairs) == len({ours for ours, _ in pairs}) == len({theirs for _, theirs in pairs})
    segments_by_id = {s.segment_id: s for s in fused.segments}
    for ours, theirs in pairs:
        if ours == 0:
            assert theirs == VOID_LABEL
            continue
        channel, segment = theirs // DIVISOR, segments_by_id[ours]
        assert segment.isthing == (channel in THING_CHANNELS)
        assert segment.category_id == (THING_IDS if segment.isthing else STUFF_IDS)[channel]
        assert segment.area_px == (reference == theirs).sum()
