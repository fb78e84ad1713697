"""Watershed: one region per hill, where a hill is a peak that stands out enough."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from segkit.classical.adjacency import DisjointSets, border_pixels
from segkit.classical.regions import relabel


def split_touching(mask: NDArray[np.bool_], depth_px: float = 0.75, min_area_px: int = 1) -> NDArray[np.int32]:
    """Part round blobs that touch: the watershed of the distance to the background.

    mask: (H, W) bool. Two blobs are parted where their neck is narrower, by depth_px in radius, than either of them.
    The image's border is no background: a blob cut by it keeps its shape. A mask without background is one region.
    Returns an (H, W) int32 label map as `relabel` numbers it, all 0 for an empty mask. Raises ValueError where
    mask is not (H, W) bool.
    """
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise ValueError(f"mask must be (H, W) bool, got {mask.shape} {mask.dtype}")
    if mask.all():
        return mask.astype(np.int32)
    distance = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return relabel(watershed(np.asarray(distance, dtype=np.float32), mask, depth_px), min_area_px)


def watershed(relief: NDArray[np.floating], mask: NDArray[np.bool_], depth: float) -> NDArray[np.int32]:
    """Part the mask into the hills of the relief, so that every pixel belongs to the peak it climbs to.

    relief: (H, W) finite numbers, high inside objects. mask: (H, W) bool. The markers are the peaks that stand at
    least `depth` above the highest pass to a higher peak (the h-maxima of Soille 1999, section 6.3.4); a lower hill
    goes to its neighbour beyond its highest pass. Of equally high pixels the later in row order counts as higher, and
    of equally high passes the one to the lower peak is taken first.
    Every hill is connected (8 neighbours). Returns an (H, W) int32 label map as `relabel` numbers it. Raises
    ValueError where the shapes differ.
    """
    if relief.shape != mask.shape or relief.ndim != 2:
        raise ValueError(f"relief and mask must be (H, W) and alike, got {relief.shape} and {mask.shape}")
    if not mask.any():
        return np.zeros(mask.shape, dtype=np.int32)
    summits = _summits(relief, mask)
    hills, peaks = np.zeros(mask.shape, dtype=np.int32), np.unique(summits)
    hills[mask] = np.searchsorted(peaks, summits) + 1
    heights = np.concatenate([[0.0], np.sort(relief[mask], kind="stable")[peaks]])
    sets = DisjointSets(len(heights))
    for one, other, height in _passes(relief, hills):
        lower, higher = sorted((sets.find(one), sets.find(other)), key=lambda hill: (heights[hill], hill))
        if lower != higher and heights[lower] - height < depth:
            sets.join(higher, lower)
    return relabel(sets.names().astype(np.int32)[hills])


def _summits(relief: NDArray[np.floating], mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For every pixel of the mask, in row order, the rank (by relief) of the pixel at the top of its steepest climb."""
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


def _passes(relief: NDArray[np.floating], hills: NDArray[np.int32]) -> list[tuple[int, int, float]]:
    """(hill, hill, height) of the highest pass between every two touching hills, the highest first."""
    labels, height = hills.reshape(-1), relief.reshape(-1)
    ones, others = border_pixels(hills)
    pairs = np.sort(np.stack([labels[ones], labels[others]], axis=1), axis=1)
    levels = np.minimum(height[ones], height[others])
    order = np.lexsort((-levels, pairs[:, 1], pairs[:, 0]))
    pairs, levels = pairs[order], levels[order]
    is_first = np.ones(len(pairs), dtype=np.bool_)
    is_first[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
    pairs, levels = pairs[is_first], levels[is_first]
    highest_first = np.argsort(-levels, kind="stable")
    ordered = np.stack([*pairs[highest_first].T, levels[highest_first]], axis=1).tolist()
    return [(int(one), int(other), level) for one, other, level in ordered]
