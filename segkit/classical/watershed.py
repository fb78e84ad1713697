"""Watershed: one region per hill of a relief."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from segkit.classical.adjacency import DisjointSets, border_pixels
from segkit.classical.regions import relabel


def split_touching(mask: NDArray[np.bool_], depth_px: float = 0.75, min_area_px: int = 1) -> NDArray[np.int32]:
    """Separate round blobs that touch: the watershed of the distance to the background.

    Args:
        mask: (H, W) bool. The border of the image is not background; a mask without background is one region.
        depth_px: Two blobs are separated if the radius of their neck is smaller than both radii by at least this.
        min_area_px: Pixels; smaller regions become background.

    Returns:
        (H, W) int32 label map as `relabel` numbers it; all 0 for an empty mask.

    Raises:
        ValueError: `mask` is not (H, W) bool.
    """
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise ValueError(f"mask must be (H, W) bool, got {mask.shape} {mask.dtype}")
    if mask.all():
        return mask.astype(np.int32)
    distance = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return relabel(watershed(np.asarray(distance, dtype=np.float32), mask, depth_px), min_area_px)


def watershed(relief: NDArray[np.floating], mask: NDArray[np.bool_], depth: float) -> NDArray[np.int32]:
    """Divide the mask into the hills of the relief: every pixel belongs to the peak that its steepest climb reaches.

    The markers are the peaks at least `depth` above the highest pass to a higher peak (h-maxima; Soille 1999, section
    6.3.4). A lower hill is merged into the neighbour beyond its highest pass. Of equally high pixels, the later one in
    row order counts as higher; of equally high passes, the one to the lower peak comes first. Every hill is connected
    (8 neighbours).

    Args:
        relief: (H, W) finite numbers, high inside objects.
        mask: (H, W) bool.
        depth: Height of a peak above its highest pass, in units of the relief.

    Returns:
        (H, W) int32 label map as `relabel` numbers it.

    Raises:
        ValueError: The shapes differ.
    """
    if relief.shape != mask.shape or relief.ndim != 2:
        raise ValueError(f"relief and mask must have the same shape (H, W), got {relief.shape} and {mask.shape}")
    if not mask.any():
        return np.zeros(mask.shape, dtype=np.int32)
    summits = _climb(relief, mask)
    hills, peaks = np.zeros(mask.shape, dtype=np.int32), np.unique(summits)
    hills[mask] = np.searchsorted(peaks, summits) + 1
    heights = np.concatenate([[0.0], np.sort(relief[mask], kind="stable")[peaks]])
    sets = DisjointSets(len(heights))
    for a, b, height in _list_passes(relief, hills):
        lower, higher = sorted((sets.find(a), sets.find(b)), key=lambda hill: (heights[hill], hill))
        if lower != higher and heights[lower] - height < depth:
            sets.join(higher, lower)
    return relabel(sets.roots().astype(np.int32)[hills])


def _climb(relief: NDArray[np.floating], mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For every pixel of the mask, in row order: rank (by relief) of the pixel at the end of its steepest climb."""
    order = np.argsort(relief[mask], kind="stable")
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order))
    ranked = np.full(mask.shape, -1.0)
    ranked[mask] = ranks
    uphill = cv2.dilate(ranked, np.ones((3, 3), dtype=np.uint8), borderType=cv2.BORDER_REPLICATE)[mask]
    climb = uphill.astype(np.int64)[order]  # by rank: the rank of the highest of the pixel and its neighbours
    while not np.array_equal(climb, climb[climb]):
        climb = climb[climb]
    return climb[ranks]


def _list_passes(relief: NDArray[np.floating], hills: NDArray[np.int32]) -> list[tuple[int, int, float]]:
    """(hill, hill, height) of the highest pass between each pair of touching hills, the highest first."""
    border = np.stack(border_pixels(hills), axis=1)
    pairs = np.sort(hills.reshape(-1)[border], axis=1)
    levels = relief.reshape(-1)[border].min(axis=1)
    order = np.lexsort((-levels, pairs[:, 1], pairs[:, 0]))
    pairs, levels = pairs[order], levels[order]
    is_first = np.ones(len(pairs), dtype=np.bool_)
    is_first[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
    pairs, levels = pairs[is_first], levels[is_first]
    highest_first = np.argsort(-levels, kind="stable")
    ordered = np.stack([*pairs[highest_first].T, levels[highest_first]], axis=1).tolist()
    return [(int(a), int(b), level) for a, b, level in ordered]
