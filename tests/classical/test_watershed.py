from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segkit.classical import connected_components, split_touching, watershed

MASKS = arrays(np.bool_, st.tuples(st.integers(0, 9), st.integers(0, 9)))


def row(values: list[float], depth: float) -> list[int]:
    relief = np.array([values], dtype=np.float64)
    return watershed(relief, relief > 0, depth)[0].tolist()


def test_a_peak_that_stands_out_by_the_depth_is_a_hill():
    # The lower peak, 4, stands 3 above the pass of 1; the pass climbs to its higher neighbour.
    assert row([3, 5, 1, 4, 2], depth=3) == [1, 1, 1, 2, 2]
    assert row([3, 5, 1, 4, 2], depth=3.1) == [1, 1, 1, 1, 1]


def test_a_low_hill_is_merged_over_its_highest_pass():
    # 3 stands 1 above the pass of 2 on its right and 2 above that of 1 on its left
    assert row([9, 1, 3, 2, 8], depth=2) == [1, 1, 2, 2, 2]
    # with passes as high on both sides the one to the lower peak is taken
    assert row([9, 2, 3, 2, 8], depth=2) == [1, 1, 2, 2, 2]
    assert row([8, 2, 3, 2, 9], depth=2) == [1, 1, 1, 2, 2]


def test_a_plateau_is_one_hill():
    assert row([2, 2, 2, 2], depth=0.1) == [1, 1, 1, 1]
    flat = np.ones((5, 5))
    ring = np.ones((5, 5), dtype=bool)
    ring[1:4, 1:4] = False
    assert (watershed(flat, ring, 0.1) == ring).all()


def test_without_depth_every_peak_is_a_hill():
    assert row([1, 2, 1, 2, 1], depth=0) == [1, 1, 2, 2, 2]  # equal neighbours: the later counts as higher


def test_the_background_separates_hills():
    assert row([3, 0, 3], depth=99) == [1, 0, 2]


def test_touching_discs_are_separated_at_their_neck():
    canvas = np.zeros((30, 50), dtype=np.uint8)
    for centre in (15, 34):  # radius 10: they overlap by 2 columns, 24 and 25
        cv2.circle(canvas, (centre, 15), 10, 1, -1)
    mask = canvas > 0
    assert connected_components(mask).max() == 1
    parts = split_touching(mask)
    assert parts.max() == 2
    assert ((parts > 0) == mask).all()
    assert (parts[:, :24][mask[:, :24]] == 1).all()
    assert (parts[:, 26:][mask[:, 26:]] == 2).all()


def test_one_blob_stays_whole_even_at_the_border_of_the_image():
    canvas = np.zeros((20, 20), dtype=np.uint8)
    cv2.ellipse(canvas, (0, 10), (9, 6), 20, 0, 360, 1, -1)
    assert split_touching(canvas > 0).max() == 1
    assert split_touching(np.ones((6, 9), dtype=bool)).tolist() == np.ones((6, 9)).tolist()


def test_regions_below_the_area_are_background():
    mask = np.array([[1, 0, 1, 1]], dtype=bool)
    assert split_touching(mask, min_area_px=2).tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (3, 3)])
def test_an_empty_mask_has_no_region(shape):
    for labels in (split_touching(np.zeros(shape, bool)), watershed(np.zeros(shape), np.zeros(shape, bool), 1)):
        assert labels.shape == shape
        assert labels.dtype == np.int32
        assert not labels.any()


@settings(deadline=None)
@given(MASKS, st.floats(0, 3))
def test_the_regions_fill_the_mask_and_are_connected(mask, depth):
    parts = split_touching(mask, depth)
    assert ((parts > 0) == mask).all()
    for part in range(1, parts.max(initial=0) + 1):
        assert connected_components(parts == part).max() == 1


@settings(deadline=None)
@given(MASKS)
def test_an_infinite_depth_gives_the_connected_components(mask):
    assert (split_touching(mask, 1e9) == connected_components(mask)).all()


@settings(deadline=None)
@given(arrays(np.float64, (4, 6), elements=st.integers(0, 6)), st.integers(1, 4))
def test_hills_are_as_many_as_deep_enough_peaks(relief, depth):
    """Lower the water step by step: an island that meets a higher one counts if it is `depth` high by then."""
    deep, tops, before = 0, [], np.zeros(relief.shape, dtype=np.int32)
    for level in range(6, -1, -1):
        islands = connected_components(relief >= level)
        joined_tops = []
        for island in range(1, islands.max() + 1):
            parts = np.unique(before[(islands == island) & (before > 0)])
            met = sorted(tops[part - 1] for part in parts)
            deep += sum(top - level >= depth for top in met[:-1])
            joined_tops.append(met[-1] if met else level)
        tops, before = joined_tops, islands
    assert watershed(relief, np.ones(relief.shape, dtype=bool), depth).max() == deep + 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: split_touching(np.zeros((2, 2))), r"mask must be \(H, W\) bool, got \(2, 2\) float64"),
        (
            lambda: watershed(np.zeros((2, 3)), np.zeros((2, 2), bool), 1),
            r"same shape \(H, W\), got \(2, 3\) and \(2, 2\)",
        ),
    ],
)
def test_invalid_arguments_are_rejected(call, message):
    with pytest.raises(ValueError, match=message):
        call()
