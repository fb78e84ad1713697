"""Boundaries against the erosion of each mask, as the Boundary IoU API computes it."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segkit.metrics.boundary import boundary_dilation_px, boundary_pixels


def by_erosion(labels, dilation_px):
    """boundary_iou/utils/boundary_utils.py, mask_to_boundary, for the mask of each label."""
    on_boundary = np.zeros(labels.shape, dtype=bool)
    for label in np.unique(labels):
        mask = (labels == label).astype(np.uint8)
        padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        eroded = cv2.erode(padded, np.ones((3, 3), dtype=np.uint8), iterations=dilation_px)[1:-1, 1:-1]
        on_boundary |= (mask - eroded).astype(bool)
    return on_boundary


def test_drawn_map():
    labels = np.zeros((7, 9), dtype=np.int32)
    labels[:, 6:] = 5
    # One pixel from the frame and on both sides of the edge between columns 5 and 6.
    expected = [
        "#########",
        "#....##.#",
        "#....##.#",
        "#....##.#",
        "#....##.#",
        "#....##.#",
        "#########",
    ]
    assert ["".join(" .#"[1 + v] for v in row) for row in boundary_pixels(labels, 1).tolist()] == expected
    # Two pixels: of the inner 3 x 5 only columns 2 and 3 are further than 2 from the edge, which begins at 6.
    inner = np.argwhere(~boundary_pixels(labels, 2)).tolist()
    assert inner == [[y, x] for y in (2, 3, 4) for x in (2, 3)]


@settings(deadline=None, max_examples=150)
@given(
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=14),
    st.data(),
    st.integers(1, 6),
    st.integers(1, 8),
)
def test_equals_the_erosion_of_every_mask(shape, data, dilation_px, scale):
    ids = st.sampled_from([0, -(2**40), 2**40, 255])
    labels = data.draw(hnp.arrays(np.int64, shape, elements=ids))
    labels = np.kron(labels, np.ones((1, scale), dtype=np.int64))[:, : 3 * shape[1]]
    np.testing.assert_array_equal(boundary_pixels(labels, dilation_px), by_erosion(labels, dilation_px))


@pytest.mark.parametrize("dilation_px", [1, 3, 16, 17, 40])
def test_equals_the_erosion_of_large_segments(dilation_px):
    labels = np.zeros((120, 150), dtype=np.uint16)
    cv2.circle(labels, (70, 60), 45, 3, cv2.FILLED)
    cv2.rectangle(labels, (60, 0), (149, 50), 65535, cv2.FILLED)
    labels[100, 20] = 9
    np.testing.assert_array_equal(boundary_pixels(labels, dilation_px), by_erosion(labels, dilation_px))


@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (1, 1), (1, 50), (50, 1), (2, 2)])
def test_thin_and_empty_maps_are_all_boundary(shape):
    on_boundary = boundary_pixels(np.zeros(shape, dtype=np.uint8), 1)
    assert on_boundary.shape == shape
    assert on_boundary.all()


def test_dilation_is_a_share_of_the_diagonal():
    # diagonals: 800, 2289.7, 5, 0; 0.02 of them: 16, 45.8, 0.1, 0.
    assert [boundary_dilation_px(size) for size in ((480, 640), (1024, 2048), (3, 4), (0, 0))] == [16, 46, 1, 1]
    assert boundary_dilation_px((480, 640), ratio=0.005) == 4
    assert boundary_dilation_px((30, 40), ratio=0.05) == 2  # 2.5 is rounded to even, as Python does


def test_invalid_arguments_are_rejected():
    with pytest.raises(ValueError, match="dilation_px must be at least 1, got 0"):
        boundary_pixels(np.zeros((2, 2), int), 0)
    with pytest.raises(ValueError, match="labels must be an \\(H, W\\) integer numpy array"):
        boundary_pixels(np.zeros((2, 2)), 1)
