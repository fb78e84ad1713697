"""The argmax at each pixel: search of channels, pruning, windows, logits of instances."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segkit.fusion import pixel_argmax
from segkit.fusion.explanations import Rejection, RejectionLog
from segkit.fusion.pixel_argmax import (
    NO_OWNER,
    PixelArgmax,
    argmax_selected_channels,
    drop_occluded,
    instance_logits,
    window_in_box,
)
from segkit.structures import HeadOutputs, InstanceMasks, SemanticScores
from segkit.utils.compiled import INSTALLED
from tests.helpers.slow_fusion import drawn, highest, semantic

WAYS = [True, False] if INSTALLED else [False]
LOGITS = [[[5.0, 1.0, 2.0]], [[4.0, 3.0, 2.0]], [[9.0, 3.0, -np.inf]]]  # channels 0 to 2 of three pixels


@pytest.mark.parametrize("way", WAYS)
def test_the_first_of_the_highest_wanted_channels(way: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixel 0: 5 > 4. Pixel 1: 3 > 1. Pixel 2: 2 = 2, the first. Channel 2 is not wanted."""
    monkeypatch.setattr(pixel_argmax, "COMPILED", way)
    scores = semantic(LOGITS, [1, 2, 0], [-1, -1, 0])
    for given_scores in (scores, highest(scores, 3)):
        values, channels = argmax_selected_channels(given_scores, np.array([True, True, False]))
        assert values.tolist() == [[5, 3, 2]]
        assert channels.tolist() == [[0, 1, 0]]


@pytest.mark.parametrize("way", WAYS)
def test_unknown_channels_have_no_owner(way: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the two highest logits: pixel 0 knows channels 2 (9) and 0 (5); channel 1 counts as 5, and has no owner.

    Pixel 1 knows 1 and 2; pixel 2 knows 0 and 1. Without a wanted channel no logit is above -infinity.
    """
    monkeypatch.setattr(pixel_argmax, "COMPILED", way)
    scores = highest(semantic(LOGITS, [1, 2, 0], [-1, -1, 0]), 2)
    values, channels = argmax_selected_channels(scores, np.array([False, True, False]))
    assert values.tolist() == [[5, 3, 2]]
    assert channels.tolist() == [[NO_OWNER, 1, 1]]
    values, channels = argmax_selected_channels(scores, np.zeros(3, dtype=bool))
    assert np.isneginf(values).all()
    assert (channels == NO_OWNER).all()


@pytest.mark.parametrize("way", WAYS)
def test_minus_infinity_is_a_logit(way: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only channel 2 is wanted: at pixel 2 its logit is -infinity, and it still owns the pixel."""
    monkeypatch.setattr(pixel_argmax, "COMPILED", way)
    scores = semantic(LOGITS, [1, 2, 3], [-1, -1, -1])
    for given_scores in (scores, highest(scores, 3)):
        assert argmax_selected_channels(given_scores, np.array([False, False, True]))[1].tolist() == [[2, 2, 2]]


@pytest.mark.skipif(not INSTALLED, reason="compares with numba")
@given(seed=st.integers(0, 10**6), count=st.integers(1, 6), ties=st.booleans())
@settings(max_examples=80, deadline=None)
def test_compiled_and_numpy_search_are_equal(seed: int, count: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (6, *rng.integers(1, 9, 2)))
    dense = semantic(np.round(logits) if ties else logits, [1, 2, 3, 4, 5, 6], [-1] * 6)
    wanted = rng.random(6) < 0.5
    for scores in (dense, highest(dense, count)):
        results = []
        for way in (True, False):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(pixel_argmax, "COMPILED", way)
                results.append(argmax_selected_channels(scores, wanted))
        assert results[0][0].tobytes() == results[1][0].tobytes()
        assert np.array_equal(results[0][1], results[1][1])
    full, listed = argmax_selected_channels(dense, wanted), argmax_selected_channels(highest(dense, 6), wanted)
    assert full[0].tobytes() == listed[0].tobytes()
    assert np.array_equal(full[1], listed[1])


def test_missing_logits_are_an_error() -> None:
    with pytest.raises(ValueError, match="logits are needed"):
        PixelArgmax.from_stuff_channels(SemanticScores.from_stuff_ids(np.ones((2, 2), dtype=int)))


def test_an_update_takes_pixels_with_a_higher_value_but_no_ties() -> None:
    """Stuff has 1, 2, 3 and 4; instance 0 offers 2, 2 and 9 from pixel 1 on: 2 = 2 and 2 < 3 stay, 9 > 4 goes."""
    argmax = PixelArgmax.from_stuff_channels(semantic([[[1, 2, 3, 4]], [[0, 0, 0, 0]]], [7, 0], [-1, -1]))
    argmax.update_where_higher(
        argmax.first_instance, (slice(0, 1), slice(1, 4)), np.array([[2, 2, 9]], dtype=np.float32)
    )
    assert argmax.values.tolist() == [[1, 2, 3, 9]]
    assert argmax.owners.tolist() == [[0, 0, 0, 2]]  # after two channels
    assert argmax.build_stuff_map().tolist() == [[7, 7, 7, 0]]


def test_occluded_masks_are_dropped() -> None:
    """Row 1 has 2 of its 4 pixels under row 0, a share of 0.5, and stays at 0.5. Row 2 has 2 of 4 under row 0 and the
    others under row 1, a share of 1. Row 3 has no pixel. At 0.49 row 1 is dropped, and row 2 too: half is under row 0.
    """
    full = np.array([[1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1], [1, 0, 0, 1, 1, 1], [0] * 6], dtype=bool)[:, None]
    masks = InstanceMasks.from_full(full, np.zeros((4, 4), np.float32), np.ones(4, np.float32), np.arange(4))
    rejections = RejectionLog()
    assert drop_occluded(masks, [0, 1, 2, 3], 0.5, rejections) == [0, 1]
    assert rejections.instances == {2: Rejection("overlap", 1.0, 0.5)}
    assert drop_occluded(masks, [0, 1, 2, 3], 0.49, None) == [0]
    assert drop_occluded(masks, [1, 0], 0.5, None) == [1, 0]


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ((0, 0, 4, 2), (0, 2), (0, 4)),
        ((0.5, 0, 3.5, 2), (0, 2), (0, 3)),  # centers 0.5, 1.5 and 2.5 are in [0.5, 3.5)
        ((0.6, 0.4, 3.6, 1.4), (0, 1), (1, 4)),
        ((-9, -9, 99, 99), (0, 2), (0, 4)),
        ((1.6, 0, 2.4, 2), (0, 2), (2, 2)),  # between two centers
    ],
)
def test_pixels_are_in_a_box_by_their_centers(box: Any, rows: Any, columns: Any) -> None:
    masks = InstanceMasks(
        size_hw=(2, 4),
        boxes_xyxy=np.array([box], dtype=np.float32),
        scores=np.ones(1, np.float32),
        class_ids=np.zeros(1, np.int64),
        corners_xy=np.zeros((1, 2), np.int64),
        crops=(np.ones((2, 4), bool),),
    )
    assert window_in_box(masks, 0) == (slice(*rows), slice(*columns))


def test_instance_logits_are_of_the_class_and_the_mask() -> None:
    """p = 1/2, 1 and 0 (kept at 1 - 1e-4 and 1e-4), 3/4: logits 0, log 9999, -log 9999, log 3."""
    masks = drawn([[[0.5, 1, 0, 0.75]]], [0.9], [1])
    scores = semantic([[[0, 0, 0, 0]], [[1, 2, 3, 4]], [[5, 6, 7, 8]]], [1, 0, 0], [-1, 0, 1])
    of_class, of_mask, probs = instance_logits(HeadOutputs(masks, scores), 0, window_in_box(masks, 0))
    assert of_class.tolist() == [[5, 6, 7, 8]]
    assert of_mask[0] == pytest.approx([0, np.log(9999), -np.log(9999), np.log(3)], rel=1e-3)
    assert probs[0] == pytest.approx([0.5, 0.9999, 0.0001, 0.75])
    assert {of_class.dtype, of_mask.dtype, probs.dtype} == {np.dtype(np.float32)}
