from __future__ import annotations

import cv2
import numpy as np
import pytest

from segkit.classical import kmeans_lab

BLACK, RED, WHITE = (0, 0, 0), (200, 20, 20), (255, 255, 255)


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
def test_an_empty_image_gives_an_empty_map(shape):
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
def test_invalid_arguments_are_rejected(image, clusters, message):
    with pytest.raises(ValueError, match=message):
        kmeans_lab(image, clusters)
