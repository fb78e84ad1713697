from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segkit.classical import connected_components, merge_similar, split_touching, watershed
from segkit.classical.merging import border_pixels, find_root

MASKS = arrays(np.bool_, st.tuples(st.integers(0, 9), st.integers(0, 9)))


def labels(values: object) -> np.ndarray:
    return np.array(values, dtype=np.int32)


def pairs(label_map: np.ndarray, connectivity: int) -> set[tuple[int, int]]:
    return {tuple(pair) for pair in border_pixels(label_map, connectivity).tolist()}


def test_border_pixels_are_neighbours_of_two_regions():
    # flat indices 0 1 / 2 3; region 1 at 0 and 3, region 2 at 1, background at 2
    assert pairs(labels([[1, 2], [0, 1]]), 4) == {(0, 1), (1, 3)}
    assert pairs(labels([[1, 2], [3, 1]]), 8) == {(0, 1), (2, 3), (0, 2), (1, 3), (1, 2)}
    assert pairs(labels([[1, 0], [0, 1]]), 8) == set()
    assert pairs(labels(np.zeros((0, 3))), 8) == pairs(labels([[1]]), 8) == set()


def test_the_root_of_a_set_is_its_own_parent():
    parents = [0, 2, 3, 3]  # 1 was joined to 2, then 2 to 3
    assert [find_root(parents, region) for region in range(4)] == [0, 3, 3, 3]
    assert parents == [0, 3, 3, 3]  # the paths are shortened


def test_touching_regions_of_similar_colour_are_merged():
    image = np.array([[10.0, 12.0, 50.0, 11.0]])
    # 10 and 12 touch and are similar; 11 is similar too, but 50 is between them
    assert merge_similar(labels([[1, 2, 3, 4]]), image, 2.0).tolist() == [[1, 1, 2, 3]]
    assert merge_similar(labels([[1, 2, 3, 4]]), image, 1.9).tolist() == [[1, 2, 3, 4]]


def test_the_mean_moves_as_regions_merge():
    # 0 and 2 merge to the mean 1; 4 differs from it by 3, though by 2 from its neighbour
    assert merge_similar(labels([[1, 2, 3]]), np.array([[0.0, 2.0, 4.0]]), 2.0).tolist() == [[1, 1, 2]]
    # the most similar first: 3 and 4 to 3.5, then 0 is 3.5 away
    assert merge_similar(labels([[1, 2, 3]]), np.array([[0.0, 3.0, 4.0]]), 3.0).tolist() == [[1, 2, 2]]
    # weighted by area: three pixels of 0 and one of 4 have the mean 1, which is 3 from 4
    image = np.array([[0.0, 0.0, 0.0, 4.0, 4.0]])
    assert merge_similar(labels([[1, 1, 1, 2, 3]]), image, 3.9).tolist() == [[1, 1, 1, 2, 2]]


def test_colours_are_compared_by_their_euclidean_distance():
    image = np.array([[[0, 0, 0], [3, 4, 0]]], dtype=np.uint8)
    assert merge_similar(labels([[1, 2]]), image, 5.0).tolist() == [[1, 1]]
    assert merge_similar(labels([[1, 2]]), image, 4.9).tolist() == [[1, 2]]


def test_background_is_never_merged_and_corners_do_not_touch():
    assert merge_similar(labels([[1, 0, 2]]), np.zeros((1, 3)), 9.0).tolist() == [[1, 0, 2]]
    assert merge_similar(labels([[1, 0], [0, 2]]), np.zeros((2, 2)), 9.0).tolist() == [[1, 0], [0, 2]]


def test_labels_may_have_gaps():
    assert merge_similar(labels([[900, 7, 7]]), np.array([[1, 2, 9]]), 0.5).tolist() == [[1, 2, 2]]


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (2, 2)])
def test_merging_an_empty_map_gives_an_empty_map(shape):
    assert merge_similar(np.zeros(shape, np.int32), np.zeros((*shape, 3)), 1.0).tolist() == np.zeros(shape).tolist()


def test_images_of_another_size_are_rejected():
    with pytest.raises(ValueError, match=r"for a \(1, 3\) label map, got \(3, 1\)"):
        merge_similar(labels([[1, 2, 3]]), np.zeros((3, 1)), 1.0)


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
