from __future__ import annotations

import numpy as np
import pytest

from segkit.classical import merge_similar
from segkit.classical.adjacency import DisjointSets, border_pixels


def labels(values: object) -> np.ndarray:
    return np.array(values, dtype=np.int32)


def pairs(label_map: np.ndarray, connectivity: int) -> set[tuple[int, int]]:
    return set(zip(*(side.tolist() for side in border_pixels(label_map, connectivity)), strict=True))


def test_border_pixels_are_neighbours_of_two_regions():
    # flat indices 0 1 / 2 3; region 1 at 0 and 3, region 2 at 1, background at 2
    assert pairs(labels([[1, 2], [0, 1]]), 4) == {(0, 1), (1, 3)}
    assert pairs(labels([[1, 2], [3, 1]]), 8) == {(0, 1), (2, 3), (0, 2), (1, 3), (1, 2)}
    assert pairs(labels([[1, 0], [0, 1]]), 8) == set()
    assert pairs(labels(np.zeros((0, 3))), 8) == pairs(labels([[1]]), 8) == set()


def test_the_first_set_of_a_join_stays_the_root():
    sets = DisjointSets(4)
    sets.join(2, 1)
    sets.join(3, 2)
    assert sets.roots().tolist() == [0, 3, 3, 3]


def test_touching_regions_of_similar_colour_are_merged():
    image = np.array([[10.0, 12.0, 50.0, 11.0]])
    # 10 and 12 touch and are similar; 11 is similar too, but 50 lies between
    assert merge_similar(labels([[1, 2, 3, 4]]), image, 2.0).tolist() == [[1, 1, 2, 3]]
    assert merge_similar(labels([[1, 2, 3, 4]]), image, 1.9).tolist() == [[1, 2, 3, 4]]


def test_the_mean_moves_as_regions_merge():
    # 0 and 2 merge to the mean 1; 4 lies 3 from it, though 2 from its neighbour
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
def test_an_empty_map_gives_an_empty_map(shape):
    assert merge_similar(np.zeros(shape, np.int32), np.zeros((*shape, 3)), 1.0).tolist() == np.zeros(shape).tolist()


def test_images_of_another_size_are_rejected():
    with pytest.raises(ValueError, match=r"for a \(1, 3\) label map, got \(3, 1\)"):
        merge_similar(labels([[1, 2, 3]]), np.zeros((3, 1)), 1.0)
