"""A model's outputs with the category ids of the dataset."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from segkit.evaluation.semantic import argmax_channels
from segkit.runtime.conversion import build_instance_results, segment_classes
from segkit.structures import (
    CategorySet,
    IdRuns,
    InstanceMasks,
    PanopticSegmentation,
    Segment,
    SemanticSpace,
)


def get_panoptic_prediction(output: dict[str, Any], categories: CategorySet) -> PanopticSegmentation:
    """Get a model's panoptic prediction; segments without a pixel are left out.

    Args:
        output: a model's output dict with "panoptic_seg": (ids (H, W), segments_info), category_id contiguous.
        categories: the dataset's categories.

    Returns:
        The segmentation with category ids of the dataset.

    Raises:
        ValueError: segments_info is None.
    """
    ids, segments_info = output["panoptic_seg"]
    if segments_info is None:
        raise ValueError("panoptic_seg must come with its segments_info, got None")
    segment_ids = ids.cpu().numpy().astype(np.int32, copy=False)
    runs = IdRuns.from_map(segment_ids)
    areas_px = runs.areas_px()
    segments = [
        Segment(
            segment["id"],
            categories.category_id(segment["category_id"], segment["isthing"]),
            segment["isthing"],
            areas_px.get(segment["id"], 0),
            score=segment.get("score"),
            instance_id=segment.get("instance_id"),
        )
        for segment in segments_info
    ]
    return PanopticSegmentation.from_runs(runs, tuple(s for s in segments if s.area_px))


def get_semantic_prediction(
    output: dict[str, Any], categories: CategorySet, space: SemanticSpace
) -> PanopticSegmentation:
    """Get a model's semantic prediction as segments, one for each class; the channel of all things is void.

    Args:
        output: a model's output dict with "sem_seg": (C, H, W) logits.
        categories: the dataset's categories.
        space: the C semantic channels.

    Returns:
        The segmentation with category ids of the dataset.
    """
    return segment_classes(argmax_channels(output["sem_seg"]).cpu().numpy(), categories, space)


def get_semantic_channels(output: dict[str, Any]) -> np.ndarray:
    """Get a model's semantic prediction as channels.

    Args:
        output: a model's output dict with "sem_seg": (C, H, W) logits.

    Returns:
        (H, W) channel of the highest logit, uint8 if there are at most 256, otherwise int32.
    """
    on_accelerator = "panoptic_seg" in output and output["panoptic_seg"][0].device.type != "cpu"
    if "head_outputs" in output and not on_accelerator:  # the fusion has found them without logits of full size
        channels = output["head_outputs"].semantic.channels
    else:
        channels = argmax_channels(output["sem_seg"]).cpu().numpy()
    is_small = not channels.size or channels.max() <= np.iinfo(np.uint8).max
    return channels.astype(np.uint8 if is_small else np.int32)


def get_instance_masks(output: dict[str, Any], size_hw: tuple[int, int]) -> InstanceMasks | None:
    """Get a model's instances as crops.

    Args:
        output: a model's output dict with "instance_masks" or Detectron2's "instances".
        size_hw: height and width of the image in pixels.

    Returns:
        The instances, class_ids being thing contiguous ids; None if the model predicts no masks.
    """
    if "instance_masks" in output:
        crops: InstanceMasks = output["instance_masks"]
        return crops
    instances = output["instances"].to(torch.device("cpu"))
    if not instances.has("pred_masks"):
        return None
    masks = instances.pred_masks
    full = masks.numpy().astype(np.bool_) if len(instances) else np.zeros((0, *size_hw), dtype=np.bool_)
    return InstanceMasks.from_full(
        full, instances.pred_boxes.tensor.numpy(), instances.scores.numpy(), instances.pred_classes.numpy()
    )


def build_coco_results(
    output: dict[str, Any], image_id: Any, size_hw: tuple[int, int], categories: CategorySet
) -> list[Any]:
    """Build COCO results from a model's instances.

    Args:
        output: a model's output dict with "instance_masks" or Detectron2's "instances".
        image_id: the image.
        size_hw: height and width of the image in pixels.
        categories: the dataset's categories.

    Returns:
        {image_id, category_id, bbox [x, y, w, h], score} each, with segmentation (RLE) if the model predicts masks.
    """
    masks = get_instance_masks(output, size_hw)
    if masks is not None:
        return build_instance_results(masks, image_id, categories)
    instances = output["instances"].to(torch.device("cpu"))
    boxes = instances.pred_boxes.tensor.double().numpy()
    boxes[:, 2:] -= boxes[:, :2]
    category_ids = [categories.category_id(class_id, isthing=True) for class_id in instances.pred_classes.tolist()]
    columns = zip(category_ids, boxes.tolist(), instances.scores.tolist(), strict=True)
    return [
        {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score}
        for category_id, box, score in columns
    ]
