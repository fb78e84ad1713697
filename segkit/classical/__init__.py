"""Segmentation without training: baselines, and first annotations to correct.

Functions take numpy images and return label maps, (H, W) int32, 0 = background, 1..N = regions. `to_instances` converts
a label map to InstanceMasks, which the other packages use.
"""

from segkit.classical.clustering import (
    kmeans_lab,
    local_mean_regions,
    multi_otsu_thresholds,
    otsu_levels,
    otsu_regions,
    otsu_threshold,
)
from segkit.classical.edges import canny_edges, edge_regions, enclosed_regions
from segkit.classical.merging import merge_similar, split_touching, watershed
from segkit.classical.regions import connected_components, relabel, to_instances

__all__ = [
    "canny_edges",
    "connected_components",
    "edge_regions",
    "enclosed_regions",
    "kmeans_lab",
    "local_mean_regions",
    "merge_similar",
    "multi_otsu_thresholds",
    "otsu_levels",
    "otsu_regions",
    "otsu_threshold",
    "relabel",
    "split_touching",
    "to_instances",
    "watershed",
]
