"""Regions by colour: k-means in Lab."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

ROUNDS = 100
SMALLEST_MOVE = 0.01  # in Lab units; about 2 is what the eye can tell apart


def kmeans_lab(image: NDArray[np.uint8], clusters: int, seed: int = 0) -> NDArray[np.int32]:
    """Give every pixel one of `clusters` colours: k-means in CIE Lab, begun by k-means++ (Arthur, Vassilvitskii 2007).

    image: (H, W, 3) uint8 RGB. Returns an (H, W) int32 label map, 1 for the darkest cluster upwards, no background; a
    cluster may lie in many pieces (`connected_components` parts them). Equal input and seed give equal output, and
    no global random state is touched. With fewer colours than clusters each colour is a cluster of its own. An empty
    image gives an empty map. Raises ValueError for another shape or dtype, or fewer than one cluster.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image must be (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}")
    if clusters < 1:
        raise ValueError(f"clusters must be at least 1, got {clusters}")
    if not image.size:
        return np.zeros(image.shape[:2], dtype=np.int32)
    wide = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    lab: NDArray[np.float32] = np.asarray(wide, dtype=np.float32).reshape(-1, 3)
    labels, count = _plus_plus(lab, clusters, np.random.default_rng(seed))
    if count > 1:
        # Labels given, cv2.kmeans draws no random number: its generator is one for the whole process.
        stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, ROUNDS, SMALLEST_MOVE)
        _, moved, _ = cv2.kmeans(lab, count, labels[:, None], stop, 1, cv2.KMEANS_USE_INITIAL_LABELS)
        labels = np.asarray(moved, dtype=np.int32).reshape(-1)
    return _darkest_first(lab, labels, count).reshape(image.shape[:2])


def _plus_plus(lab: NDArray[np.float32], clusters: int, random: np.random.Generator) -> tuple[NDArray[np.int32], int]:
    """Nearest of up to `clusters` seeds for each pixel, (N,) int32, and how many seeds; fewer where colours run out.

    A pixel is drawn as the next seed with probability in proportion to its squared distance from the seeds so far.
    """
    labels = np.zeros(len(lab), dtype=np.int32)
    nearest = np.full(len(lab), np.inf)
    drawn = int(random.integers(len(lab)))
    for number in range(clusters):
        squared = ((lab - lab[drawn]).astype(np.float64) ** 2).sum(axis=1)
        labels[squared < nearest] = number
        nearest = np.minimum(nearest, squared)
        total = nearest.sum()
        if total == 0:
            return labels, number + 1
        drawn = int(random.choice(len(lab), p=nearest / total))
    return labels, clusters


def _darkest_first(lab: NDArray[np.float32], labels: NDArray[np.int32], count: int) -> NDArray[np.int32]:
    """Labels 1..count by mean L, then a, then b."""
    area_px = np.bincount(labels, minlength=count)
    means = [np.bincount(labels, channel, count) / np.maximum(area_px, 1) for channel in lab.T]
    numbers = np.empty(count, dtype=np.int32)
    numbers[np.lexsort(means[::-1])] = np.arange(1, count + 1)
    return numbers[labels]
