"""Regions by grey value or colour: Otsu's thresholds, the local mean, and k-means in Lab."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from segkit.classical.regions import check_image, connected_components

LEVELS = 256
MAX_ITERATIONS = 100
MIN_MOVE = 0.01  # in Lab units; the eye can distinguish about 2
TIE_TOLERANCE = 1e-12  # relative; a symmetric histogram has thresholds of exactly equal variance


def otsu_threshold(gray: NDArray[np.uint8]) -> int:
    """Find the threshold t with the largest variance between `gray <= t` and `gray > t` (Otsu 1979).

    Args:
        gray: (H, W) uint8.

    Returns:
        The lowest of equally good thresholds, which is a value of the image. The only value of a constant image; 0 for
        an empty image.

    Raises:
        ValueError: Another shape or dtype.
    """
    return multi_otsu_thresholds(gray, 2)[0]


def multi_otsu_thresholds(gray: NDArray[np.uint8], classes: int) -> tuple[int, ...]:
    """Find the thresholds with the largest variance between classes; class k has the values in (t[k-1], t[k]].

    The result is exact: dynamic programming over the values of the image (Liao et al. 2001 search the same optimum).

    Args:
        gray: (H, W) uint8.
        classes: Number of classes, at least 2.

    Returns:
        classes - 1 ascending thresholds, the lowest of equally good ones. If the image has at most `classes` values,
        each value is a class, and the greatest value (0 for an empty image) fills the remaining thresholds.

    Raises:
        ValueError: Another shape or dtype, or fewer than two classes.
    """
    check_image(gray, np.uint8, "gray")
    if classes < 2:
        raise ValueError(f"classes must be at least 2, got {classes}")
    counts = np.bincount(gray.reshape(-1), minlength=LEVELS)
    values = np.flatnonzero(counts)
    if len(values) <= classes:
        filler = values[-1:].tolist() or [0]
        return tuple((values.tolist() + filler * classes)[: classes - 1])
    return tuple(values[_find_class_ends(values, counts[values], classes)].tolist())


def otsu_levels(gray: NDArray[np.uint8], classes: int = 3) -> NDArray[np.int32]:
    """Assign each pixel its class by Otsu's thresholds.

    Args:
        gray: (H, W) uint8.
        classes: Number of classes, at least 2.

    Returns:
        (H, W) int32 label map, 0 for the darkest class, classes - 1 for the brightest.

    Raises:
        ValueError: Another shape or dtype, or fewer than two classes.
    """
    return np.digitize(gray, multi_otsu_thresholds(gray, classes), right=True).astype(np.int32)


def otsu_regions(gray: NDArray[np.uint8], min_area_px: int = 1) -> NDArray[np.int32]:
    """Find connected regions that are brighter than Otsu's threshold.

    Args:
        gray: (H, W) uint8; for dark objects on a bright background pass 255 - gray.
        min_area_px: Pixels; smaller regions become background.

    Returns:
        (H, W) int32 label map as `connected_components` numbers it; no region in a constant or empty image.

    Raises:
        ValueError: Another shape or dtype.
    """
    return connected_components(gray > otsu_threshold(gray), min_area_px)


def local_mean_regions(
    gray: NDArray[np.uint8], window_px: int, offset: float = 0.0, min_area_px: int = 1
) -> NDArray[np.int32]:
    """Find connected regions that are brighter than the mean of the window around each pixel; for uneven light.

    Args:
        gray: (H, W) uint8; for dark objects pass 255 - gray.
        window_px: Odd side of the window in pixels, mirrored at the border of the image. It should be larger than an
            object: inside a larger object, pixels equal the mean.
        offset: A pixel must exceed the mean by more than this.
        min_area_px: Pixels; smaller regions become background.

    Returns:
        (H, W) int32 label map as `connected_components` numbers it; no region in a constant or empty image.

    Raises:
        ValueError: Another shape or dtype, or an even or non-positive window.
    """
    check_image(gray, np.uint8, "gray")
    if window_px < 1 or window_px % 2 == 0:
        raise ValueError(f"window_px must be odd and positive, got {window_px}")
    if not gray.size:
        return np.zeros(gray.shape, dtype=np.int32)
    # Sums instead of means: the rounding of a mean would turn a flat background into specks.
    values, window = gray.astype(np.float64), (window_px, window_px)
    sums = cv2.boxFilter(values, cv2.CV_64F, window, normalize=False, borderType=cv2.BORDER_REFLECT)
    return connected_components((values - offset) * window_px**2 > sums, min_area_px)


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


def _find_class_ends(values: NDArray[np.int64], counts: NDArray[np.int64], classes: int) -> list[int]:
    """Index of the last value of every class but the brightest; maximizes the sum of (sum v)^2 / n over the classes.

    With v relative to the image's mean, that is the variance between classes times the pixels (Otsu 1979, eq. 14).
    """
    below = np.concatenate([[0], np.cumsum(counts)]).astype(np.float64)
    mass = np.concatenate([[0], np.cumsum(counts * (values - np.average(values, weights=counts)))])
    starts, ends = np.arange(len(values))[:, None], np.arange(len(values))[None]
    pixels = below[ends + 1] - below[starts]
    gain = np.where(ends >= starts, (mass[ends + 1] - mass[starts]) ** 2 / np.where(pixels > 0, pixels, 1), -np.inf)
    best, choices = gain[0], []
    for _ in range(classes - 1):
        # best[i]: last class ends at i; gain[i + 1, j]: next class, up to j. argmax takes the first of equal values.
        joined = best[:-1, None] + gain[1:]
        best = joined.max(axis=0)
        choices.append((joined >= best * (1 - TIE_TOLERANCE)).argmax(axis=0))
    class_ends = [len(values) - 1]
    for choice in reversed(choices):
        class_ends.append(int(choice[class_ends[-1]]))
    return class_ends[:0:-1]


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
