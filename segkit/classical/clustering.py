"""Regions by colour: k-means in Lab."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

MAX_ITERATIONS = 100
MIN_MOVE = 0.01  # in Lab units; the eye can distinguish about 2


def kmeans_lab(image: NDArray[np.uint8], clusters: int, seed: int = 0) -> NDArray[np.int32]:
    """Cluster the colours by k-means in CIE Lab, initialized by k-means++ (Arthur, Vassilvitskii 2007).

    Equal input and seed give equal output; no global random state is used.

    Args:
        image: (H, W, 3) uint8 RGB; may be empty.
        clusters: Number of clusters; if the image has fewer colours, each colour is a cluster.
        seed: Seed of the initialization.

    Returns:
        (H, W) int32 label map without background, 1 = the darkest cluster. A cluster may have many components;
        `connected_components` separates them.

    Raises:
        ValueError: Another shape or dtype, or fewer than one cluster.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image must be (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}")
    if clusters < 1:
        raise ValueError(f"clusters must be at least 1, got {clusters}")
    if not image.size:
        return np.zeros(image.shape[:2], dtype=np.int32)
    converted = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    lab: NDArray[np.float32] = np.asarray(converted, dtype=np.float32).reshape(-1, 3)
    labels = _initialize(lab, clusters, np.random.default_rng(seed))
    # With initial labels, cv2.kmeans does not use its random generator, which the whole process shares.
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, MAX_ITERATIONS, MIN_MOVE)
    count = int(labels.max()) + 1
    _, final, centers = cv2.kmeans(lab, count, labels[:, None], stop, 1, cv2.KMEANS_USE_INITIAL_LABELS)
    numbers = np.empty(count, dtype=np.int32)
    numbers[np.lexsort(centers.T[::-1])] = np.arange(1, count + 1)  # by L, then a, then b
    label_map: NDArray[np.int32] = numbers[final].reshape(image.shape[:2])
    return label_map


def _initialize(lab: NDArray[np.float32], clusters: int, random: np.random.Generator) -> NDArray[np.int32]:
    """Nearest seed of each pixel, (N,) int32; there are `clusters` seeds, or one per colour if these are fewer.

    The probability of a pixel to become the next seed is proportional to its squared distance from the seeds so far.
    """
    labels = np.zeros(len(lab), dtype=np.int32)
    nearest = np.full(len(lab), np.inf)
    drawn = int(random.integers(len(lab)))
    for number in range(clusters):
        squared = ((lab - lab[drawn]).astype(np.float64) ** 2).sum(axis=1)
        labels[squared < nearest] = number
        nearest = np.minimum(nearest, squared)
        if not nearest.any():
            break
        drawn = int(random.choice(len(lab), p=nearest / nearest.sum()))
    return labels
