"""Semantic label maps: folders of single-channel PNGs, and Detectron2's sem_seg_predictions.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.formats.coco import find_mask_fault
from segkit.structures import rle_to_mask, segmentation_to_rle
from segkit.utils import files, json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.json_fields import Entry
from segkit.utils.text import abbreviate

NO_LABEL = -1

Masks = Mapping[int, Any]  # category_id -> COCO segmentation


def read_semantic_predictions(path: str | Path, on_issue: Callable[[DatasetError], None]) -> Mapping[str, Masks]:
    """Detectron2's sem_seg_predictions.json: by file_name of the image, by category_id, the class's mask.

    The masks are not decoded; the file is in memory as a whole. tell: gets the errors of single entries, which are then
    left out. Raises DatasetError where the file is missing, not JSON, or of another kind.
    """
    path = Path(path)
    content = files.load_json(path)
    if type(content) is not list:
        expected = "Detectron2's list of {file_name, category_id, segmentation}"
        raise DatasetError(f"expected {expected}, got a {type(content).__name__}", where=path)
    results: dict[str, dict[int, Any]] = {}
    for index, entry in enumerate(json_fields.check_objects(content, "the list", path)):
        _refuse_instances(entry, path)
        try:
            where = f"{path}, entry {index}"
            name: str = json_fields.get_field(entry, "file_name", json_fields.TEXT, where)
            category_id: int = json_fields.get_field(entry, "category_id", json_fields.INTEGER, where)
            segmentation = json_fields.get_field(entry, "segmentation", json_fields.OBJECT, where)
            if category_id in results.setdefault(name, {}):
                raise DatasetError(f"expected one mask per class of {name}, got two of {category_id}", where=where)
            results[name][category_id] = segmentation
        except DatasetError as error:
            on_issue(error)
    return results


def build_semantic_map(
    masks: Masks, channel_of: Mapping[int, int], size_hw: tuple[int, int], where: object
) -> NDArray[np.integer[Any]]:
    """(H, W) int32 channels, `channel_of[category_id]` of the mask that each pixel lies in.

    Raises DatasetError where a category has no channel, a mask is not sound or not of size_hw, or a pixel is in no mask
    or in two.
    """
    labels = np.full(size_hw, NO_LABEL, dtype=np.int32, order="F")
    covered_px = 0
    for category_id, segmentation in masks.items():
        if category_id not in channel_of:
            known = abbreviate(sorted(channel_of))
            raise DatasetError(f"expected a category_id among {known}, got {category_id}", where=where)
        if fault := find_mask_fault(segmentation, size_hw):
            raise DatasetError(fault, where=f"{where}, category {category_id}")
        mask = rle_to_mask(segmentation_to_rle(segmentation, size_hw))
        covered_px += np.count_nonzero(mask)
        labels[mask] = channel_of[category_id]
    bare_px = np.count_nonzero(labels == NO_LABEL)
    if bare_px or covered_px > labels.size:
        got = f"{bare_px} pixels are in none" if bare_px else f"{covered_px - labels.size} pixels are in a second one"
        raise DatasetError(f"expected every pixel in one class's mask, {got}", where=where)
    return labels


def _refuse_instances(entry: Entry, path: Path) -> None:
    if "image_id" in entry and "file_name" not in entry:
        expected = "Detectron2's sem_seg_predictions.json is expected, whose entries have file_name"
        raise DatasetError(f"this is a list of instance results (they have image_id), {expected}", where=path)
