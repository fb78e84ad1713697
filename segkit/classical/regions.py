"""Label maps: connected components, consecutive numbers, and conversion to instances."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segkit.structures import IdRuns, InstanceMasks


def connected_components(
    mask: NDArray[np.bool_] | NDArray[np.int32], min_area_px: int = 1, connectivity: int = 8
) -> NDArray[np.int32]:
    """Number the connected components of a mask, or of each label of a label map, in the order of their first pixel.

    Args:
        mask: (H, W) bool or integer, 0 = background.
        min_area_px: Pixels; smaller components become background.
        connectivity: 8 joins pixels that touch at a corner, 4 does not.

    Returns:
        (H, W) int32 label map, components 1..N; all 0 for an empty mask.

    Raises:
        ValueError: Another shape, dtype or connectivity.
    """
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity must be 4 or 8, got {connectivity}")
    check_label_map(mask, "mask")
    components, count = np.zeros(mask.shape, dtype=np.int32), 0
    for label in np.unique(mask[mask != 0]):
        numbers, part = cv2.connectedComponents((mask == label).astype(np.uint8), None, connectivity, cv2.CV_32S)
        components += np.where(part > 0, part + count, 0)
        count += numbers - 1
    return relabel(components, min_area_px)


def relabel(label_map: NDArray[np.int32], min_area_px: int = 1) -> NDArray[np.int32]:
    """Number the regions 1..N in the order of their first pixel, row by row.

    Args:
        label_map: (H, W) bool or integer, 0 = background.
        min_area_px: Pixels; smaller regions become background.

    Returns:
        (H, W) int32 label map.

    Raises:
        ValueError: Another shape or dtype, or a negative label.
    """
    check_label_map(label_map, "label_map")
    labels, first, inverse, area_px = np.unique(label_map, return_index=True, return_inverse=True, return_counts=True)
    large = np.flatnonzero((labels != 0) & (area_px >= min_area_px))
    numbers = np.zeros(len(labels), dtype=np.int32)
    numbers[large[np.argsort(first[large])]] = np.arange(1, len(large) + 1)
    return numbers[inverse].reshape(label_map.shape)


def to_instances(label_map: NDArray[np.int32], class_id: int) -> InstanceMasks:
    """Convert the regions to instances of one class with score 1.0, in the order of their labels.

    Args:
        label_map: (H, W) integers, 0 = background; labels need not be consecutive.
        class_id: Class of all instances.

    Returns:
        The instances; boxes_xyxy are tight, right and bottom exclusive. No instance without a region.

    Raises:
        ValueError: Another shape or dtype, or a negative label.
    """
    check_label_map(label_map, "label_map")
    extents = IdRuns.from_map(label_map.astype(np.int32)).extents()
    boxes = np.array([extent.bbox_xywh for extent in extents.values()], dtype=np.int64).reshape(-1, 4)
    corners, sizes = boxes[:, :2], boxes[:, 2:]
    labelled_boxes = zip(extents, boxes.tolist(), strict=True)
    crops = tuple(label_map[y : y + h, x : x + w] == label for label, (x, y, w, h) in labelled_boxes)
    return InstanceMasks(
        size_hw=(label_map.shape[0], label_map.shape[1]),
        boxes_xyxy=np.concatenate([corners, corners + sizes], axis=1).astype(np.float32),
        scores=np.ones(len(boxes), dtype=np.float32),
        class_ids=np.full(len(boxes), class_id, dtype=np.int64),
        corners_xy=corners,
        crops=crops,
    )


def check_label_map(label_map: NDArray[np.bool_] | NDArray[np.int32], argument: str) -> None:
    """Raise a ValueError that names the argument if it is not (H, W) bool or integers of at least 0."""
    if label_map.ndim != 2 or label_map.dtype.kind not in "bui":
        raise ValueError(f"{argument} must be (H, W) bool or integer, got {label_map.shape} {label_map.dtype}")
    if label_map.size and label_map.min() < 0:
        raise ValueError(f"{argument} must have no negative label, got {label_map.min()}")


def check_image(image: NDArray[Any], dtype: type[np.generic], argument: str) -> None:
    """Raise a ValueError that names the argument if it is not (H, W) of this dtype."""
    if image.ndim != 2 or image.dtype != dtype:
        raise ValueError(f"{argument} must be (H, W) {np.dtype(dtype)}, got {image.shape} {image.dtype}")
