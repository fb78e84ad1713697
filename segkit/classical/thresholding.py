"""Regions by grey value: Otsu's thresholds, and thresholds that follow uneven light."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from segkit.classical.brightness import LEVELS, OBJECTS, find_bright, make_objects_bright, to_gray
from segkit.classical.components import connected_components
from segkit.classical.method import ClassicalMethod
from segkit.utils.errors import ConfigError
from segkit.utils.options import check_numbers

TIE_TOLERANCE = 1e-12  # relative; a symmetric histogram has thresholds of exactly equal variance


@dataclass(frozen=True)
class _Threshold(ClassicalMethod):
    """A method that finds objects brighter than a threshold."""

    choices = {"objects": OBJECTS}
    grid = {"blur_px": (0.0, 1.0, 2.0), "gamma": (0.5, 1.0), "min_area_px": (20, 50)}
    objects: str = "auto"
    gamma: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self, "gamma", least=0)

    def segment(self, rgb: NDArray[np.uint8]) -> NDArray[np.int32]:
        """See base class."""
        return connected_components(self.find_objects(make_objects_bright(rgb, self.objects, self.gamma)))

    def find_objects(self, gray: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Find the pixels of objects.

        Args:
            gray: (H, W) uint8, objects bright.

        Returns:
            (H, W) bool.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Otsu(_Threshold):
    """Connected regions above Otsu's threshold (Otsu 1979): that with the largest variance between both sides.

    Attributes:
        objects: See `make_objects_bright`.
        gamma: See `make_objects_bright`.
    """

    def find_objects(self, gray: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """See base class."""
        return find_bright(gray)


@dataclass(frozen=True)
class AdaptiveThreshold(_Threshold):
    """Connected regions that are brighter than the mean around each pixel; for uneven light.

    Attributes:
        objects: See `make_objects_bright`.
        gamma: See `make_objects_bright`.
        window_px: Odd side of the window around a pixel, pixels; larger than an object.
        offset: Grey values by which a pixel must exceed the mean.
    """

    grid = {"blur_px": (0.0, 1.0, 2.0), "window_px": (25, 51, 101), "offset": (5.0, 10.0, 20.0)}
    window_px: int = 51
    offset: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self, "offset")
        check_window(self, self.window_px)

    def find_objects(self, gray: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """See base class."""
        kinds = cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY
        return np.asarray(cv2.adaptiveThreshold(gray, 1, *kinds, self.window_px, -self.offset) > 0)


@dataclass(frozen=True)
class Sauvola(_Threshold):
    """Connected regions by Sauvola's threshold (Sauvola, Pietikäinen 2000), by scikit-image.

    With mean m and deviation s of the window around a pixel, and dark objects, it is m (1 + k (s / 128 - 1)): near the
    mean where there is contrast, far from it in flat places. Bright objects are inverted first.

    Attributes:
        objects: See `make_objects_bright`.
        gamma: See `make_objects_bright`.
        window_px: Odd side of the window, pixels.
        k: How far a flat place is from its threshold.
    """

    needs_scikit_image = True
    grid = {"blur_px": (0.0, 1.0), "window_px": (25, 51, 101), "k": (0.05, 0.1, 0.2)}
    window_px: int = 51
    k: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self, "k")
        check_window(self, self.window_px)

    def find_objects(self, gray: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """See base class."""
        from skimage.filters import threshold_sauvola

        dark = LEVELS - 1 - gray
        thresholds = threshold_sauvola(dark, self.window_px, self.k)  # type: ignore[no-untyped-call]
        return np.asarray(dark < thresholds)


@dataclass(frozen=True)
class MultiOtsu(ClassicalMethod):
    """Connected regions of one class of grey values, by Otsu's thresholds between several classes.

    Attributes:
        classes: Number of classes of grey values, at least 2.
    """

    is_partition = True
    grid = {"blur_px": (1.0, 2.0), "classes": (2, 3, 4, 6), "min_area_px": (20, 50, 100)}
    classes: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self, "classes", least=2)

    def segment(self, rgb: NDArray[np.uint8]) -> NDArray[np.int32]:
        """See base class."""
        gray = to_gray(rgb)
        levels = np.digitize(gray, find_otsu_thresholds(gray, self.classes), right=True)
        return connected_components(levels + 1)


def find_otsu_thresholds(gray: NDArray[np.uint8], classes: int) -> tuple[int, ...]:
    """Find the thresholds with the largest variance between classes; class k has the values in (t[k-1], t[k]].

    The result is exact: dynamic programming over the values of the image (Liao et al. 2001 search the same optimum).
    scikit-image tries all thresholds: it takes 50 times as long for 4 classes, thousands of times for 5.

    Args:
        gray: (H, W) uint8, H and W at least 1.
        classes: Number of classes, at least 2.

    Returns:
        classes - 1 ascending thresholds, the lowest of equally good ones. If the image has at most `classes` values,
        each value is a class, and the greatest value fills the remaining thresholds.
    """
    counts = np.bincount(gray.reshape(-1), minlength=LEVELS)
    values = np.flatnonzero(counts)
    if len(values) <= classes:
        return tuple((values.tolist() + values[-1:].tolist() * classes)[: classes - 1])
    return tuple(values[_find_class_ends(values, counts[values], classes)].tolist())


def check_window(method: ClassicalMethod, window_px: int) -> None:
    """Check the side of a window.

    Args:
        method: The method, for messages.
        window_px: Pixels.

    Raises:
        ConfigError: It is even, or below 3.
    """
    if window_px < 3 or window_px % 2 == 0:
        raise ConfigError(f"window_px must be odd and at least 3, got {window_px}", where=type(method).__name__)


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
