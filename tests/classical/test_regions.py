"""Watershed, flood fill and graph-based regions on drawn images."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segkit.classical import build_classical
from segkit.classical.components import connected_components
from segkit.classical.regions import grow_regions, split_touching, watershed

MASKS = arrays(np.bool_, st.tuples(st.integers(0, 9), st.integers(0, 9)))


def row(values: list[float], depth: float) -> list[int]:
    relief = np.array([values], dtype=np.float64)
    labels = watershed(relief, relief > 0, depth)[0].tolist()
    in_order = {label: number for number, label in enumerate(dict.fromkeys(filter(None, labels)), 1)}
    return [in_order.get(label, 0) for label in labels]


def test_a_peak_that_stands_out_by_the_depth_is_a_hill() -> None:
    # The lower peak, 4, stands 3 above the pass of 1; the pass climbs to its higher neighbour.
    assert row([3, 5, 1, 4, 2], depth=3) == [1, 1, 1, 2, 2]
    assert row([3, 5, 1, 4, 2], depth=3.1) == [1, 1, 1, 1, 1]


def test_a_low_hill_is_merged_over_its_highest_pass() -> None:
    # 3 stands 1 above the pass of 2 on its right and 2 above that of 1 on its left
    assert row([9, 1, 3, 2, 8], depth=2) == [1, 1, 2, 2, 2]
    # with passes as high on both sides the one to the lower peak is taken
    assert row([9, 2, 3, 2, 8], depth=2) == [1, 1, 2, 2, 2]
    assert row([8, 2, 3, 2, 9], depth=2) == [1, 1, 1, 2, 2]


def test_a_plateau_is_one_hill() -> None:
    assert row([2, 2, 2, 2], depth=0.1) == [1, 1, 1, 1]
    ring = np.ones((5, 5), dtype=bool)
    ring[1:4, 1:4] = False
    assert (watershed(np.ones((5, 5)), ring, 0.1) == ring).all()


def test_the_background_separates_hills() -> None:
    assert row([3, 0, 3], depth=99) == [1, 0, 2]


@pytest.mark.parametrize("threshold", ["otsu", "adaptive"])
def test_touching_discs_are_separated_at_their_neck(threshold: str) -> None:
    image = np.full((40, 60, 1), 30, dtype=np.uint8)
    for x in (20, 39):  # radius 10: they overlap by 2 columns, 29 and 30
        cv2.circle(image, (x, 20), 10, 200, -1)
    options = {"blur_px": 0.0, "threshold": threshold, "window_px": 51}
    parts = build_classical("watershed", **options)(image)
    mask = image[:, :, 0] > 100
    assert build_classical("watershed", **options, depth_px=99.0)(image).max() == 1
    assert parts.max() == 2
    assert ((parts > 0) == mask).all()
    assert (parts[:, :29][mask[:, :29]] == parts[20, 20]).all()
    assert (parts[:, 31:][mask[:, 31:]] == parts[20, 39]).all()


def test_a_mask_without_background_is_one_region() -> None:
    assert split_touching(np.ones((6, 9), dtype=bool), 0.5).tolist() == np.ones((6, 9)).tolist()


@settings(deadline=None, max_examples=30)
@given(MASKS, st.floats(0, 3))
def test_the_regions_fill_the_mask_and_are_connected(mask: np.ndarray, depth: float) -> None:
    parts = split_touching(mask, depth)
    assert ((parts > 0) == mask).all()
    for part in range(1, parts.max(initial=0) + 1):
        assert connected_components(parts == part).max() == 1


@settings(deadline=None, max_examples=30)
@given(MASKS)
def test_an_infinite_depth_gives_the_connected_components(mask: np.ndarray) -> None:
    parts, components = split_touching(mask, 1e9), connected_components(mask)
    pairs = {*zip(parts[mask].tolist(), components[mask].tolist(), strict=True)}
    assert len(pairs) == parts.max(initial=0) == components.max(initial=0)


@settings(deadline=None, max_examples=30)
@given(arrays(np.float64, (4, 6), elements=st.integers(0, 6)), st.integers(1, 4))
def test_hills_are_as_many_as_deep_enough_peaks(relief: np.ndarray, depth: int) -> None:
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


def grow(values: list[list[int]], seeds: list[list[int]], tolerance: float, kind: int) -> list[list[int]]:
    rgb = np.repeat(np.array(values, dtype=np.uint8)[:, :, None], 3, axis=2)
    labels: list[list[int]] = grow_regions(rgb, np.array(seeds), tolerance, kind).tolist()
    return labels


def test_a_region_grows_over_colours_like_the_seeds_or_the_neighbours() -> None:
    ramp = [[0, 10, 20, 90]]
    assert grow(ramp, [[0, 0]], 10, cv2.FLOODFILL_FIXED_RANGE) == [[1, 1, 0, 0]]
    assert grow(ramp, [[0, 0]], 10, 0) == [[1, 1, 1, 0]]
    assert grow(ramp, [[0, 0]], 9, 0) == [[1, 0, 0, 0]]


def test_a_seed_in_an_earlier_region_is_left_out_and_regions_do_not_overlap() -> None:
    values = [[5, 5, 80], [5, 80, 80]]
    assert grow(values, [[0, 0], [1, 0], [1, 1]], 3, cv2.FLOODFILL_FIXED_RANGE) == [[1, 1, 2], [1, 2, 2]]
    # The second seed's range holds the first region's pixels too, which stay.
    assert grow([[0, 10, 20]], [[0, 0], [0, 2]], 10, cv2.FLOODFILL_FIXED_RANGE) == [[1, 1, 2]]


def test_seeds_are_on_a_grid_and_regions_between_them_are_background() -> None:
    image = np.full((8, 24, 1), 50, dtype=np.uint8)
    image[2:6, 10:13] = 200  # the seeds are at x = 4, 12, 20
    image[1:3, 16:19] = 200
    labels = build_classical("flood_fill", blur_px=0.0, min_area_px=1)(image)[:, :]
    assert labels[4, 11] == 2
    assert labels[2, 17] == 0


def test_felzenszwalb_has_fewer_regions_at_a_larger_scale() -> None:
    pytest.importorskip("skimage")
    image = np.random.default_rng(0).integers(90, 130, (40, 40, 3), dtype=np.uint8)
    image[:, 20:] += 100
    many, few = (build_classical("felzenszwalb", scale=scale, blur_px=0.0)(image) for scale in (5.0, 500.0))
    assert few.max() == 2
    assert (few[:, 1:18] == few[0, 1]).all()
    assert many.max() > 2
