"""Classes of regions by their colours: a histogram of each class, counted in labelled images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segkit.classical.method import to_rgb

LEVELS = 8  # of each channel; the classes of a dataset share 8^3 colours
COLORS = LEVELS**3
LEAST_SHARE = 1e-6  # of a class's pixels that every colour has: one that was never seen votes for all classes alike


class ColorClasses:
    """How likely each colour is in each class; a region has the class that its pixels vote for.

    A pixel of colour c votes for class k with p(c | k) / sum over j of p(c | j): naive Bayes with classes that are
    equally frequent. p(c | k) is the share of the training pixels of class k that have this colour.

    Args:
        counts: (K, COLORS), training pixels of each class and colour.
    """

    def __init__(self, counts: NDArray[np.floating]) -> None:
        self.shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) + LEAST_SHARE

    def classify_regions(
        self, label_map: NDArray[np.int32], image: NDArray[np.uint8], classes: Sequence[int]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Find the class of each region.

        Args:
            label_map: (H, W) int32, regions 1..N.
            image: (H, W, C) uint8, C 1 or 3.
            classes: The rows of the counts that come into question, at least one.

        Returns:
            (N,) int64 class, one of `classes`, of equal votes the first; (N,) float64 mean vote for it, in [0, 1].
        """
        colors, labels = quantize_colors(image).reshape(-1), label_map.reshape(-1)
        areas_px = np.maximum(np.bincount(labels), 1)
        sums = [np.bincount(labels, votes[colors]) for votes in self._vote()[[*classes]]]
        shares = (np.array(sums) / areas_px)[:, 1:]
        best = shares.argmax(axis=0)
        return np.array([*classes], dtype=np.int64)[best], shares.max(axis=0)

    def classify_pixels(self, image: NDArray[np.uint8], classes: Sequence[int]) -> NDArray[np.int64]:
        """Find the class of each pixel.

        Args:
            image: (H, W, C) uint8, C 1 or 3.
            classes: See `classify_regions`.

        Returns:
            (H, W) int64 class.
        """
        best: NDArray[np.int64] = np.array([*classes], dtype=np.int64)[self._vote()[[*classes]].argmax(axis=0)]
        return best[quantize_colors(image)]

    def _vote(self) -> NDArray[np.float64]:
        """(K, COLORS), the vote of each colour for each class."""
        return np.asarray(self.shares / self.shares.sum(axis=0), dtype=np.float64)


def count_colors(image: NDArray[np.uint8], class_map: NDArray[np.integer], classes: int) -> NDArray[np.int64]:
    """Count the colours of each class in a labelled image.

    Args:
        image: (H, W, C) uint8, C 1 or 3.
        class_map: (H, W) integers, class 0..classes-1; others are not counted.
        classes: Number of classes.

    Returns:
        (classes, COLORS) int64 pixels.
    """
    labelled = (class_map >= 0) & (class_map < classes)
    bins = class_map[labelled].astype(np.int64) * COLORS + quantize_colors(image)[labelled]
    return np.bincount(bins, minlength=classes * COLORS).reshape(classes, COLORS)


def quantize_colors(image: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Number the colours of an image.

    Args:
        image: (H, W, C) uint8, C 1 or 3.

    Returns:
        (H, W) int64 in [0, COLORS).
    """
    levels = to_rgb(image).astype(np.int64) * LEVELS // 256
    return (levels[..., 0] * LEVELS + levels[..., 1]) * LEVELS + levels[..., 2]
