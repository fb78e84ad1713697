"""A map of segment ids as the outputs of Detectron2: segments_info, and its things as instances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from numpy.typing import NDArray

from segkit.modeling.lazy_dict import LazyValue
from segkit.structures import IdRuns, InstanceMasks, Segment


class Meaning(NamedTuple):
    """What a segment id stands for.

    Attributes:
        isthing: Whether its class is a thing.
        contiguous_id: The class, among the things or the stuff.
        score: Of a thing, [0, 1].
    """

    isthing: bool
    contiguous_id: int
    score: float | None = None


def build_segments(segment_ids: NDArray[np.int32], meanings: Mapping[int, Meaning]) -> list[Segment]:
    """List the segments of a map, in the order of their meanings. The ids of things are the rows of instances plus 1.

    Args:
        segment_ids: (H, W) int32 segment ids, 0 = void.
        meanings: Segment id -> what it stands for; ids without a pixel in the map are left out.

    Returns:
        The segments, with contiguous ids as category ids.
    """
    areas_px = IdRuns.from_map(segment_ids).areas_px()
    return [
        Segment(
            segment_id,
            meaning.contiguous_id,
            meaning.isthing,
            areas_px[segment_id],
            score=meaning.score if meaning.isthing else None,
            instance_id=segment_id - 1 if meaning.isthing else None,
        )
        for segment_id, meaning in meanings.items()
        if segment_id in areas_px
    ]


def build_map_outputs(
    segment_ids: NDArray[np.int32], segments: Sequence[Segment], device: torch.device | str = "cpu"
) -> dict[str, Any]:
    """Build the outputs of a model for a map.

    Args:
        segment_ids: (H, W) int32 segment ids, 0 = void.
        segments: Its segments, with contiguous ids as category ids, and scores of things.
        device: Device of the tensors.

    Returns:
        "panoptic_seg", and as values that are computed when they are read "instances" and "instance_masks".
    """
    masks = cache(lambda: build_map_masks(segment_ids, [segment for segment in segments if segment.isthing]))
    return {
        "instances": LazyValue(lambda: to_instances(masks(), device)),
        "instance_masks": LazyValue(masks),
        "panoptic_seg": (torch.from_numpy(segment_ids).to(device), detectron2_segments_info(segments)),
    }


def build_map_masks(segment_ids: NDArray[np.int32], things: Sequence[Segment]) -> InstanceMasks:
    """Cut segments out of a map.

    Args:
        segment_ids: (H, W) int32 segment ids.
        things: The segments, each with at least a pixel; one without a score has the score 1.

    Returns:
        An instance for each segment, in their order. Boxes enclose the pixels.
    """
    extents = IdRuns.from_map(segment_ids).extents() if things else {}
    boxes = np.array([extents[s.segment_id].bbox_xywh for s in things], dtype=np.int64).reshape(-1, 4)
    corners, sizes = boxes[:, :2], boxes[:, 2:]
    windows = zip(things, boxes.tolist(), strict=True)
    return InstanceMasks(
        size_hw=(segment_ids.shape[0], segment_ids.shape[1]),
        boxes_xyxy=np.concatenate([corners, corners + sizes], axis=1).astype(np.float32),
        scores=np.array([1.0 if s.score is None else s.score for s in things], dtype=np.float32),
        class_ids=np.array([s.category_id for s in things], dtype=np.int64),
        corners_xy=corners,
        crops=tuple(segment_ids[y : y + h, x : x + w] == s.segment_id for s, (x, y, w, h) in windows),
    )


def to_instances(masks: InstanceMasks, device: torch.device | str = "cpu") -> Instances:
    """Convert to Detectron2's instances.

    Args:
        masks: Instances as box crops.
        device: Device of the tensors.

    Returns:
        The same instances with pred_boxes, scores, pred_classes and pred_masks (N, H, W) bool.
    """
    instances = Instances(masks.size_hw)
    instances.pred_boxes = Boxes(torch.from_numpy(masks.boxes_xyxy).to(device))
    instances.scores = torch.from_numpy(masks.scores).to(device)
    instances.pred_classes = torch.from_numpy(masks.class_ids).to(device)
    instances.pred_masks = torch.from_numpy(masks.to_full()).to(device)
    return instances


def detectron2_segments_info(segments: Sequence[Segment]) -> list[dict[str, Any]]:
    """Convert to Detectron2's segments_info: things with score and instance_id, stuff with its area."""
    infos: list[dict[str, Any]] = []
    for s in segments:
        if s.isthing:
            fields = {"score": s.score, "category_id": s.category_id, "instance_id": s.instance_id}
        else:
            fields = {"category_id": s.category_id, "area": s.area_px}
        infos.append({"id": s.segment_id, "isthing": s.isthing, **fields})
    return infos
