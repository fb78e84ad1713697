"""Regions by clustering: k-means in colour and position, superpixels that are merged, mean shift."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from segkit.classical.components import connected_components, find_borders, find_root, find_roots, remove_small
from segkit.classical.method import ClassicalMethod
from segkit.classical.regions import grow_regions
from segkit.utils.options import check_numbers

KMEANS_STOP = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 20, 0.5)  # iterations; Lab units
KMEANS_SEED = 0  # of OpenCV's generator
KMEANS_TRIES = 1


@dataclass(frozen=True)
class KMeans(ClassicalMethod):
    """Connected regions of one cluster of colours (CIE Lab) and positions, by OpenCV's k-means with k-means++ centres.

    Attributes:
        clusters: Number of clusters, at least 1.
        position: Units of Lab from one end of the image's longer side to the other; 0: colours alone.
    """

    is_partition = True
    grid = {"clusters": (4, 6, 10), "position": (0.0, 20.0, 60.0), "min_area_px": (20, 50, 100)}
    clusters: int = 6
    position: float = 20.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self, "clusters", least=1)
        check_numbers(self, "position", least=0)

    def segment(self, rgb: NDArray[np.uint8]) -> NDArray[np.int32]:
        """See base class."""
        lab, (height, width) = to_lab(rgb), rgb.shape[:2]
        if height * width == 1:  # OpenCV would take the row for a column
            return np.ones((1, 1), dtype=np.int32)
        positions = np.indices((height, width)).transpose(1, 2, 0) * (self.position / max(height, width))
        features = np.concatenate([lab, positions], axis=2).reshape(-1, 5).astype(np.float32)
        cv2.setRNGSeed(KMEANS_SEED)
        count = min(self.clusters, len(features))
        _, labels, _ = cv2.kmeans(features, count, None, KMEANS_STOP, KMEANS_TRIES, cv2.KMEANS_PP_CENTERS)  # type: ignore[call-overload]
        return connected_components(labels.reshape(height, width) + 1)


@dataclass(frozen=True)
class SlicMerging(ClassicalMethod):
    """SLIC superpixels (Achanta et al. 2012), by scikit-image; then touching ones with similar colours are merged.

    Attributes:
        segments: Approximate number of superpixels.
        compactness: Weight of the position against the colour: higher values give squarer superpixels.
        max_distance: Units of CIE Lab: the largest distance of the mean colours of regions that are merged.
    """

    is_partition = True
    needs_scikit_image = True
    grid = {
        "segments": (200, 400),
        "compactness": (5.0, 10.0),
        "max_distance": (5.0, 10.0, 15.0),
        "min_area_px": (20, 100),
    }
    segments: int = 300
    compactness: float = 10.0
    max_distance: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self, "segments", least=1)
        check_numbers(self, "compactness", "max_distance", least=0)

    def segment(self, rgb: NDArray[np.uint8]) -> NDArray[np.int32]:
        """See base class."""
        from skimage.segmentation import slic

        superpixels = slic(rgb, self.segments, compactness=self.compactness, start_label=1, channel_axis=-1)
        return merge_similar(np.asarray(superpixels, dtype=np.int32), to_lab(rgb), self.max_distance)


@dataclass(frozen=True)
class MeanShift(ClassicalMethod):
    """Mean shift in colour and position (Comaniciu, Meer 2002), by OpenCV; neighbours of like colours are a region.

    Attributes:
        radius_px: Of the window in the image, pixels.
        radius_color: Of the window in RGB, levels of 0..255.
        tolerance: Levels of 0..255 by which neighbouring pixels of a region may differ, after the shift.
    """

    is_partition = True
    grid = {"radius_px": (4.0, 8.0), "radius_color": (15.0, 30.0), "tolerance": (1.0, 3.0), "min_area_px": (20, 50)}
    radius_px: float = 8.0
    radius_color: float = 20.0
    tolerance: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self, "radius_px", "radius_color", "tolerance", least=0)

    def segment(self, rgb: NDArray[np.uint8]) -> NDArray[np.int32]:
        """See base class."""
        shifted = np.asarray(cv2.pyrMeanShiftFiltering(rgb, self.radius_px, self.radius_color), dtype=np.uint8)
        every_pixel = np.indices(rgb.shape[:2]).reshape(2, -1).T
        return grow_regions(shifted, every_pixel, self.tolerance)


def to_lab(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Convert an image to CIE Lab, whose Euclidean distances match perception.

    Args:
        rgb: (H, W, 3) uint8 RGB.

    Returns:
        (H, W, 3) float32, L in 0..100.
    """
    return np.asarray(cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), dtype=np.float32)


def merge_similar(label_map: NDArray[np.int32], image: NDArray[np.floating], max_distance: float) -> NDArray[np.int32]:
    """Merge touching regions with similar mean colours, the most similar pair first.

    Each pair of touching regions (4 neighbours) is visited once, in the order of the distances before any merge, ties
    by label. It is merged if the mean colours of the regions that the two belong to by then are similar. scikit-image's
    `merge_hierarchical` computes distances again after each merge: about as many regions in 20 times the time.

    Args:
        label_map: (H, W) int32, 0 = background, which is never merged.
        image: (H, W, C) numbers, e.g. Lab.
        max_distance: Largest Euclidean distance between the mean colours of regions that are merged.

    Returns:
        (H, W) int32 label map.
    """
    numbered = remove_small(label_map, 1)
    count = int(numbered.max(initial=0)) + 1
    channels = image.reshape(numbered.size, image.shape[2]).astype(np.float64)
    area_px = np.bincount(numbered.reshape(-1), minlength=count).astype(np.float64)
    sums = np.stack([np.bincount(numbered.reshape(-1), channel, count) for channel in channels.T], axis=1)
    parents = list(range(count))
    for pair in _list_nearest_first(numbered, sums / np.maximum(area_px, 1)[:, None]):
        a, b = (find_root(parents, region) for region in pair)
        if a != b and np.linalg.norm(sums[a] / area_px[a] - sums[b] / area_px[b]) <= max_distance:
            parents[b] = a
            sums[a] += sums[b]
            area_px[a] += area_px[b]
    return remove_small(find_roots(parents)[numbered], 1)


def _list_nearest_first(numbered: NDArray[np.int32], means: NDArray[np.float64]) -> list[list[int]]:
    """Pairs of touching regions, the smallest distance of their means first."""
    pairs = numbered.reshape(-1)[find_borders(numbered, connectivity=4)]
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    distances = np.linalg.norm(means[pairs[:, 0]] - means[pairs[:, 1]], axis=1)
    ordered: list[list[int]] = pairs[np.argsort(distances, kind="stable")].tolist()
    return ordered
