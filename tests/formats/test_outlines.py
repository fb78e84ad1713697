"""Outlines along the edges of pixels: exactly the pixels, valid rings, holes and pieces kept apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from segkit.formats.outlines import Points, build_polygons, compute_area, trace_rings
from segkit.structures import rle_to_mask, segmentation_to_rle

MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9))


def is_inside(rings: list[Points], x: float, y: float) -> bool:
    """The even-odd rule: a line from the point to the right crosses the rings an odd number of times."""
    crossings = 0
    for ring in rings:
        for (x0, y0), (x1, y1) in zip(ring.tolist(), np.roll(ring, -1, axis=0).tolist(), strict=True):
            crossings += x0 == x1 and x0 > x and min(y0, y1) < y < max(y0, y1)
    return crossings % 2 == 1


def draw(pieces: list[list[Points]], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    rows, columns = shape
    is_drawn = [
        [any(is_inside(rings, x + 0.5, y + 0.5) for rings in pieces) for x in range(columns)] for y in range(rows)
    ]
    return np.array(is_drawn, dtype=np.bool_).reshape(shape)


@settings(max_examples=200, deadline=None)
@given(mask=MASKS)
def test_rings_have_exactly_the_pixels(mask: NDArray[np.bool_]) -> None:
    pieces = trace_rings(mask)
    assert np.array_equal(draw(pieces, mask.shape), mask)
    for outer, *holes in pieces:
        assert compute_area(outer) > 0 > max(map(compute_area, holes), default=-1)
    assert sum(compute_area(ring) for rings in pieces for ring in rings) == np.count_nonzero(mask)


@settings(max_examples=200, deadline=None)
@given(mask=MASKS)
def test_rings_do_not_touch_themselves_and_have_corners_only(mask: NDArray[np.bool_]) -> None:
    for ring in (ring for rings in trace_rings(mask) for ring in rings):
        assert len({*map(tuple, ring.tolist())}) == len(ring)
        steps = np.roll(ring, -1, axis=0) - ring
        is_horizontal = steps[:, 1] == 0
        assert ((steps == 0).sum(axis=1) == 1).all()
        assert (is_horizontal != np.roll(is_horizontal, 1)).all()


@settings(max_examples=50, deadline=None)
@given(mask=MASKS)
def test_rings_are_valid_polygons(mask: NDArray[np.bool_]) -> None:
    shapely = pytest.importorskip("shapely")
    for outer, *holes in trace_rings(mask):
        assert shapely.Polygon(outer, holes).is_valid


@settings(max_examples=100, deadline=None)
@given(mask=hnp.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_pycocotools_draws_the_same_pixels(mask: NDArray[np.bool_]) -> None:
    polygons = build_polygons(mask)
    if mask.any():
        assert np.array_equal(rle_to_mask(segmentation_to_rle(polygons, mask.shape)), mask)
    else:
        assert polygons == []


def test_pieces_that_touch_in_a_corner_are_two_and_their_gap_is_a_hole() -> None:
    """Left: two pixels, diagonal. Right: a ring of seven pixels whose ends touch in a corner: one piece, one hole."""
    assert len(trace_rings(np.eye(2, dtype=np.bool_))) == 2
    ring = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 1]], dtype=np.bool_)
    ((outer, hole),) = trace_rings(ring)
    assert (compute_area(outer), compute_area(hole)) == (8, -1)
    assert [1, 1] in outer.tolist()
    assert [1, 1] in hole.tolist()
