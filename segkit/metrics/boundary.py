"""Boundaries of all segments of a label map at once, as Boundary IoU defines them (Cheng et al. 2021, section 4)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.metrics.label_pairs import IntArray, check_map

DILATION_RATIO = 0.02  # of the image's diagonal (boundary-iou-api, boundary_iou/utils/boundary_utils.py)


def boundary_dilation_px(size_hw: tuple[int, int], ratio: float = DILATION_RATIO) -> int:
    """Compute the width of a boundary.

    Args:
        size_hw: (height, width) of the image in pixels.
        ratio: Width as a share of the image's diagonal.

    Returns:
        The width in pixels, rounded (halves to even), at least 1.
    """
    height, width = size_hw
    return max(1, round(float(ratio * np.sqrt(height**2 + width**2))))


def boundary_options(ratio: float | None) -> dict[str, Any]:
    """The arguments `boundary` and `boundary_ratio` of a metric; its ratio is None if it counts no boundaries."""
    return {"boundary": False} if ratio is None else {"boundary": True, "boundary_ratio": ratio}


def boundary_pixels(labels: IntArray, dilation_px: int) -> NDArray[np.bool_]:
    """Find the boundary pixels: those with another label, or the outside of the image, within a Chebyshev distance.

    Equal to `mask & ~erode(mask)` of each label's mask, padded by background and eroded by 3 x 3 ones `dilation_px`
    times (boundary-iou-api, boundary_iou/utils/boundary_utils.py).

    Args:
        labels: (H, W) integers of any range; every label, also 0, is a segment.
        dilation_px: The distance in pixels, at least 1.

    Returns:
        (H, W) bool.

    Raises:
        ValueError: The map is not an (H, W) integer array, or `dilation_px` is below 1.
    """
    check_map("labels", labels)
    if dilation_px < 1:
        raise ValueError(f"dilation_px must be at least 1, got {dilation_px}")
    height, width = labels.shape
    on_boundary = np.ones(labels.shape, dtype=np.bool_)
    if height > 2 * dilation_px and width > 2 * dilation_px:
        inner = slice(dilation_px, height - dilation_px), slice(dilation_px, width - dilation_px)
        on_boundary[inner] = mixed_windows(labels, dilation_px)
    return on_boundary


def mixed_windows(labels: Any, dilation_px: int) -> Any:
    """Find the pixels whose surrounding square of 2d + 1 pixels, d = `dilation_px`, holds more than one label.

    Args:
        labels: (H, W) integers in numpy or in torch, H and W above 2d.
        dilation_px: d, in pixels, at least 1.

    Returns:
        (H - 2d, W - 2d) bool: the pixels whose square is inside the map.
    """
    return _any_in_window(_find_mixed_quads(labels), 2 * dilation_px)


def _find_mixed_quads(labels: Any) -> Any:
    """(H - 1, W - 1): the 2 x 2 pixels with more than one label; comparing both rows and one column is enough."""
    beside = labels[:, 1:] != labels[:, :-1]
    mixed = labels[1:, 1:] != labels[:-1, 1:]
    mixed |= beside[1:]
    mixed |= beside[:-1]
    return mixed


def _any_in_window(flags: Any, length: int) -> Any:
    """(H, W) -> (H - length + 1, W - length + 1): whether the square that begins here holds a flag, by doubling."""
    reached = 1
    while reached < length:
        step = min(reached, length - reached)
        flags = flags[step:] | flags[:-step]
        flags = flags[:, step:] | flags[:, :-step]
        reached += step
    return flags
