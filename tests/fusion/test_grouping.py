"""Centres and groups: hand-drawn maps, and comparison with torch and slow simple versions."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segkit.fusion.grouping import NO_OWNER, find_heat_peaks, group_by_masks, group_by_offsets
from segkit.structures import CenterOffsets, InstanceMasks


def import_detectron2() -> tuple[Any, Any]:
    """torch and Panoptic-DeepLab's post-processing; the test is skipped without them."""
    path = "detectron2.projects.panoptic_deeplab.post_processing"
    reason = "compares with Detectron2"
    return pytest.importorskip("torch", reason=reason), pytest.importorskip(path, reason=reason)


def heat(rows: list[list[float]]) -> np.ndarray:
    return np.array(rows, dtype=np.float32)


def build_masks(masks: np.ndarray, scores: list[float]) -> InstanceMasks:
    count = len(masks)
    boxes, classes = np.zeros((count, 4), dtype=np.float32), np.zeros(count, dtype=np.int64)
    return InstanceMasks.from_full(masks, boxes, np.array(scores, dtype=np.float32), classes)


def test_a_peak_is_above_the_threshold_and_the_highest_around() -> None:
    """Window 3: 0.9 beats 0.8 beside it and 0.3 below; 0.4 has only lower neighbours; 0.2 is not above 0.2."""
    peaks = find_heat_peaks(heat([[0.9, 0.8, 0.0, 0.4], [0.3, 0.0, 0.0, 0.0], [0.0, 0.0, 0.2, 0.0]]), 0.2, 3, 10)
    assert peaks.tolist() == [[0, 0], [0, 3]]


def test_windows_larger_than_the_image() -> None:
    """A window too large for its pixels to be counted or stored."""
    peaks = find_heat_peaks(heat([[0.9, 0.0, 0.8], [0.0, 0.0, 0.9]]), 0.2, 10**11 + 1, 10)
    assert peaks.tolist() == [[0, 0], [1, 2]]


def test_equal_neighbours_are_both_peaks() -> None:
    assert find_heat_peaks(heat([[0.5, 0.5, 0.0]]), 0.1, 7, 10).tolist() == [[0, 0], [0, 1]]


def test_top_k_keeps_what_is_above_the_kth() -> None:
    """Five peaks, window 1. top_k 3: the third best is 0.5, only 0.9 and 0.7 are above it; the same for 4, as 0.5 comes
    twice; 5: the fifth is 0.3, four are above; 6 is more than there are: all stay."""
    row = heat([[0.5, 0.9, 0.5, 0.7, 0.3, 0.0]])
    selected = {k: find_heat_peaks(row, 0.1, 1, k)[:, 1].tolist() for k in (1, 3, 4, 5, 6, 99)}
    assert selected == {1: [], 3: [1, 3], 4: [1, 3], 5: [0, 1, 2, 3], 6: [0, 1, 2, 3, 4], 99: [0, 1, 2, 3, 4]}


@pytest.mark.parametrize("size_hw", [(0, 0), (0, 3), (3, 0)])
def test_empty_heatmaps_have_no_peaks(size_hw: tuple[int, int]) -> None:
    assert find_heat_peaks(np.zeros(size_hw, np.float32), 0.1, 7, 200).shape == (0, 2)


def test_heat_at_or_below_zero_is_no_peak_at_a_threshold_of_zero() -> None:
    assert find_heat_peaks(heat([[0.0, -1.0, 0.0]]), 0.0, 1, 9).tolist() == []


@st.composite
def heads(draw: st.DrawFn) -> CenterOffsets:
    height, width = draw(st.integers(2, 14)), draw(st.integers(2, 14))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    heatmap = rng.random((height, width)) if draw(st.booleans()) else rng.choice([0, 0.1, 0.3, 0.6], (height, width))
    halves = rng.integers(-20, 20, (2, height, width)) / 2
    offsets = halves if draw(st.booleans()) else rng.normal(0, draw(st.sampled_from([1, 30, 1e30])), halves.shape)
    return CenterOffsets(heatmap.astype(np.float32), offsets.astype(np.float32))


@given(heads(), st.sampled_from([0.0, 0.1, 0.3]), st.sampled_from([1, 3, 5, 7]), st.integers(1, 4))
@settings(max_examples=200, deadline=None)
def test_peaks_equal_detectron2s(centers: CenterOffsets, threshold: float, kernel: int, top_k: int) -> None:
    torch, post_processing = import_detectron2()
    heatmap = torch.from_numpy(centers.heatmap)[None]
    assert (
        find_heat_peaks(centers.heatmap, threshold, kernel, top_k).tolist()
        == post_processing.find_instance_center(heatmap.clone(), threshold, kernel, top_k).tolist()
    )


def test_groups_equal_detectron2s() -> None:
    """Groups of every pixel. The last scale overflows float32 when squared, so all centres are infinitely far."""
    torch, post_processing = import_detectron2()
    rng = np.random.default_rng(0)
    for scale in (0.5, 20, 500, 1e30):
        heatmap, offsets = np.zeros((60, 90), np.float32), rng.normal(0, scale, (2, 60, 90)).astype(np.float32)
        peaks = rng.integers(0, [60, 90], (40, 2))
        ours = group_by_offsets(CenterOffsets(heatmap, offsets), peaks, np.arange(60 * 90))
        theirs = post_processing.group_pixels(torch.from_numpy(peaks), torch.from_numpy(offsets)) - 1
        assert ours.tolist() == theirs.flatten().tolist()


def test_distances_equal_after_rounding_are_a_tie() -> None:
    """From (0, 0) to (2114, 23) it is the root of 4469525, 2114.12511; to (2110, 132) of 4469524, 2114.12488. Float32
    has steps of 2^-12 = 0.00024 there: both are 2114.125, so the first centre is chosen in either order. (2114, 25) is
    farther away: 2114.148."""
    centers = CenterOffsets(np.zeros((1, 1), np.float32), np.zeros((2, 1, 1), np.float32))
    peaks = np.array([[2114, 23], [2110, 132]])
    assert group_by_offsets(centers, peaks, np.array([0])).tolist() == [0]
    assert group_by_offsets(centers, peaks[::-1], np.array([0])).tolist() == [0]
    assert group_by_offsets(centers, np.array([[2114, 25], [2110, 132]]), np.array([0])).tolist() == [1]


def test_without_a_center_pixels_have_no_owner() -> None:
    centers = CenterOffsets(np.zeros((1, 2), np.float32), np.zeros((2, 1, 2), np.float32))
    assert group_by_offsets(centers, np.zeros((0, 2), np.int64), np.array([0, 1])).tolist() == [NO_OWNER, NO_OWNER]
    empty = build_masks(np.zeros((1, 1, 2), bool), [0.9])
    assert group_by_masks(empty, [0], np.array([0, 1])).tolist() == [NO_OWNER, NO_OWNER]


@st.composite
def mask_scenes(draw: st.DrawFn) -> tuple[InstanceMasks, np.ndarray]:
    height, width, count = draw(st.integers(1, 8)), draw(st.integers(1, 8)), draw(st.integers(0, 5))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    masks = rng.random((count, height, width)) < draw(st.floats(0, 0.6))
    return build_masks(masks, rng.random(count).tolist()), np.flatnonzero(rng.random(height * width) < 0.7)


@given(mask_scenes())
@settings(max_examples=200, deadline=None)
def test_masks_equal_a_slow_simple_version(scene: tuple[InstanceMasks, np.ndarray]) -> None:
    instances, pixels = scene
    order = np.argsort(-instances.scores, kind="stable").tolist()
    full = instances.to_full()
    allowed = []  # of nearly equal distances rounding decides, of equal ones the order
    for pixel in pixels.tolist():
        y, x = divmod(pixel, instances.size_hw[1])
        covering = [rank for rank, row in enumerate(order) if full[row, y, x]]
        distances = [
            float(np.hypot(*(np.float32(np.argwhere(full[row]).mean(axis=0)) - (y, x)))) if full[row].any() else np.inf
            for row in order
        ]
        limit = min(min(distances, default=np.inf) + 1e-5, sys.float_info.max)
        nearest = {distances.index(distance) for distance in distances if distance <= limit}
        allowed.append({covering[0]} if covering else nearest or {NO_OWNER})
    groups = group_by_masks(instances, order, pixels).tolist()
    assert all(group in ranks for group, ranks in zip(groups, allowed, strict=True))
