"""Surfaces of masks: by hand, against a slow version, and against the published package."""

from __future__ import annotations

import itertools
import math
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segkit.metrics.surface_elements import CORNERS, compute_element_areas, compute_surface_overlap, find_box
from segkit.utils.errors import ConfigError

SPACINGS = [(1.0, 1.0, 1.0), (1.0, 1.25, 2.7), (0.7, 0.7, 5.0)]
SHAPES = hnp.array_shapes(min_dims=3, max_dims=3, max_side=6)
PAIRS = SHAPES.flatmap(lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(bool, shape)))
TOLERANCES = st.sampled_from([0.0, 0.5, 1.0, 2.5, 4.0])


@pytest.fixture(scope="module")
def oracle():
    pytest.importorskip("scipy.ndimage")
    package = pytest.importorskip("surface_distance", reason="needs the package surface-distance of DeepMind")
    package.metrics.np.Inf = np.inf  # it was written for numpy 1, and needs it if one of the masks is empty
    return package


def code_of(*corners):
    return sum(1 << CORNERS.index(corner) for corner in corners)


def test_areas_by_hand():
    x, y, z = spacing = (1.0, 2.0, 3.0)
    areas = compute_element_areas(spacing)
    assert areas[0] == areas[255] == 0
    # Four voxels of one side: a rectangle across the axis.
    assert areas[code_of((0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1))] == y * z
    # One voxel: a triangle with the legs' middles at half an edge; its projections are right triangles.
    corner = math.hypot(y * z / 8, x * z / 8, x * y / 8)
    assert areas[code_of((0, 0, 0))] == pytest.approx(corner)
    # Two voxels of an edge along z: a rectangle of length z over the middles of edges along x and y.
    assert areas[code_of((0, 0, 0), (0, 0, 1))] == pytest.approx(z * math.hypot(x / 2, y / 2))
    # Two voxels that touch in an edge or a corner are cut off one by one.
    assert areas[code_of((0, 0, 0), (0, 1, 1))] == pytest.approx(2 * corner)
    assert areas[code_of((0, 0, 0), (1, 1, 1))] == pytest.approx(2 * corner)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_areas_equal_those_of_surface_distance(oracle, spacing):
    theirs = oracle.lookup_tables.create_table_neighbour_code_to_surface_area(spacing)
    kernel = oracle.lookup_tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL
    their_codes = [sum(int(kernel[c]) for bit, c in enumerate(CORNERS) if code >> bit & 1) for code in range(256)]
    np.testing.assert_allclose(compute_element_areas(spacing), theirs[their_codes], rtol=1e-14)


@settings(max_examples=40, deadline=None)
@given(PAIRS, st.sampled_from(SPACINGS), TOLERANCES)
def test_equals_surface_distance(oracle, masks, spacing, tolerance):
    distances = oracle.metrics.compute_surface_distances(*masks, spacing)
    with np.errstate(invalid="ignore"):
        expected = oracle.metrics.compute_surface_dice_at_tolerance(distances, tolerance)
    overlap = compute_surface_overlap(*masks, spacing, tolerance)
    area = overlap.gt_mm2 + overlap.pred_mm2
    nsd = (overlap.gt_within_mm2 + overlap.pred_within_mm2) / area if area else math.nan
    np.testing.assert_allclose(nsd, expected, rtol=1e-12)


def measure_slowly(ground_truth, prediction, spacing, tolerance):
    """Every corner of a voxel against every other."""
    areas = compute_element_areas(spacing)
    surfaces = []
    for mask in (ground_truth, prediction):
        elements = {}
        for point in itertools.product(*(range(size + 1) for size in mask.shape)):
            code = 0
            for bit, corner in enumerate(CORNERS):
                voxel = tuple(p + c - 1 for p, c in zip(point, corner, strict=True))
                is_inside = all(0 <= index < size for index, size in zip(voxel, mask.shape, strict=True))
                code |= (1 << bit) * bool(is_inside and mask[voxel])
            if code not in (0, 255):
                elements[point] = areas[code]
        surfaces.append(elements)
    totals = [sum(elements.values()) for elements in surfaces]
    parts = [
        sum(
            area
            for point, area in own.items()
            if any(math.dist(np.multiply(point, spacing), np.multiply(q, spacing)) <= tolerance + 1e-9 for q in other)
        )
        for own, other in (surfaces, surfaces[::-1])
    ]
    return (*totals, *parts)


@settings(max_examples=15, deadline=None)
@given(PAIRS, st.sampled_from(SPACINGS), TOLERANCES)
def test_equals_a_slow_version(masks, spacing, tolerance):
    pytest.importorskip("scipy.ndimage")
    overlap = compute_surface_overlap(*masks, spacing, tolerance)
    np.testing.assert_allclose(overlap, measure_slowly(*masks, spacing, tolerance), rtol=1e-12)


def test_memory_follows_the_box_of_both_masks():
    pytest.importorskip("scipy.ndimage")
    masks = np.zeros((2, 100, 100, 100), bool)
    masks[0, 70:74, 5:9, 50:54], masks[1, 71:75, 5:9, 50:54] = True, True
    assert find_box(*masks) == (slice(70, 75), slice(5, 9), slice(50, 54))
    compute_surface_overlap(*masks, (1, 1, 1), 1)  # imports scipy
    tracemalloc.start()
    overlap = compute_surface_overlap(*masks, (1, 1, 1), 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert overlap.gt_within_mm2 == overlap.gt_mm2 > 0
    assert peak < masks[0].size / 2  # bytes
    assert find_box(np.zeros((2, 2, 2))) is None


def test_scipy_is_named_if_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.ndimage", None)
    mask = np.ones((1, 1, 1), bool)
    with pytest.raises(ConfigError, match=r"needs the extra 'classical' \(scipy is not installed\).*pip install"):
        compute_surface_overlap(mask, mask, (1, 1, 1), 1)
