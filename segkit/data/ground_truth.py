"""The ground truth of a dataset's images: panoptic map, semantic map, instances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data.detection_utils import read_image
from detectron2.structures import BoxMode
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from segkit.data.dataset import Dataset, Record
from segkit.data.loaders.readers import find_image
from segkit.formats.coco import paint_annotations
from segkit.formats.coco import read_segmentation as read_panoptic_png
from segkit.formats.derive import build_coco_annotations, build_semantic_map
from segkit.formats.image_io import is_deep
from segkit.formats.pixel_limit import open_pillow
from segkit.structures import (
    IGNORE_LABEL,
    THING_CHANNEL,
    VOID,
    CategorySet,
    PanopticSegmentation,
    Segment,
    segmentation_to_rle,
)
from segkit.utils.errors import DatasetError

MAP_KEYS = {"sem_seg_file_name", "pan_seg_file_name"}  # of records that name their maps themselves
DEEP_REMEDY = "Detectron2 reads 8-bit label maps alone: use one of segkit's formats (docs/datasets.md)"


class GroundTruth:
    """The ground truth of a dataset, read image by image.

    The last segmentation is kept, since several evaluators ask for it in turn.

    Args:
        dataset: any loaded dataset.
        thing_channels: "one" or "per_class", see `CategorySet.build_semantic_space`; None: the dataset's default.

    Attributes:
        dataset: the dataset.
        space: the semantic channels.
        records: image_id -> record, in the order of the dataset.
    """

    def __init__(self, dataset: Dataset, thing_channels: str | None = None) -> None:
        self.dataset = dataset
        self.space = dataset.categories.build_semantic_space(thing_channels or dataset.default_thing_channels)
        self.records = {record["image_id"]: record for record in dataset.records}
        self._last: tuple[Any, PanopticSegmentation] | None = None

    def read_segmentation(self, record: Record) -> PanopticSegmentation:
        """Read the panoptic segmentation of a record.

        Args:
            record: one of this dataset.

        Returns:
            The segmentation with category ids of the dataset.

        Raises:
            DatasetError: the files are missing or contradict each other.
        """
        if self._last is None or self._last[0] != record["image_id"]:
            self._last = record["image_id"], read_segmentation(record, self.dataset.categories)
        return self._last[1]

    def read_semantic_map(self, record: Record) -> NDArray[np.uint8]:
        """Read the semantic channel of each pixel.

        Args:
            record: one of this dataset.

        Returns:
            (H, W) uint8 channels of `space`, IGNORE_LABEL where void.

        Raises:
            DatasetError: the files are missing or contradict each other.
        """
        return build_semantic_map(self.read_segmentation(record), self.space)

    def read_annotations(self, record: Record) -> list[dict[str, Any]]:
        """Read the instances of a record: those that its files hold, which may overlap, or those of its segments.

        Args:
            record: one of this dataset.

        Returns:
            COCO annotations {category_id, bbox [x, y, w, h], area, iscrowd, segmentation (RLE)}, with category ids of
            the dataset.

        Raises:
            DatasetError: the files are missing or contradict each other.
        """
        if "reader" in record:
            reader, image = find_image(record["reader"], record["image_id"])
            if reader.has_overlapping_masks:
                return reader.read_annotations(image)
        elif "annotations" in record:
            size_hw = record["height"], record["width"]
            return [_from_detectron2(a, size_hw, self.dataset.categories) for a in record["annotations"]]
        return build_coco_annotations(record["image_id"], self.read_segmentation(record))


def has_segmentation(record: Record) -> bool:
    """Check if a record has a panoptic or semantic map.

    Args:
        record: a Detectron2 dataset dict.

    Returns:
        False if it has annotations only, or no ground truth.
    """
    return record["reader"].has_map if "reader" in record else bool({*record} & MAP_KEYS)


def read_segmentation(record: Record, categories: CategorySet) -> PanopticSegmentation:
    """Read the panoptic segmentation of a record.

    Args:
        record: a record with a map, see `has_segmentation`.
        categories: the dataset's categories.

    Returns:
        The segmentation with category ids of the dataset.

    Raises:
        DatasetError: the files are missing or contradict each other.
    """
    if "reader" not in record:
        return _read_own_maps(record, categories)
    reader, image = find_image(record["reader"], record["image_id"])
    return reader.read_segmentation(image)


def _read_own_maps(record: Record, categories: CategorySet) -> PanopticSegmentation:
    """Read the maps that a Detectron2 record names itself."""
    size_hw = record["height"], record["width"]
    if "pan_seg_file_name" in record:
        path, segments = record["pan_seg_file_name"], record["segments_info"]
        return read_panoptic_png(path, segments, categories, size_hw, record["image_id"])
    labels = _read_label_map(record)
    if "annotations" not in record:
        return _build_segments(labels, {label: label for label in categories.isthing_by_id}, record)
    # Labels of stuff, with the instances painted over them. Pixels of the label of all things stay void without one.
    offset = record["sem_seg_offset"]
    stuff = {
        contiguous_id - offset: category_id for category_id, contiguous_id in categories.stuff_contiguous_ids.items()
    }
    if offset == 0:
        labels[labels == THING_CHANNEL] = IGNORE_LABEL
    annotations = [_from_detectron2(annotation, size_hw, categories) for annotation in record["annotations"]]
    instances = paint_annotations(annotations, size_hw)
    labels[instances.segment_ids != VOID] = IGNORE_LABEL
    background = _build_segments(labels, stuff, record)
    first = len(annotations)
    moved = np.where(background.segment_ids == VOID, instances.segment_ids, background.segment_ids + first)
    segments = tuple(replace(s, segment_id=s.segment_id + first) for s in background.segments)
    return PanopticSegmentation(moved.astype(np.int32), instances.segments + segments)


def _read_label_map(record: Record) -> NDArray[np.int32]:
    """Read a label map as Detectron2 does."""
    path = record["sem_seg_file_name"]
    try:
        with Path(path).open("rb") as file, open_pillow(file, path) as image:
            deep = is_deep(image)
        if deep:  # Detectron2 would clip them
            raise DatasetError("expected an 8-bit label map, got one of more bits", where=path, remedy=DEEP_REMEDY)
        labels = read_image(path, "L")[..., 0].astype(np.int32)
    except (OSError, ValueError, SyntaxError) as error:
        raise DatasetError(f"the label map cannot be read: {' '.join(str(error).split())}", where=path) from error
    if labels.shape != (record["height"], record["width"]):
        raise DatasetError(f"expected {record['height']} x {record['width']} pixels, got {labels.shape}", where=path)
    return labels


def _build_segments(labels: NDArray[np.int32], category_ids: Mapping[int, int], record: Record) -> PanopticSegmentation:
    """One segment for each label, with segment_id = label + 1."""
    path = record["sem_seg_file_name"]
    values, areas_px = np.unique(labels[labels != IGNORE_LABEL], return_counts=True)
    if unknown := [label for label in values.tolist() if label not in category_ids]:
        first_invalid = max(category_ids) + 1
        problem = f"expected labels below {first_invalid} or {IGNORE_LABEL}, got {unknown[:5]}"
        raise DatasetError(problem, where=path)
    areas = zip(values.tolist(), areas_px.tolist(), strict=True)
    segments = tuple(Segment(label + 1, category_ids[label], False, area_px) for label, area_px in areas)
    return PanopticSegmentation(np.where(labels == IGNORE_LABEL, VOID, labels + 1).astype(np.int32), segments)


def _from_detectron2(annotation: Record, size_hw: tuple[int, int], categories: CategorySet) -> dict[str, Any]:
    box = list(BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYWH_ABS))
    entry = {
        "category_id": categories.category_id(annotation["category_id"], isthing=True),
        "bbox": box,
        "area": float(box[2] * box[3]),
        "iscrowd": int(annotation.get("iscrowd", 0)),
    }
    if "segmentation" not in annotation:
        return entry
    rle = segmentation_to_rle(annotation["segmentation"], size_hw)
    return {**entry, "area": float(coco_mask.area(rle)), "segmentation": rle}
