"""Find touching regions and merge similar ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segkit.classical.regions import check_label_map, relabel

Pixels = NDArray[np.int64]
HALF_OF_NEIGHBOURS = {4: ((0, 1), (1, 0)), 8: ((0, 1), (1, 0), (1, 1), (1, -1))}  # (down, right); each pair once


class DisjointSets:
    """Union-find over the regions 0..count-1; the root of a set is one of its regions.

    Args:
        count: Number of regions.
    """

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def find(self, region: int) -> int:
        """The root of the region's set."""
        while self._parents[region] != region:
            self._parents[region] = self._parents[self._parents[region]]
            region = self._parents[region]
        return region

    def join(self, root: int, other_root: int) -> None:
        """Merge the set of `other_root` into the set of `root`, which stays the root."""
        self._parents[other_root] = root

    def roots(self) -> NDArray[np.int64]:
        """(count,) int64, the root of every region's set."""
        return np.array([self.find(region) for region in range(len(self._parents))], dtype=np.int64)


def border_pixels(label_map: NDArray[np.int32], connectivity: int = 8) -> tuple[Pixels, Pixels]:
    """Flat indices of all pairs of neighbouring pixels of different regions; background (0) is not a region."""
    height, width = label_map.shape
    flat = np.arange(height * width, dtype=np.int64).reshape(height, width)
    first, second = [], []
    for down, right in HALF_OF_NEIGHBOURS[connectivity]:
        here = slice(0, height - down), slice(max(0, -right), width - max(0, right))
        there = slice(down, height), slice(max(0, right), width - max(0, -right))
        differ = (label_map[here] != label_map[there]) & (label_map[here] != 0) & (label_map[there] != 0)
        first.append(flat[here][differ])
        second.append(flat[there][differ])
    return np.concatenate(first), np.concatenate(second)


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
    sets = DisjointSets(count)
    for pair in _list_nearest_first(numbered, sums / np.maximum(area_px, 1)[:, None]):
        a, b = map(sets.find, pair)
        if a != b and np.linalg.norm(sums[a] / area_px[a] - sums[b] / area_px[b]) <= max_distance:
            sets.join(a, b)
            sums[a] += sums[b]
            area_px[a] += area_px[b]
    return relabel(sets.roots().astype(np.int32)[numbered])


def _list_nearest_first(numbered: NDArray[np.int32], means: NDArray[np.float64]) -> list[list[int]]:
    """Pairs of touching regions, the smallest distance of their means first."""
    pairs = numbered.reshape(-1)[np.stack(border_pixels(numbered, connectivity=4), axis=1)]
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    distances = np.linalg.norm(means[pairs[:, 0]] - means[pairs[:, 1]], axis=1)
    ordered: list[list[int]] = pairs[np.argsort(distances, kind="stable")].tolist()
    return ordered
