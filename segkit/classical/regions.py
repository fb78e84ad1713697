"""Label maps: connected pieces, consecutive numbers, and the way to the rest of the package."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from segkit.structures import IdRuns, InstanceMasks


def connected_components(
    mask: NDArray[np.bool_] | NDArray[np.int32], min_area_px: int = 1, connectivity: int = 8
) -> NDArray[np.int32]:
    """Number the connected pieces of a mask, or of each label of a label map, from 1 in the order of their first pixel.

    mask: (H, W) bool or integer, 0 = background. Pieces below min_area_px become background. connectivity: 8 joins
    pixels that touch at a corner, 4 does not. Returns an (H, W) int32 label map, all 0 where there is nothing.
    Raises ValueError for another shape, dtype or connectivity.
    """
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity must be 4 or 8, got {connectivity}")
    check_label_map(mask, "mask")
    pieces, found = np.zeros(mask.shape, dtype=np.int32), 0
    for label in np.unique(mask[mask != 0]):
        count, of_label = cv2.connectedComponents((mask == label).astype(np.uint8), None, connectivity, cv2.CV_32S)
        pieces += np.where(of_label > 0, of_label + found, 0)
        found += count - 1
    return relabel(pieces, min_area_px)


def relabel(label_map: NDArray[np.int32], min_area_px: int = 1) -> NDArray[np.int32]:
    """Number the regions 1..N in the order of their first pixel, row by row; those below min_area_px become 0."""
    check_label_map(label_map, "label_map")
    labels, first, inverse, area_px = np.unique(label_map, return_index=True, return_inverse=True, return_counts=True)
    kept = np.flatnonzero((labels != 0) & (area_px >= min_area_px))
    numbers = np.zeros(len(labels), dtype=np.int32)
    numbers[kept[np.argsort(first[kept])]] = np.arange(1, len(kept) + 1)
    return numbers[inverse].reshape(label_map.shape)


def to_instances(label_map: NDArray[np.int32], class_id: int) -> InstanceMasks:
    """The regions as instances of one class with score 1.0, in the order of their labels.

    label_map: (H, W) integers, 0 = background, labels need not be consecutive. boxes_xyxy are tight, right and bottom
    exclusive. No region gives no instance. Raises ValueError for another shape, dtype or negative labels.
    """
    check_label_map(label_map, "label_map")
    boxes = {label: found.bbox_xywh for label, found in IdRuns.from_map(label_map.astype(np.int32)).extents().items()}
    corners = np.array([box[:2] for box in boxes.values()], dtype=np.int64).reshape(-1, 2)
    sizes = np.array([box[2:] for box in boxes.values()], dtype=np.int64).reshape(-1, 2)
    crops = tuple(label_map[y : y + h, x : x + w] == label for label, (x, y, w, h) in boxes.items())
    return InstanceMasks(
        size_hw=(label_map.shape[0], label_map.shape[1]),
        boxes_xyxy=np.concatenate([corners, corners + sizes], axis=1).astype(np.float32),
        scores=np.ones(len(boxes), dtype=np.float32),
        class_ids=np.full(len(boxes), class_id, dtype=np.int64),
        corners_xy=corners,
        crops=crops,
    )


def check_label_map(label_map: NDArray[np.bool_] | NDArray[np.int32], argument: str) -> None:
    """ValueError naming the argument where it is not (H, W) bool or integers of at least 0."""
    if label_map.ndim != 2 or label_map.dtype.kind not in "bui":
        raise ValueError(f"{argument} must be (H, W) bool or integer, got {label_map.shape} {label_map.dtype}")
    if label_map.size and label_map.min() < 0:
        raise ValueError(f"{argument} must have no negative label, got {label_map.min()}")
