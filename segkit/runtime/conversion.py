"""Predictions in other forms: instances and classes as segments, COCO results, supervision's detections."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.runtime.segments import PredictedSegment
from segkit.structures import (
    THING_CHANNEL,
    VOID,
    CategorySet,
    ImageId,
    InstanceMasks,
    PanopticSegmentation,
    Segment,
    SemanticSpace,
)


def segment_classes(
    channels: NDArray[np.integer[Any]], categories: CategorySet, space: SemanticSpace
) -> PanopticSegmentation:
    """Make a segment of each class; the channel of all things is void.

    Args:
        channels: (H, W) integers, channels of `space`; others are void.
        categories: the dataset's categories.
        space: the meaning of the channels.

    Returns:
        The segmentation with category ids of the dataset; segment_id is the channel + 1.
    """
    segments = []
    for channel, area_px in zip(*(column.tolist() for column in np.unique(channels, return_counts=True)), strict=True):
        if not 0 <= channel < len(space.names):
            continue
        stuff_id, thing_id = int(space.stuff_ids[channel]), int(space.thing_ids[channel])
        isthing = thing_id >= 0
        if isthing or stuff_id != THING_CHANNEL:
            category_id = categories.category_id(thing_id if isthing else stuff_id, isthing=isthing)
            segments.append(Segment(channel + 1, category_id, isthing, area_px))
    has_class = np.isin(channels, [segment.segment_id - 1 for segment in segments])
    segment_ids = np.where(has_class, channels.astype(np.int32) + 1, VOID).astype(np.int32)
    return PanopticSegmentation(segment_ids, tuple(segments))


def order_by_score(instances: InstanceMasks) -> list[int]:
    """Order instances by falling score, equal ones as they come.

    Args:
        instances: of one image.

    Returns:
        Their rows.
    """
    rows: list[int] = np.argsort(-instances.scores, kind="stable").tolist()
    return rows


def build_instance_segment(instances: InstanceMasks, row: int, area_px: int, categories: CategorySet) -> Segment:
    """Make a segment of an instance.

    Args:
        instances: of one image; class_ids are contiguous ids of things.
        row: its row.
        area_px: its pixels.
        categories: the dataset's categories.

    Returns:
        The segment; segment_id is row + 1.
    """
    category_id = categories.category_id(int(instances.class_ids[row]), isthing=True)
    return Segment(row + 1, category_id, True, area_px, score=float(instances.scores[row]), instance_id=row)


def paint_instances(instances: InstanceMasks, categories: CategorySet) -> PanopticSegmentation:
    """Paint instances into one map, those of higher scores over others.

    Args:
        instances: of one image; class_ids are contiguous ids of things.
        categories: the dataset's categories.

    Returns:
        The segmentation; segment_id is the row of the instance + 1. Hidden instances are left out.
    """
    ids = np.zeros(instances.size_hw, dtype=np.int32)
    rows = order_by_score(instances)
    for row in reversed(rows):
        ids[instances.window(row)][instances.crops[row]] = row + 1
    counts = np.bincount(ids.reshape(-1), minlength=len(instances) + 1).tolist()
    segments = [build_instance_segment(instances, row, counts[row + 1], categories) for row in rows if counts[row + 1]]
    return PanopticSegmentation(ids, tuple(segments))


def build_instance_results(
    instances: InstanceMasks, image_id: ImageId, categories: CategorySet
) -> list[dict[str, Any]]:
    """Build COCO results.

    Args:
        instances: of one image; class_ids are contiguous ids of things.
        image_id: the image.
        categories: the dataset's categories.

    Returns:
        {image_id, category_id, bbox [x, y, w, h], score, segmentation (RLE)} each; the boxes are those of the model.
    """
    boxes = instances.boxes_xyxy.astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    category_ids = [categories.category_id(class_id, isthing=True) for class_id in instances.class_ids.tolist()]
    columns = zip(category_ids, boxes.tolist(), instances.scores.tolist(), instances.to_rle(), strict=True)
    return [
        {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score, "segmentation": rle}
        for category_id, box, score, rle in columns
    ]


def build_supervision_detections(segments: Sequence[PredictedSegment], size_hw: tuple[int, int]) -> Any:
    """Build a `supervision.Detections`.

    Args:
        segments: of one image.
        size_hw: (height, width) of the image in pixels.

    Returns:
        See `Prediction.to_supervision`.

    Raises:
        ImportError: the package supervision is not installed.
    """
    try:
        supervision: Any = importlib.import_module("supervision")
    except ModuleNotFoundError as error:
        raise ImportError("to_supervision needs the package supervision: pip install supervision") from error
    masks = np.zeros((len(segments), *size_hw), dtype=np.bool_)
    for mask, segment in zip(masks, segments, strict=True):
        left, top, width, height = segment.box_xywh
        mask[top : top + height, left : left + width] = segment.mask
    boxes = np.array([segment.box_xywh for segment in segments], dtype=np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    scores = [np.nan if segment.score is None else segment.score for segment in segments]
    return supervision.Detections(
        xyxy=boxes,
        mask=masks,
        confidence=np.array(scores, dtype=np.float32),
        class_id=np.array([segment.category_id for segment in segments], dtype=np.int64),
        data={
            "class_name": np.array([segment.name for segment in segments], dtype=str),
            "segment_id": np.array([segment.segment_id for segment in segments], dtype=np.int64),
            "isthing": np.array([segment.isthing for segment in segments], dtype=np.bool_),
        },
    )
