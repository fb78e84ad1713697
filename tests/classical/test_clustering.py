from __future__ import annotations

from itertools import combinations

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segkit.classical import (
    kmeans_lab,
    local_mean_regions,
    multi_otsu_thresholds,
    otsu_levels,
    otsu_regions,
    otsu_threshold,
)

GRAYS = arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6)))
BLACK, RED, WHITE = (0, 0, 0), (200, 20, 20), (255, 255, 255)


def gray(values: object) -> np.ndarray:
    return np.array(values, dtype=np.uint8)


def test_two_modes_are_separated_at_the_lower_mode():
    # every t in 10..199 parts the same pixels: the lowest is taken
    assert otsu_threshold(gray([[10, 10, 200], [10, 200, 200]])) == 10


def test_a_symmetric_histogram_ties_to_the_lowest():
    # {0} | {1, 2} and {0, 1} | {2} are equally good: 1 * 1 + 2 * 0.25 from the mean either way
    assert otsu_threshold(gray([[0, 1, 2]])) == 0
    assert otsu_threshold(gray([[7, 20, 33]])) == 7
    # five values in three classes: {0 1} {2 3} {4}, {0 1} {2} {3 4} and {0} {1 2} {3 4} leave the same variance
    assert multi_otsu_thresholds(gray([[0, 1, 2, 3, 4]]), 3) == (0, 2)


@pytest.mark.parametrize("value", [0, 7, 255])
def test_no_pixel_is_above_the_threshold_of_a_constant_image(value):
    assert otsu_threshold(np.full((3, 3), value, dtype=np.uint8)) == value
    assert not otsu_regions(np.full((3, 3), value, dtype=np.uint8)).any()


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
def test_empty_images(shape):
    empty = np.zeros(shape, dtype=np.uint8)
    assert otsu_threshold(empty) == 0
    assert multi_otsu_thresholds(empty, 4) == (0, 0, 0)
    for labels in (otsu_levels(empty), otsu_regions(empty), local_mean_regions(empty, 3)):
        assert labels.shape == shape
        assert labels.dtype == np.int32


@given(GRAYS)
def test_the_variance_is_as_large_as_opencvs(image):
    assume(len(np.unique(image)) > 1)
    by_opencv, _ = cv2.threshold(image, 0, 255, cv2.THRESH_OTSU)
    assert _between(image, (otsu_threshold(image),)) >= _between(image, (int(by_opencv),)) * (1 - 1e-9)


@given(GRAYS, st.integers(2, 4))
def test_several_thresholds_are_optimal(image, classes):
    values = np.unique(image).tolist()
    thresholds = multi_otsu_thresholds(image, classes)
    assert len(thresholds) == classes - 1
    assert list(thresholds) == sorted(thresholds)
    assert set(thresholds) <= set(values)
    if len(values) > classes:
        best = max(_between(image, chosen) for chosen in combinations(values[:-1], classes - 1))
        assert _between(image, thresholds) >= best * (1 - 1e-9)


def test_fewer_values_than_classes_are_a_class_each():
    image = gray([[5, 9], [5, 9]])
    assert multi_otsu_thresholds(image, 2) == (5,)
    assert multi_otsu_thresholds(image, 4) == (5, 9, 9)
    assert otsu_levels(image, 4).tolist() == [[0, 1], [0, 1]]


def test_levels_go_from_dark_to_bright():
    assert otsu_levels(gray([[250, 10, 120], [12, 118, 248]])).tolist() == [[2, 0, 1], [0, 1, 2]]


def test_bright_components_are_regions():
    image = gray([[200, 0, 0, 210], [0, 0, 0, 200], [0, 0, 0, 0]])
    assert otsu_regions(image).tolist() == [[1, 0, 0, 2], [0, 0, 0, 2], [0, 0, 0, 0]]
    assert otsu_regions(image, min_area_px=2).tolist() == [[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]]


def test_the_local_mean_finds_spots_under_uneven_light():
    # On the ramp 0, 20, 40, ... spots of +15: no single threshold finds both, as 15 < 140.
    ramp = np.tile(np.arange(8) * 20, (5, 1))
    ramp[2, 1] += 15
    ramp[2, 6] += 15
    spots = local_mean_regions(ramp.astype(np.uint8), 3, offset=10)
    # the mean around a spot is raised by 15 / 9, so 13.3 stand out
    assert np.argwhere(spots).tolist() == [[2, 1], [2, 6]]


def test_a_pixel_equal_to_mean_and_offset_is_background():
    # [0, 9, 0] with the rows mirrored: the mean around the middle is 3 * 9 / 9 = 3, and 9 - 3 = 6
    image = gray([[0, 9, 0]])
    assert not local_mean_regions(image, 3, offset=6).any()
    assert local_mean_regions(image, 3, offset=5.9).tolist() == [[0, 1, 0]]


@pytest.mark.parametrize("window_px", [1, 3, 7, 41])
def test_a_flat_background_has_no_specks(window_px):
    assert not local_mean_regions(np.full((6, 9), 77, dtype=np.uint8), window_px).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: otsu_threshold(np.zeros((2, 2))), r"gray must be \(H, W\) uint8, got \(2, 2\) float64"),
        (lambda: otsu_threshold(np.zeros((2, 2, 3), np.uint8)), r"gray must be \(H, W\) uint8, got \(2, 2, 3\)"),
        (lambda: multi_otsu_thresholds(np.zeros((2, 2), np.uint8), 1), "classes must be at least 2, got 1"),
        (lambda: local_mean_regions(np.zeros((2, 2), np.uint8), 4), "window_px must be odd and positive, got 4"),
        (lambda: local_mean_regions(np.zeros((2, 2), np.uint8), -1), "window_px must be odd and positive, got -1"),
    ],
)
def test_invalid_arguments_are_rejected(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def _between(image: np.ndarray, thresholds: tuple[int, ...]) -> float:
    """The variance between the classes, times the pixels."""
    classes = np.digitize(image, thresholds, right=True)
    parts = [image[classes == k].astype(float) for k in range(len(thresholds) + 1)]
    return sum(len(part) * (part.mean() - image.mean()) ** 2 for part in parts if len(part))


def test_colours_are_separated_and_numbered_from_dark_to_bright():
    image = np.array([[WHITE, BLACK, RED], [RED, WHITE, BLACK]], dtype=np.uint8)
    assert kmeans_lab(image, 3).tolist() == [[3, 1, 2], [2, 3, 1]]


def test_neighbouring_shades_share_a_cluster():
    image = np.array([[(10, 10, 10), (12, 10, 10), (240, 240, 240), (243, 240, 241)]], dtype=np.uint8)
    for seed in range(10):
        assert kmeans_lab(image, 2, seed).tolist() == [[1, 1, 2, 2]]


def test_fewer_colours_than_clusters_are_a_cluster_each():
    image = np.array([[WHITE, BLACK, WHITE]], dtype=np.uint8)
    assert kmeans_lab(image, 5).tolist() == [[2, 1, 2]]
    assert kmeans_lab(np.zeros((2, 2, 3), dtype=np.uint8), 3).tolist() == [[1, 1], [1, 1]]


def test_one_cluster_is_the_whole_image():
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    assert (kmeans_lab(image, 1) == 1).all()


def test_equal_seeds_give_equal_maps_whatever_opencvs_generator_does():
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    cv2.setRNGSeed(1)
    first = kmeans_lab(image, 6, seed=3)
    cv2.setRNGSeed(2)
    assert (kmeans_lab(image, 6, seed=3) == first).all()
    assert first.dtype == np.int32
    assert set(np.unique(first)) == set(range(1, 7))


def test_opencvs_generator_is_not_used():
    def drawn(between) -> np.ndarray:
        cv2.setRNGSeed(5)
        between()
        return cv2.randu(np.zeros(8, dtype=np.float32), 0, 1)

    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    assert (drawn(lambda: None) == drawn(lambda: kmeans_lab(image, 4))).all()


def test_every_pixel_is_nearest_to_its_clusters_mean():
    image = np.random.default_rng(1).integers(0, 256, (30, 30, 3), dtype=np.uint8)
    labels = kmeans_lab(image, 4).ravel()
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).reshape(-1, 3)
    means = np.array([lab[labels == k].mean(axis=0) for k in range(1, 5)])
    distances = np.linalg.norm(lab[:, None] - means, axis=2)
    own = distances[np.arange(len(labels)), labels - 1]
    assert (own <= distances.min(axis=1) + 0.1).all()  # it stops when no centre moves by 0.01
    assert (np.diff(means[:, 0]) > 0).all()


@pytest.mark.parametrize("shape", [(0, 0, 3), (0, 4, 3), (4, 0, 3)])
def test_clustering_an_empty_image_gives_an_empty_map(shape):
    labels = kmeans_lab(np.zeros(shape, dtype=np.uint8), 2)
    assert (labels.shape, labels.dtype) == (shape[:2], np.int32)


@pytest.mark.parametrize(
    ("image", "clusters", "message"),
    [
        (np.zeros((2, 2), np.uint8), 2, r"image must be \(H, W, 3\) uint8 RGB, got \(2, 2\) uint8"),
        (np.zeros((2, 2, 3)), 2, r"got \(2, 2, 3\) float64"),
        (np.zeros((2, 2, 3), np.uint8), 0, "clusters must be at least 1, got 0"),
    ],
)
def test_invalid_arguments_of_kmeans_are_rejected(image, clusters, message):
    with pytest.raises(ValueError, match=message):
        kmeans_lab(image, clusters)
