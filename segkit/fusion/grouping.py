"""Centres of instances, and which of them each pixel belongs to (Panoptic-DeepLab, Cheng et al. 2020, section 3.2).

Reference: `find_instance_center` and `group_pixels` in detectron2/projects/panoptic_deeplab/post_processing.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from segkit.structures import CenterOffsets, InstanceMasks
from segkit.utils.compiled import COMPILED, compiled

NO_OWNER = -1  # of a pixel that belongs to no centre


def find_heat_peaks(heatmap: NDArray[np.float32], threshold: float, nms_kernel: int, top_k: int) -> NDArray[np.int64]:
    """(K, 2) rows and columns of the centres in an (H, W) heatmap, in reading order; K may be 0.

    A centre is above threshold (and above 0) and the highest in the window of nms_kernel (odd) pixels around it: of
    equal neighbours each is one. Where top_k or more are left, only those strictly above the top_k-th best stay, as in
    the reference: fewer than top_k.
    """
    if heatmap.size == 0:
        return np.zeros((0, 2), dtype=np.int64)
    window = [min(nms_kernel, 2 * side + 1) for side in heatmap.shape]  # a larger one reaches no other pixel
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
    """(P,) int32: for each pixel (its place in reading order) the row of the peak nearest to where its offset points.

    Of equally near peaks the first; with no peak NOBODY.
    """
    offsets_y, offsets_x = centers.offsets_yx.reshape(2, -1)[:, pixels]
    rows, columns = _coordinates(pixels, centers.heatmap.shape[1])
    return _nearest(rows + offsets_y, columns + offsets_x, peaks_yx.astype(np.float32))


def group_by_masks(instances: InstanceMasks, order: Sequence[int], pixels: NDArray[np.int64]) -> NDArray[np.int32]:
    """(P,) int32: for each pixel the place in `order` (rows, best first) of the instance that it belongs to.

    That is the best one whose mask covers it: its offset points at this one's centre of mass. A pixel of no mask has
    the offset 0, so that it goes to the centre of mass nearest to itself, of equally near ones to the better; NOBODY
    where all masks are empty.
    """
    cover = np.full(instances.size_hw, NO_OWNER, dtype=np.int32)
    for place in reversed(range(len(order))):
        cover[instances.window(order[place])][instances.crops[order[place]]] = place
    groups: NDArray[np.int32] = cover.reshape(-1)[pixels]
    bare = np.flatnonzero(groups == NO_OWNER)
    solid = [place for place, row in enumerate(order) if instances.crops[row].any()]
    if len(bare) and solid:
        rows, columns = _coordinates(pixels[bare], instances.size_hw[1])
        middles = np.array([_center_of_mass(instances, order[place]) for place in solid], dtype=np.float32)
        groups[bare] = np.array(solid, dtype=np.int32)[_nearest(rows, columns, middles)]
    return groups


def _center_of_mass(instances: InstanceMasks, row: int) -> tuple[float, float]:
    crop, (left, top) = instances.crops[row], instances.corners_xy[row].tolist()
    in_rows, in_columns = np.count_nonzero(crop, axis=1), np.count_nonzero(crop, axis=0)
    area_px = int(in_rows.sum())
    middle_y, middle_x = (float(counts @ np.arange(len(counts))) / area_px for counts in (in_rows, in_columns))
    return middle_y + top, middle_x + left


def _coordinates(pixels: NDArray[np.int64], width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rows, columns = np.divmod(pixels, width)
    return rows.astype(np.float32), columns.astype(np.float32)


def _nearest(
    points_y: NDArray[np.float32], points_x: NDArray[np.float32], centers_yx: NDArray[np.float32]
) -> NDArray[np.int32]:
    """The first of the nearest centres of each point. Distances are rounded to float32 in each step, the root
    included, as in torch: the rounding decides which centres are equally near."""
    if not len(centers_yx):
        return np.full(len(points_y), NO_OWNER, dtype=np.int32)
    centers_y, centers_x = (np.ascontiguousarray(axis) for axis in centers_yx.T)
    if COMPILED:
        return _nearest_compiled(points_y, points_x, centers_y, centers_x)
    nearest = np.zeros(len(points_y), dtype=np.int32)
    least = np.full(len(points_y), np.inf, dtype=np.float32)
    with np.errstate(over="ignore"):  # an offset beyond all sense is infinitely far from every centre
        for center in range(len(centers_yx)):
            down, right = centers_y[center] - points_y, centers_x[center] - points_x
            distance = np.sqrt(down * down + right * right)
            nearest[distance < least] = center
            np.minimum(least, distance, out=least)
    return nearest


@compiled
def _nearest_compiled(
    points_y: NDArray[np.float32],
    points_x: NDArray[np.float32],
    centers_y: NDArray[np.float32],
    centers_x: NDArray[np.float32],
) -> NDArray[np.int32]:
    nearest = np.zeros(points_y.size, dtype=np.int32)
    for point in range(points_y.size):
        least = least_square = np.float32(np.inf)
        for center in range(centers_y.size):
            down, right = centers_y[center] - points_y[point], centers_x[center] - points_x[point]
            square = down * down + right * right
            if square < least_square:  # only then the root can be smaller; it may round to the same
                distance = np.sqrt(square)
                if distance < least:
                    least, least_square, nearest[point] = distance, square, center
    return nearest
