"""Which regions touch, and merging those that look alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segkit.classical.regions import check_label_map, relabel

Pixels = NDArray[np.int64]
HALF_OF_NEIGHBOURS = {4: ((0, 1), (1, 0)), 8: ((0, 1), (1, 0), (1, 1), (1, -1))}  # (down, right); each pair once


class DisjointSets:
    """Regions 0..count-1 that can be joined; each set is named by one of its regions."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def find(self, region: int) -> int:
        """The name of the region's set."""
        while self._parents[region] != region:
            self._parents[region] = self._parents[self._parents[region]]
            region = self._parents[region]
        return region

    def join(self, kept: int, joined: int) -> None:
        """Make set `joined` a part of set `kept`, which keeps its name."""
        self._parents[joined] = kept

    def names(self) -> NDArray[np.int64]:
        """The name of every region's set, (count,) int64."""
        return np.array([self.find(region) for region in range(len(self._parents))], dtype=np.int64)


def border_pixels(label_map: NDArray[np.int32], connectivity: int = 8) -> tuple[Pixels, Pixels]:
    """Flat indices of all pairs of neighbouring pixels that belong to two regions; background (0) is none."""
    height, width = label_map.shape
    flat = np.arange(height * width, dtype=np.int64).reshape(height, width)
    ones, others = [], []
    for down, right in HALF_OF_NEIGHBOURS[connectivity]:
        here = slice(0, height - down), slice(max(0, -right), width - max(0, right))
        there = slice(down, height), slice(max(0, right), width - max(0, -right))
        differ = (label_map[here] != label_map[there]) & (label_map[here] != 0) & (label_map[there] != 0)
        ones.append(flat[here][differ])
        others.append(flat[there][differ])
    return np.concatenate(ones), np.concatenate(others)


def merge_similar(label_map: NDArray[np.int32], image: NDArray[np.number], max_distance: float) -> NDArray[np.int32]:
    """Merge touching regions whose mean colours lie within max_distance, the most alike first.

    label_map: (H, W) int32, 0 = background, which takes no part. image: (H, W) or (H, W, C) numbers, e.g. Lab, where
    Euclidean distance is what the eye sees. Pairs (of 4-neighbours) are taken once, by their distance at the start,
    ties by label; each is merged where the means of the regions it has become by then lie within max_distance.
    Returns `relabel`'s numbers; an empty map gives an empty map. Raises ValueError where the sizes differ.
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
    for one, other in _nearest_first(numbered, sums / np.maximum(area_px, 1)[:, None]):
        kept, joined = sets.find(one), sets.find(other)
        if kept != joined and _distance(sums[kept] / area_px[kept], sums[joined] / area_px[joined]) <= max_distance:
            sets.join(kept, joined)
            sums[kept] += sums[joined]
            area_px[kept] += area_px[joined]
    return relabel(sets.names().astype(np.int32)[numbered])


def _nearest_first(numbered: NDArray[np.int32], means: NDArray[np.float64]) -> list[list[int]]:
    labels = numbered.reshape(-1)
    ones, others = border_pixels(numbered, connectivity=4)
    pairs = np.unique(np.sort(np.stack([labels[ones], labels[others]], axis=1), axis=1), axis=0)
    distances = np.linalg.norm(means[pairs[:, 0]] - means[pairs[:, 1]], axis=1)
    ordered: list[list[int]] = pairs[np.argsort(distances, kind="stable")].tolist()
    return ordered


def _distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(one - other))
