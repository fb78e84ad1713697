"""Detectron2's semantic predictions, sem_seg_predictions.json: one mask per image and class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.formats.coco.masks import find_mask_fault
from segkit.structures import rle_to_mask, segmentation_to_rle
from segkit.utils import json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.files import load_json
from segkit.utils.text import abbreviate

NO_LABEL = -1

Masks = Mapping[int, Any]  # category_id -> COCO segmentation


def read_semantic_predictions(path: str | Path, on_issue: Callable[[DatasetError], None]) -> Mapping[str, Masks]:
    """Read a sem_seg_predictions.json as a whole into memory; the masks are not decoded.

    Args:
        path: JSON list of {file_name, category_id, segmentation}.
        on_issue: Gets the errors of single entries, which are then left out.

    Returns:
        file_name of the image -> category_id -> COCO segmentation of the class.

    Raises:
        DatasetError: The file is missing, not JSON, or of another kind.
    """
    path = Path(path)
    content = load_json(path)
    if type(content) is not list:
        expected = "Detectron2's list of {file_name, category_id, segmentation}"
        raise DatasetError(f"expected {expected}, got a {type(content).__name__}", where=path)
    predictions: dict[str, dict[int, Any]] = {}
    for index, entry in enumerate(json_fields.check_objects(content, "the list", path)):
        if "image_id" in entry and "file_name" not in entry:
            expected = "Detectron2's sem_seg_predictions.json is expected, whose entries have file_name"
            raise DatasetError(f"this is a list of instance results (they have image_id), {expected}", where=path)
        try:
            where = f"{path}, entry {index}"
            name: str = json_fields.get_field(entry, "file_name", json_fields.TEXT, where)
            category_id: int = json_fields.get_field(entry, "category_id", json_fields.INTEGER, where)
            segmentation = json_fields.get_field(entry, "segmentation", json_fields.OBJECT, where)
            if category_id in predictions.setdefault(name, {}):
                raise DatasetError(f"expected one mask per class of {name}, got two of {category_id}", where=where)
            predictions[name][category_id] = segmentation
        except DatasetError as error:
            on_issue(error)
    return predictions


def merge_class_masks(
    masks: Masks, channel_by_category: Mapping[int, int], size_hw: tuple[int, int], where: object
) -> NDArray[np.int32]:
    """Merge the masks of an image's classes into one map.

    Args:
        masks: category_id -> COCO segmentation.
        channel_by_category: category_id -> channel.
        size_hw: Height and width of the image in pixels.
        where: File and image, for messages.

    Returns:
        (H, W) int32 channels.

    Raises:
        DatasetError: A category has no channel, a mask is invalid or not of `size_hw`, or a pixel is in no mask or in
            two.
    """
    labels = np.full(size_hw, NO_LABEL, dtype=np.int32, order="F")
    covered_px = 0
    for category_id, segmentation in masks.items():
        if category_id not in channel_by_category:
            known = abbreviate(sorted(channel_by_category))
            raise DatasetError(f"expected a category_id among {known}, got {category_id}", where=where)
        if fault := find_mask_fault(segmentation, size_hw):
            raise DatasetError(fault, where=f"{where}, category {category_id}")
        mask = rle_to_mask(segmentation_to_rle(segmentation, size_hw))
        covered_px += np.count_nonzero(mask)
        labels[mask] = channel_by_category[category_id]
    uncovered_px = np.count_nonzero(labels == NO_LABEL)
    if uncovered_px or covered_px > labels.size:
        surplus_px = covered_px - labels.size
        got = f"{uncovered_px} pixels are in none" if uncovered_px else f"{surplus_px} pixels are in a second one"
        raise DatasetError(f"expected every pixel in one class's mask, {got}", where=where)
    return labels
