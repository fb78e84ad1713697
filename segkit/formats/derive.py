"""Semantic maps and COCO annotations, derived from panoptic segmentations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from segkit.structures import IGNORE_LABEL, MAX_SEGMENT_ID, PanopticSegmentation, SemanticSpace, crop_to_rle


def relabel(segment_ids: NDArray[np.integer[Any]], values: Mapping[int, int], dtype: DTypeLike) -> NDArray[Any]:
    """Replace the ids of a map by values.

    Args:
        segment_ids: (H, W) integers in [0, MAX_SEGMENT_ID].
        values: segment_id -> value; other ids become 0.
        dtype: of the result.

    Returns:
        (H, W) values.

    Raises:
        ValueError: an id of the map or of `values` is outside [0, MAX_SEGMENT_ID].
    """
    low, high = min(values, default=0), max(values, default=0)
    if segment_ids.size:
        low, high = min(low, int(segment_ids.min())), max(high, int(segment_ids.max()))
    if low < 0 or high > MAX_SEGMENT_ID:
        raise ValueError(f"segment ids must be in [0, {MAX_SEGMENT_ID}], got {low}..{high}")
    # A dense table is cheap even for sparse ids: pages of zeros that are never touched take no memory.
    lookup = np.zeros(high + 1, dtype=dtype)
    lookup[[*values.keys()]] = [*values.values()]
    return lookup.take(segment_ids)


def build_semantic_map(segmentation: PanopticSegmentation, space: SemanticSpace) -> NDArray[np.uint8]:
    """Draw the semantic channel of each pixel, as detectron2's datasets/prepare_panoptic_fpn.py does.

    Things, crowds too, go to the channel of their category.

    Args:
        segmentation: segments with category ids of the dataset.
        space: the semantic channels, at most `IGNORE_LABEL`.

    Returns:
        (H, W) uint8 channels, `IGNORE_LABEL` for void.

    Raises:
        ValueError: the space has too many channels for uint8, or lacks a category.
    """
    if len(space.names) > IGNORE_LABEL:
        raise ValueError(f"space must have at most {IGNORE_LABEL} channels, got {len(space.names)}")
    unknown = {s.category_id for s in segmentation.segments} - space.channel_by_category.keys()
    if unknown:
        raise ValueError(f"segments must have category ids of the space, got {sorted(unknown)}")
    # The table holds channel + 1: void stays 0, which wraps around to IGNORE_LABEL below.
    values = {s.segment_id: space.channel_by_category[s.category_id] + 1 for s in segmentation.segments}
    channels: NDArray[np.uint8] = relabel(segmentation.segment_ids, values, np.uint8)
    return np.subtract(channels, 1, out=channels)


def build_coco_annotations(
    image_id: int | str, segmentation: PanopticSegmentation, with_scores: bool = False
) -> list[dict[str, Any]]:
    """Describe the things as COCO annotations, as panopticapi's converters/panoptic2detection_coco_format.py does.

    Stuff, void, and segments without a pixel are left out.

    Args:
        image_id: id of the image.
        segmentation: segments with category ids of the dataset.
        with_scores: whether annotations of segments with a score have the key `score`.

    Returns:
        Annotations in the order of the segments, without `id`: tight boxes (x, y, width, height), masks as compressed
        RLE, iscrowd = 1 for crowds.
    """
    height, width = segmentation.segment_ids.shape
    extents = segmentation.runs.extents()
    annotations = []
    for segment in segmentation.segments:
        if not segment.isthing or segment.segment_id not in extents:
            continue
        area_px, (left, top, box_width, box_height) = extents[segment.segment_id]
        crop = segmentation.segment_ids[top : top + box_height, left : left + box_width] == segment.segment_id
        annotation: dict[str, Any] = {
            "image_id": image_id,
            "category_id": int(segment.category_id),
            "iscrowd": int(segment.iscrowd),
            "area": area_px,
            "bbox": [left, top, box_width, box_height],
            "segmentation": crop_to_rle(crop, (left, top), (height, width)),
        }
        if with_scores and segment.score is not None:
            annotation["score"] = float(segment.score)
        annotations.append(annotation)
    return annotations
