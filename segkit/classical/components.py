"""Label maps: connected components, small regions, borders of regions, sets of regions."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

HALF_OF_NEIGHBOURS = {4: ((0, 1), (1, 0)), 8: ((0, 1), (1, 0), (1, 1), (1, -1))}  # (down, right); each pair once


def connected_components(
    label_map: NDArray[np.bool_] | NDArray[np.integer], connectivity: int = 8
) -> NDArray[np.int32]:
    """Number the connected components of each label; OpenCV numbers those of one mask.

    Args:
        label_map: (H, W) bool or integer, 0 = background; few labels, since each takes a pass over the image.
        connectivity: 8 joins pixels that touch at a corner, 4 does not.

    Returns:
        (H, W) int32 label map, components 1..N.
    """
    components, count = np.zeros(label_map.shape, dtype=np.int32), 0
    for label in np.unique(label_map[label_map != 0]):
        numbers, part = cv2.connectedComponents((label_map == label).astype(np.uint8), None, connectivity, cv2.CV_32S)
        components += np.where(part > 0, part + count, 0)
        count += numbers - 1
    return components


def remove_small(label_map: NDArray[np.int32], min_area_px: int) -> NDArray[np.int32]:
    """Number the regions 1..N in the order of their labels.

    Args:
        label_map: (H, W) int32, at least 0, 0 = background.
        min_area_px: Pixels; smaller regions become background.

    Returns:
        (H, W) int32 label map.
    """
    areas_px = np.bincount(label_map.reshape(-1))
    stays = areas_px >= max(min_area_px, 1)
    stays[:1] = False
    numbers: NDArray[np.int32] = np.where(stays, np.cumsum(stays), 0).astype(np.int32)
    return numbers[label_map]


def find_borders(label_map: NDArray[np.int32], connectivity: int = 8) -> NDArray[np.int64]:
    """Find all neighbouring pixels of different regions; background (0) is no region.

    Args:
        label_map: (H, W) int32.
        connectivity: 4 or 8.

    Returns:
        (N, 2) int64 flat indices of both pixels.
    """
    height, width = label_map.shape
    flat = np.arange(height * width, dtype=np.int64).reshape(height, width)
    pairs = []
    for down, right in HALF_OF_NEIGHBOURS[connectivity]:
        here = slice(0, height - down), slice(max(0, -right), width - max(0, right))
        there = slice(down, height), slice(max(0, right), width - max(0, -right))
        differ = (label_map[here] != label_map[there]) & (label_map[here] != 0) & (label_map[there] != 0)
        pairs.append(np.stack([flat[here][differ], flat[there][differ]], axis=1))
    return np.concatenate(pairs)


def find_root(parents: list[int], region: int) -> int:
    """Find the set of a region (union-find); the path to it is shortened in place.

    Args:
        parents: Of each region another one of its set; the root is its own.
        region: Index.

    Returns:
        The root of its set.
    """
    while parents[region] != region:
        parents[region] = parents[parents[region]]
        region = parents[region]
    return region


def find_roots(parents: list[int]) -> NDArray[np.int32]:
    """Find the sets of all regions.

    Args:
        parents: See `find_root`.

    Returns:
        (N,) int32, the root of each.
    """
    return np.array([find_root(parents, region) for region in range(len(parents))], dtype=np.int32)
