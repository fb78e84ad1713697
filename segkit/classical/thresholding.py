"""Regions by grey value: Otsu's threshold, several of them, and the local mean."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from segkit.classical.regions import connected_components

LEVELS = 256
ROUNDING = 1e-12  # variances closer than this are equal: a symmetric histogram has true ties


def otsu_threshold(gray: NDArray[np.uint8]) -> int:
    """The grey value t that parts `gray <= t` from `gray > t` with the largest variance between the two (Otsu 1979).

    gray: (H, W) uint8. Ties go to the lowest t, so t is a value of the image; a constant image has its value (nothing
    lies above it), an empty one 0. Raises ValueError for another shape or dtype.
    """
    return multi_otsu_thresholds(gray, 2)[0]


def multi_otsu_thresholds(gray: NDArray[np.uint8], classes: int) -> tuple[int, ...]:
    """The classes - 1 ascending grey values that part the image with the largest variance between classes.

    gray: (H, W) uint8; class k holds the values in (t[k-1], t[k]]. Exact, by dynamic programming over the values that
    occur (Liao et al. 2001 search the same optimum). Ties go to the lowest thresholds. With no more values than
    classes each value is a class of its own, and the greatest value fills up the thresholds (0 in an empty image).
    Raises ValueError for another shape or dtype, or fewer than two classes.
    """
    _check(gray)
    if classes < 2:
        raise ValueError(f"classes must be at least 2, got {classes}")
    counts = np.bincount(gray.reshape(-1), minlength=LEVELS)
    values = np.flatnonzero(counts)
    if len(values) <= classes:
        filler = values[-1:].tolist() or [0]
        return tuple((values.tolist() + filler * classes)[: classes - 1])
    return tuple(values[_best_ends(values, counts[values], classes)].tolist())


def otsu_levels(gray: NDArray[np.uint8], classes: int = 3) -> NDArray[np.int32]:
    """(H, W) int32 label map: 0 for the darkest of Otsu's classes, up to classes - 1 for the brightest."""
    return np.digitize(gray, multi_otsu_thresholds(gray, classes), right=True).astype(np.int32)


def otsu_regions(gray: NDArray[np.uint8], min_area_px: int = 1) -> NDArray[np.int32]:
    """Connected pieces brighter than Otsu's threshold, as `connected_components` numbers them.

    gray: (H, W) uint8; for dark objects on a bright ground pass 255 - gray. A constant or empty image has no region.
    """
    return connected_components(gray > otsu_threshold(gray), min_area_px)


def local_mean_regions(
    gray: NDArray[np.uint8], window_px: int, offset: float = 0.0, min_area_px: int = 1
) -> NDArray[np.int32]:
    """Connected pieces brighter than the mean of the window around each pixel by more than `offset`: uneven light.

    gray: (H, W) uint8; for dark objects pass 255 - gray. window_px: odd side of the window, which is mirrored at the
    image's border; take it wider than an object, since the inside of a wider one equals its mean. A pixel equal to
    mean + offset is background, so a constant image has no region, nor has an empty one.
    Raises ValueError for another shape or dtype, or an even or non-positive window.
    """
    _check(gray)
    if window_px < 1 or window_px % 2 == 0:
        raise ValueError(f"window_px must be odd and positive, got {window_px}")
    if not gray.size:
        return np.zeros(gray.shape, dtype=np.int32)
    # Whole sums, not means: rounding a mean would make specks of a flat ground.
    wide, window = gray.astype(np.float64), (window_px, window_px)
    sums = cv2.boxFilter(wide, cv2.CV_64F, window, normalize=False, borderType=cv2.BORDER_REFLECT)
    return connected_components((wide - offset) * window_px**2 > sums, min_area_px)


def _check(gray: NDArray[np.uint8]) -> None:
    if gray.ndim != 2 or gray.dtype != np.uint8:
        raise ValueError(f"gray must be (H, W) uint8, got {gray.shape} {gray.dtype}")


def _best_ends(values: NDArray[np.int64], counts: NDArray[np.int64], classes: int) -> list[int]:
    """Index of the last value of every class but the greatest, with the most of sum over classes of (sum v)^2 / n.

    With v from the image's mean, that sum is the variance between classes times the pixels (Otsu 1979, equation 14).
    """
    below = np.concatenate([[0], np.cumsum(counts)]).astype(np.float64)
    mass = np.concatenate([[0], np.cumsum(counts * (values - np.average(values, weights=counts)))])
    starts, ends = np.arange(len(values))[:, None], np.arange(len(values))[None]
    held = below[ends + 1] - below[starts]
    gain = np.where(ends >= starts, (mass[ends + 1] - mass[starts]) ** 2 / np.where(held > 0, held, 1), -np.inf)
    best, choices = gain[0], []
    for _ in range(classes - 1):
        # best[i] ends a class at i, gain[i + 1, j] is the next from there to j; argmax finds the lowest of equals
        joined = best[:-1, None] + gain[1:]
        best = joined.max(axis=0)
        choices.append((joined >= best * (1 - ROUNDING)).argmax(axis=0))
    end, chosen = len(values) - 1, []
    for choice in reversed(choices):
        end = int(choice[end])
        chosen.append(end)
    return chosen[::-1]
