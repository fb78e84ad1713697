"""Regions that grow by merging: similar neighbours, and the hills of a relief (watershed)."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from segkit.classical.regions import check_image, check_label_map, relabel

HALF_OF_NEIGHBOURS = {4: ((0, 1), (1, 0)), 8: ((0, 1), (1, 0), (1, 1), (1, -1))}  # (down, right); each pair once


def merge_similar(label_map: NDArray[np.int32], image: NDArray[np.number], max_distance: float) -> NDArray[np.int32]:
    """Merge touching regions with similar mean colours, the most similar pair first.

    Each pair of touching regions (4 neighbours) is visited once, in the order of the distances before any merge, ties
    by label. It is merged if the mean colours of the regions that the two belong to by then are similar.

    Args:
        label_map: (H, W) int32, 0 = background, which is never merged.
        image: (H, W) or (H, W, C) numbers, e.g. Lab, whose Euclidean distances match perception.
        max_distance: Largest Euclidean distance between the mean colours of regions that are merged.

    Returns:
        (H, W) int32 label map as `relabel` numbers it; an empty map for an empty map.

    Raises:
        ValueError: The sizes differ.
    """
    check_label_map(label_map, "label_map")
    if image.shape[:2] != label_map.shape or image.ndim not in (2, 3):
        raise ValueError(f"image must be (H, W) or (H, W, C) for a {label_map.shape} label map, got {image.shape}")
    numbered = relabel(label_map)
    count = int(numbered.max(initial=0)) + 1
    channels = image.reshape(numbered.size, image.shape[2] if image.ndim == 3 else 1).astype(np.float64)
    area_px = np.bincount(numbered.reshape(-1), minlength=count).astype(np.float64)
    sums = np.stack([np.bincount(numbered.reshape(-1), channel, count) for channel in channels.T], axis=1)
    parents = list(range(count))
    for pair in _list_nearest_first(numbered, sums / np.maximum(area_px, 1)[:, None]):
        a, b = (find_root(parents, region) for region in pair)
        if a != b and np.linalg.norm(sums[a] / area_px[a] - sums[b] / area_px[b]) <= max_distance:
            parents[b] = a
            sums[a] += sums[b]
            area_px[a] += area_px[b]
    return relabel(_find_roots(parents)[numbered])


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
    check_image(mask, np.bool_, "mask")
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
    parents = list(range(len(heights)))
    for pair, height in _list_passes(relief, hills):
        lower, higher = sorted((find_root(parents, hill) for hill in pair), key=lambda hill: (heights[hill], hill))
        if lower != higher and heights[lower] - height < depth:
            parents[lower] = higher
    return relabel(_find_roots(parents)[hills])


def find_root(parents: list[int], region: int) -> int:
    """The root of the set of a region (union-find), which is its own parent; the path to it is shortened in place."""
    while parents[region] != region:
        parents[region] = parents[parents[region]]
        region = parents[region]
    return region


def _find_roots(parents: list[int]) -> NDArray[np.int32]:
    return np.array([find_root(parents, region) for region in range(len(parents))], dtype=np.int32)


def border_pixels(label_map: NDArray[np.int32], connectivity: int = 8) -> NDArray[np.int64]:
    """(N, 2) flat indices of all neighbouring pixels of different regions; background (0) is not a region."""
    height, width = label_map.shape
    flat = np.arange(height * width, dtype=np.int64).reshape(height, width)
    pairs = []
    for down, right in HALF_OF_NEIGHBOURS[connectivity]:
        here = slice(0, height - down), slice(max(0, -right), width - max(0, right))
        there = slice(down, height), slice(max(0, right), width - max(0, -right))
        differ = (label_map[here] != label_map[there]) & (label_map[here] != 0) & (label_map[there] != 0)
        pairs.append(np.stack([flat[here][differ], flat[there][differ]], axis=1))
    return np.concatenate(pairs)


def _list_nearest_first(numbered: NDArray[np.int32], means: NDArray[np.float64]) -> list[list[int]]:
    """Pairs of touching regions, the smallest distance of their means first."""
    pairs = numbered.reshape(-1)[border_pixels(numbered, connectivity=4)]
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    distances = np.linalg.norm(means[pairs[:, 0]] - means[pairs[:, 1]], axis=1)
    ordered: list[list[int]] = pairs[np.argsort(distances, kind="stable")].tolist()
    return ordered


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


def _list_passes(relief: NDArray[np.floating], hills: NDArray[np.int32]) -> list[tuple[list[int], float]]:
    """(two hills, height) of the highest pass between each pair of touching hills, the highest first."""
    border = border_pixels(hills)
    pairs = np.sort(hills.reshape(-1)[border], axis=1)
    levels = relief.reshape(-1)[border].min(axis=1)
    order = np.lexsort((pairs[:, 1], pairs[:, 0], -levels))
    _, firsts = np.unique(pairs[order] @ np.array([hills.size, 1]), return_index=True)  # one number for each pair
    highest = order[np.sort(firsts)]
    return list(zip(pairs[highest].tolist(), levels[highest].tolist(), strict=True))
