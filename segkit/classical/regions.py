"""Regions that grow: watershed of the distance to the background, graph-based merging, flood fill from seeds."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from segkit.classical.brightness import OBJECTS, find_bright, make_objects_bright
from segkit.classical.components import find_borders, find_root, find_roots, remove_small
from segkit.classical.method import ClassicalMethod
from segkit.classical.thresholding import AdaptiveThreshold, check_window
from segkit.utils.options import check_numbers

FILLED = 255  # in the mask of cv2.floodFill


@dataclass(frozen=True)
class Watershed(ClassicalMethod):
    """Objects above a threshold, separated where they touch: the watershed of the distance to the background.

    The markers are the peaks of the distance that rise `depth_px` above the neck to a higher peak (h-maxima).

    Attributes:
        threshold: "otsu" or "adaptive", the method that finds the objects.
        objects: See `make_objects_bright`.
        gamma: See `make_objects_bright`.
        depth_px: Two objects are separated if the radius of their neck is smaller than both radii by at least this.
        window_px: Of the adaptive threshold.
        offset: Of the adaptive threshold.
    """

    choices = {"objects": OBJECTS, "threshold": ("otsu", "adaptive")}
    grid = {"blur_px": (0.0, 1.0), "gamma": (0.5, 1.0), "depth_px": (0.5, 0.75, 1.0, 1.5), "min_area_px": (10, 20, 40)}
    threshold: str = "otsu"
    objects: str = "auto"
    gamma: float = 1.0
    depth_px: float = 0.75
    window_px: int = 51
    offset: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self, "gamma", "depth_px", least=0)
        check_numbers(self, "offset")
        check_window(self, self.window_px)

    def segment(self, rgb: NDArray[np.uint8]) -> NDArray[np.int32]:
        """See base class."""
        gray = make_objects_bright(rgb, self.objects, self.gamma)
        adaptive = AdaptiveThreshold(window_px=self.window_px, offset=self.offset)
        mask = adaptive.find_objects(gray) if self.threshold == "adaptive" else find_bright(gray)
        return split_touching(mask, self.depth_px)


@dataclass(frozen=True)
class Felzenszwalb(ClassicalMethod):
    """Efficient graph-based segmentation (Felzenszwalb, Huttenlocher 2004), by scikit-image.

    Attributes:
        scale: Higher values give larger regions.
    """

    is_partition = True
    needs_scikit_image = True
    grid = {"blur_px": (0.0, 0.5, 1.0), "scale": (100.0, 200.0, 400.0, 800.0), "min_area_px": (50, 100, 200, 400)}
    scale: float = 100.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self, "scale", least=0)

    def segment(self, rgb: NDArray[np.uint8]) -> NDArray[np.int32]:
        """See base class. Smaller regions than min_area_px are merged by the algorithm itself."""
        from skimage.segmentation import felzenszwalb

        labels = felzenszwalb(rgb, scale=self.scale, sigma=0, min_size=self.min_area_px, channel_axis=-1)
        return np.asarray(labels, dtype=np.int32) + 1


@dataclass(frozen=True)
class FloodFill(ClassicalMethod):
    """Regions that grow from seeds on a square grid, in row order, over pixels of a colour like the seed's.

    Attributes:
        tolerance: Levels of 0..255 by which each channel may differ from the seed's.
        step_px: Distance of the seeds, pixels; a region without a seed is background.
    """

    is_partition = True
    grid = {"blur_px": (1.0, 2.0), "tolerance": (10.0, 20.0, 30.0, 45.0), "min_area_px": (20, 50, 100)}
    tolerance: float = 20.0
    step_px: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self, "tolerance", least=0)
        check_numbers(self, "step_px", least=1)

    def segment(self, rgb: NDArray[np.uint8]) -> NDArray[np.int32]:
        """See base class."""
        first = self.step_px // 2
        rows, columns = (np.arange(min(first, size - 1), size, self.step_px) for size in rgb.shape[:2])
        seeds = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
        return grow_regions(rgb, seeds, self.tolerance, cv2.FLOODFILL_FIXED_RANGE)


def grow_regions(
    rgb: NDArray[np.uint8], seeds: NDArray[np.int64], tolerance: float, kind: int = 0
) -> NDArray[np.int32]:
    """Fill from each seed in turn that no earlier region holds, by OpenCV.

    Args:
        rgb: (H, W, 3) uint8.
        seeds: (N, 2) rows and columns.
        tolerance: Levels of 0..255 by which each channel may differ.
        kind: cv2.FLOODFILL_FIXED_RANGE: from the seed; 0: from the neighbouring pixel.

    Returns:
        (H, W) int32 label map, 0 where no seed leads.
    """
    labels, count = np.zeros(rgb.shape[:2], dtype=np.int32), 0
    mask = np.zeros((rgb.shape[0] + 2, rgb.shape[1] + 2), dtype=np.uint8)  # pixels above 0 are not filled
    flags = 4 | cv2.FLOODFILL_MASK_ONLY | FILLED << 8 | kind
    limits = (float(tolerance),) * 3
    rgb = rgb.copy()  # OpenCV demands an array that it could write to, but fills the mask alone
    for row, column in seeds.tolist():
        if labels[row, column]:
            continue
        _, _, _, (left, top, width, height) = cv2.floodFill(rgb, mask, (column, row), 0, limits, limits, flags)
        filled = mask[top + 1 : top + 1 + height, left + 1 : left + 1 + width]
        count += 1
        labels[top : top + height, left : left + width][filled == FILLED] = count
        filled[filled == FILLED] = 1
    return labels


def split_touching(mask: NDArray[np.bool_], depth_px: float) -> NDArray[np.int32]:
    """Separate round blobs that touch: the watershed of the distance to the background.

    Args:
        mask: (H, W) bool. The border of the image is not background; a mask without background is one region.
        depth_px: See `Watershed`.

    Returns:
        (H, W) int32 label map; all 0 for an empty mask.
    """
    if mask.all():
        return mask.astype(np.int32)
    distance = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return watershed(np.asarray(distance, dtype=np.float32), mask, depth_px)


def watershed(relief: NDArray[np.floating], mask: NDArray[np.bool_], depth: float) -> NDArray[np.int32]:
    """Divide the mask into the hills of the relief: every pixel belongs to the peak that its steepest climb reaches.

    The markers are the peaks at least `depth` above the highest pass to a higher peak (h-maxima; Soille 1999, section
    6.3.4). A lower hill is merged into the neighbour beyond its highest pass. Of equally high pixels, the later one in
    row order counts as higher; of equally high passes, the one to the lower peak comes first. Every hill is connected
    (8 neighbours). scikit-image's `h_maxima` and `watershed` find nearly the same regions in two to six times the time.

    Args:
        relief: (H, W) finite numbers, high inside objects.
        mask: (H, W) bool.
        depth: Height of a peak above its highest pass, in units of the relief.

    Returns:
        (H, W) int32 label map.
    """
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
    return remove_small(find_roots(parents)[hills], 1)


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
    border = find_borders(hills)
    pairs = np.sort(hills.reshape(-1)[border], axis=1)
    levels = relief.reshape(-1)[border].min(axis=1)
    order = np.lexsort((pairs[:, 1], pairs[:, 0], -levels))
    _, firsts = np.unique(pairs[order] @ np.array([hills.size, 1]), return_index=True)  # one number for each pair
    highest = order[np.sort(firsts)]
    return list(zip(pairs[highest].tolist(), levels[highest].tolist(), strict=True))
