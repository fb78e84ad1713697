"""k-means, superpixels that are merged, mean shift."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from segkit.classical import build_classical
from segkit.classical.clustering import merge_similar
from segkit.classical.components import find_borders, find_root


def labels(values: object) -> np.ndarray:
    return np.array(values, dtype=np.int32)


def merge(label_map: list[list[int]], values: list[list[float]], max_distance: float) -> list[list[int]]:
    merged: list[list[int]] = merge_similar(labels(label_map), np.array(values)[:, :, None], max_distance).tolist()
    return merged


def pairs(label_map: object, connectivity: int) -> set[tuple[int, ...]]:
    return {tuple(pair) for pair in find_borders(labels(label_map), connectivity).tolist()}


def test_borders_are_neighbours_of_two_regions() -> None:
    # flat indices 0 1 / 2 3; region 1 at 0 and 3, region 2 at 1, background at 2
    assert pairs([[1, 2], [0, 1]], 4) == {(0, 1), (1, 3)}
    assert pairs([[1, 2], [3, 1]], 8) == {(0, 1), (2, 3), (0, 2), (1, 3), (1, 2)}
    assert pairs([[1, 0], [0, 1]], 8) == set()
    assert pairs(np.zeros((0, 3)), 8) == pairs([[1]], 8) == set()


def test_the_root_of_a_set_is_its_own_parent() -> None:
    parents = [0, 2, 3, 3]  # 1 was joined to 2, then 2 to 3
    assert [find_root(parents, region) for region in range(4)] == [0, 3, 3, 3]
    assert parents == [0, 3, 3, 3]  # the paths are shortened


def test_touching_regions_of_similar_colour_are_merged() -> None:
    # 10 and 12 touch and are similar; 11 is similar too, but 50 is between them
    assert merge([[1, 2, 3, 4]], [[10.0, 12.0, 50.0, 11.0]], 2.0) == [[1, 1, 2, 3]]
    assert merge([[1, 2, 3, 4]], [[10.0, 12.0, 50.0, 11.0]], 1.9) == [[1, 2, 3, 4]]


def test_the_mean_moves_as_regions_merge() -> None:
    # 0 and 2 merge to the mean 1; 4 differs from it by 3, though by 2 from its neighbour
    assert merge([[1, 2, 3]], [[0.0, 2.0, 4.0]], 2.0) == [[1, 1, 2]]
    # the most similar first: 3 and 4 to 3.5, then 0 is 3.5 away
    assert merge([[1, 2, 3]], [[0.0, 3.0, 4.0]], 3.0) == [[1, 2, 2]]
    # weighted by area: three pixels of 0 and one of 4 have the mean 1, which is 3 from 4
    assert merge([[1, 1, 1, 2, 3]], [[0.0, 0.0, 0.0, 4.0, 4.0]], 3.9) == [[1, 1, 1, 2, 2]]


def test_background_is_never_merged_and_corners_do_not_touch() -> None:
    assert merge([[1, 0, 2]], [[0.0, 0.0, 0.0]], 9.0) == [[1, 0, 2]]
    assert merge([[1, 0], [0, 2]], [[0.0, 0.0], [0.0, 0.0]], 9.0) == [[1, 0], [0, 2]]


def test_merging_an_empty_map_gives_an_empty_map() -> None:
    assert merge_similar(np.zeros((0, 3), np.int32), np.zeros((0, 3, 3)), 1.0).shape == (0, 3)


def test_kmeans_parts_colours_and_its_clusters_into_components() -> None:
    image = np.zeros((4, 6, 3), dtype=np.uint8)
    image[:, 2:4] = (200, 20, 20)
    regions = build_classical("kmeans", clusters=2, position=0.0, blur_px=0.0, min_area_px=1)(image)
    assert [len({*regions[:, x].tolist()}) for x in range(6)] == [1] * 6
    left, middle, right = regions[0, [0, 2, 5]].tolist()
    assert len({left, middle, right}) == 3  # the black cluster has two components


def test_kmeans_with_position_parts_a_flat_image() -> None:
    image = np.full((4, 40, 3), 99, dtype=np.uint8)
    regions = build_classical("kmeans", clusters=2, position=50.0, blur_px=0.0)(image)
    assert regions.max() == 2
    assert len({*regions[:, :15].ravel().tolist()}) == len({*regions[:, 25:].ravel().tolist()}) == 1


def test_kmeans_is_the_same_whatever_opencvs_generator_did() -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 30, 3), dtype=np.uint8)
    first = build_classical("kmeans")(image)
    cv2.setRNGSeed(99)
    assert (build_classical("kmeans")(image) == first).all()


def test_superpixels_of_similar_colours_are_merged() -> None:
    pytest.importorskip("skimage")
    image = np.full((40, 40, 3), 60, dtype=np.uint8)
    image[:, 20:] = 68  # Lab: L 25 and 28, a distance of 3
    apart, joined = (
        build_classical("slic", segments=50, blur_px=0.0, max_distance=distance)(image) for distance in (1.0, 5.0)
    )
    assert (apart.max(), joined.max()) == (2, 1)


def test_mean_shift_flattens_noise() -> None:
    noise = np.random.default_rng(0).integers(-6, 7, (40, 40, 1))
    image = np.full((40, 40, 1), 80) + noise
    image[:, 20:] += 100
    regions = build_classical("mean_shift", blur_px=0.0, min_area_px=50)(image.astype(np.uint8))
    assert regions.max() == 2
    assert len({*regions[5:35, 5:15].ravel().tolist()}) == len({*regions[5:35, 25:35].ravel().tolist()}) == 1
