"""What a panoptic segmentation implies: a semantic map, COCO instances."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from segkit.structures import (
    IGNORE_LABEL,
    MAX_SEGMENT_ID,
    PanopticSegmentation,
    SemanticSpace,
    crop_to_rle,
)


def relabel(segment_ids: NDArray[np.int32], values: Mapping[int, int], dtype: DTypeLike) -> NDArray[Any]:
    """(H, W) map of `values[segment_id]`, 0 for every id that `values` lacks, in `dtype`.

    Raises ValueError for an id outside [0, MAX_SEGMENT_ID], in the map or in `values`.
    """
    low = min(values, default=0)
    high = max(values, default=0)
    if segment_ids.size:
        low, high = min(low, int(segment_ids.min())), max(high, int(segment_ids.max()))
    if low < 0 or high > MAX_SEGMENT_ID:
        raise ValueError(f"segment ids must be in [0, {MAX_SEGMENT_ID}], got {low}..{high}")
    # Dense even for sparse ids: the system backs with memory only those pages of zeros that are touched.
    lookup = np.zeros(high + 1, dtype=dtype)
    lookup[[*values.keys()]] = [*values.values()]
    return lookup.take(segment_ids)


def build_semantic_map(segmentation: PanopticSegmentation, space: SemanticSpace) -> NDArray[np.uint8]:
    """(H, W) uint8 channels of `space`, `IGNORE_LABEL` for void; things, crowds too, go to their category's channel.

    Segments have the dataset's category ids. Raises ValueError where the space has channels that a uint8 beside
    `IGNORE_LABEL` cannot name, or lacks a category. Rule: detectron2 datasets/prepare_panoptic_fpn.py.
    """
    if len(space.names) > IGNORE_LABEL:
        raise ValueError(f"space must have at most {IGNORE_LABEL} channels, got {len(space.names)}")
    unknown = {s.category_id for s in segmentation.segments} - space.channel_of.keys()
    if unknown:
        raise ValueError(f"segments must have category ids of the space, got {sorted(unknown)}")
    # One more than the channel: 0, what void gets, then wraps around to IGNORE_LABEL.
    values = {s.segment_id: space.channel_of[s.category_id] + 1 for s in segmentation.segments}
    channels: NDArray[np.uint8] = relabel(segmentation.segment_ids, values, np.uint8)
    return np.subtract(channels, 1, out=channels)


def build_coco_annotations(image_id: int | str, segmentation: PanopticSegmentation) -> list[dict[str, Any]]:
    """COCO instance annotations of the things, crowds with iscrowd = 1, in the order of the segments, without `id`.

    Boxes are tight (x, y, width, height), masks compressed RLE. Segments without a pixel are left out. Void and stuff
    give nothing (panopticapi converters/panoptic2detection_coco_format.py, with things only).
    """
    found = segmentation.runs.extents()
    annotations = []
    for segment in segmentation.segments:
        if not segment.isthing or segment.segment_id not in found:
            continue
        area_px, (left, top, width, height) = found[segment.segment_id]
        crop = segmentation.segment_ids[top : top + height, left : left + width] == segment.segment_id
        annotations.append(
            {
                "image_id": image_id,
                "category_id": int(segment.category_id),
                "iscrowd": int(segment.iscrowd),
                "area": area_px,
                "bbox": [left, top, width, height],
                "segmentation": crop_to_rle(crop, (left, top), _size(segmentation)),
            }
        )
    return annotations


def _size(segmentation: PanopticSegmentation) -> tuple[int, int]:
    height, width = segmentation.segment_ids.shape
    return height, width
