"""Grey values in which objects are bright, and Otsu's threshold."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

OBJECTS = ("auto", "bright", "dark")
LEVELS = 256


def to_gray(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert an image to grey values.

    Args:
        rgb: (H, W, 3) uint8 RGB.

    Returns:
        (H, W) uint8.
    """
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def make_objects_bright(rgb: NDArray[np.uint8], objects: str, gamma: float = 1.0) -> NDArray[np.uint8]:
    """Convert an image to grey values in which its objects are brighter than their background.

    Args:
        rgb: (H, W, 3) uint8 RGB.
        objects: "bright"; "dark": the grey values are inverted; "auto": dark if most pixels at the border of the image,
            where the background is, are above Otsu's threshold.
        gamma: Power of the grey values (of 0..1), then. Below 1 it spreads the dark ones: objects of very different
            brightness come above one threshold.

    Returns:
        (H, W) uint8.
    """
    gray = to_gray(rgb)
    if objects == "auto":
        bright = find_bright(gray)
        border = np.concatenate([bright[0], bright[-1], bright[:, 0], bright[:, -1]])
        objects = "dark" if border.mean() > 0.5 else "bright"
    values = np.arange(LEVELS)[:: -1 if objects == "dark" else 1] / (LEVELS - 1)
    return np.rint(values**gamma * (LEVELS - 1)).astype(np.uint8)[gray]


def find_bright(gray: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Find the pixels above Otsu's threshold (Otsu 1979).

    Args:
        gray: (H, W) uint8, H and W at least 1.

    Returns:
        (H, W) bool; no pixel of a constant image.
    """
    if gray.min() == gray.max():
        return np.zeros(gray.shape, dtype=np.bool_)
    threshold, _ = cv2.threshold(gray, 0, LEVELS - 1, cv2.THRESH_OTSU)
    return np.asarray(gray > threshold)
