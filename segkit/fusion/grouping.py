"""Centers of instances, and the center of each pixel (Panoptic-DeepLab, Cheng et al. 2020, section 3.2).

Reference: `find_instance_center` and `group_pixels` in detectron2/projects/panoptic_deeplab/post_processing.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from segkit.structures import CenterOffsets, InstanceMasks

NO_OWNER = -1  # of a pixel that belongs to no center
POINTS_PER_STEP = 2**16  # points whose distances are computed at once and fit in the cache


def find_heat_peaks(heatmap: NDArray[np.float32], threshold: float, nms_kernel: int, top_k: int) -> NDArray[np.int64]:
    """Find the centers in a heatmap.

    Args:
        heatmap: (H, W) float32.
        threshold: A center must be above it, and above 0.
        nms_kernel: Odd number of pixels. A center is the highest in the window of this side, each of equal ones.
        top_k: If there are top_k centers or more, only those strictly above the top_k-th best are used, as in the
            reference: fewer than top_k.

    Returns:
        (K, 2) int64 rows and columns in reading order. K may be 0.
    """
    if heatmap.size == 0:
        return np.zeros((0, 2), dtype=np.int64)
    window = [min(nms_kernel, 2 * side + 1) for side in heatmap.shape]  # larger ones are equal
    highest = cv2.dilate(heatmap, np.ones(window, dtype=np.uint8))
    floor = max(np.float32(threshold), np.float32(0))
    peaks = np.flatnonzero((heatmap > floor) & (heatmap == highest))
    heats = heatmap.reshape(-1)[peaks]
    if len(heats) >= top_k:
        peaks = peaks[heats > np.partition(heats, -top_k)[-top_k]]
    return np.stack(np.divmod(peaks, heatmap.shape[1]), axis=1)


def group_by_offsets(
    centers: CenterOffsets, peaks_yx: NDArray[np.int64], pixels: NDArray[np.int64]
) -> NDArray[np.int32]:
    """Assign pixels to the peaks nearest to where their offsets point.

    Args:
        centers: Heatmap and offsets of the image.
        peaks_yx: (K, 2) int64 rows and columns.
        pixels: (P,) int64 indices of pixels in reading order.

    Returns:
        (P,) int32 rows of peaks_yx, of equally near peaks the first; NO_OWNER without peaks.
    """
    offsets_y, offsets_x = centers.offsets_yx.reshape(2, -1)[:, pixels]
    rows, columns = (axis.astype(np.float32) for axis in np.divmod(pixels, centers.heatmap.shape[1]))
    return _find_nearest(rows + offsets_y, columns + offsets_x, peaks_yx.astype(np.float32))


def group_by_masks(instances: InstanceMasks, order: Sequence[int], pixels: NDArray[np.int64]) -> NDArray[np.int32]:
    """Assign pixels to instances.

    A pixel belongs to the best instance whose mask covers it, as if its offset pointed at the center of mass. A pixel
    that no mask covers belongs to the nearest center of mass, of equally near ones to the better instance.

    Args:
        instances: The instances.
        order: Their rows, best first.
        pixels: (P,) int64 indices of pixels in reading order.

    Returns:
        (P,) int32 indices into `order`; NO_OWNER if all masks are empty.
    """
    best = np.full(instances.size_hw, NO_OWNER, dtype=np.int32)
    for rank in reversed(range(len(order))):
        best[instances.window(order[rank])][instances.crops[order[rank]]] = rank
    groups: NDArray[np.int32] = best.reshape(-1)[pixels]
    uncovered = np.flatnonzero(groups == NO_OWNER)
    nonempty = [rank for rank, row in enumerate(order) if instances.crops[row].any()]
    if len(uncovered) and nonempty:
        rows, columns = (axis.astype(np.float32) for axis in np.divmod(pixels[uncovered], instances.size_hw[1]))
        centers = np.array([_compute_center_of_mass(instances, order[rank]) for rank in nonempty], dtype=np.float32)
        groups[uncovered] = np.array(nonempty, dtype=np.int32)[_find_nearest(rows, columns, centers)]
    return groups


def _compute_center_of_mass(instances: InstanceMasks, row: int) -> tuple[float, float]:
    crop, (left, top) = instances.crops[row], instances.corners_xy[row].tolist()
    row_px, column_px = np.count_nonzero(crop, axis=1), np.count_nonzero(crop, axis=0)
    area_px = int(row_px.sum())
    center_y, center_x = (float(counts @ np.arange(len(counts))) / area_px for counts in (row_px, column_px))
    return center_y + top, center_x + left


def _find_nearest(
    points_y: NDArray[np.float32], points_x: NDArray[np.float32], centers_yx: NDArray[np.float32]
) -> NDArray[np.int32]:
    """The first of the nearest centers of each point.

    Each step is rounded to float32, including the root. The rounding decides which centers are equally near.
    """
    if not len(centers_yx):
        return np.full(len(points_y), NO_OWNER, dtype=np.int32)
    nearest = np.zeros(len(points_y), dtype=np.int32)
    for start in range(0, len(points_y), POINTS_PER_STEP):
        part = slice(start, start + POINTS_PER_STEP)
        least = np.full(len(points_y[part]), np.inf, dtype=np.float32)
        with np.errstate(over="ignore"):  # a huge offset is infinitely far from every center
            for center, (center_y, center_x) in enumerate(centers_yx):
                down, right = center_y - points_y[part], center_x - points_x[part]
                distance = np.sqrt(down * down + right * right)
                nearest[part][distance < least] = center
                np.minimum(least, distance, out=least)
    return nearest
