"""COCO's layouts as sources: instances and panoptic."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from segkit.formats.base import ORIGINAL_SEGMENTATION, DatasetImage, DatasetReader
from segkit.formats.coco.instances import read_instances
from segkit.formats.coco.panoptic import read_panoptic, read_segmentation
from segkit.formats.coco.tables import IMAGE_KEYS
from segkit.structures import (
    VOID,
    IdRuns,
    PanopticSegmentation,
    Segment,
    rle_to_mask,
    segmentation_to_rle,
)
from segkit.utils import json_fields
from segkit.utils.issues import describe_unused
from segkit.utils.json_fields import Entry

OVERLAPS = ("small_on_top", "later_on_top")  # who has the pixels that several masks hold
UNREAD = "keys of annotations and categories that are not read"


class CocoPanopticReader(DatasetReader):
    """A panoptic JSON, the folder of its PNGs, the folder of its images."""

    format = "coco-panoptic"

    def __init__(self, json: str | Path, masks: str | Path, images: str | Path) -> None:
        """Raises DatasetError as `read_panoptic` does; PNGs and images are opened when they are asked for."""
        file = read_panoptic(json)
        self.root, self.image_root, self.masks = Path(json).parent, Path(images), Path(masks)
        self.categories = file.categories
        self._records = {record.image_id: record for record in file.records}
        self.images = tuple(_image(file.images[record.image_id]) for record in file.records)
        self.info, unwritable = json_fields.split_writable_keys(file.info)
        self.skipped = (
            *describe_unused(file.path, "keys whose value JSON cannot hold (NaN, say)", unwritable),
            *describe_unused(file.path, UNREAD, file.unread),
        )

    def read_segmentation(self, image: DatasetImage) -> PanopticSegmentation:
        record = self._records[image.image_id]
        path = self.masks / record.png_name
        return read_segmentation(path, record.segments_info, self.categories, image.size_hw, image.image_id)


class CocoInstancesReader(DatasetReader):
    """An instances JSON and the folder of its images; every pixel that no mask holds is void."""

    format = "coco-instances"
    has_overlapping_masks = True

    def __init__(self, json: str | Path, images: str | Path, overlap: str = "small_on_top") -> None:
        """overlap: one of OVERLAPS, see `paint_annotations`. Raises DatasetError as `read_instances` does,
        ValueError for another overlap."""
        if overlap not in OVERLAPS:
            raise ValueError(f"overlap must be one of {OVERLAPS}, got {overlap!r}")
        file = read_instances(json)
        self.root, self.image_root, self.overlap = Path(json).parent, Path(images), overlap
        self.categories = file.categories
        self._annotations: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        for annotation in file.annotations:
            self._annotations[annotation["image_id"]].append(annotation)
        self.images = tuple(map(_image, file.images))
        self.info, unwritable = json_fields.split_writable_keys(file.info)
        self.skipped = (
            *describe_unused(file.path, "keys whose value JSON cannot hold (NaN, say)", unwritable),
            *describe_unused(file.path, UNREAD, file.unread),
        )

    def read_segmentation(self, image: DatasetImage) -> PanopticSegmentation:
        return paint_annotations(self.read_annotations(image), image.size_hw, self.overlap)

    def read_annotations(self, image: DatasetImage) -> list[dict[str, Any]]:
        return [_with_rle(one, image.size_hw) for one in self._annotations.get(image.image_id, [])]


def paint_annotations(
    annotations: Sequence[Mapping[str, Any]], size_hw: tuple[int, int], overlap: str = "small_on_top"
) -> PanopticSegmentation:
    """One segment for each COCO annotation (compressed RLE), numbered from 1 in their order.

    Where masks overlap: "small_on_top", the mask of fewer pixels has them, of equal ones the later; "later_on_top",
    the later one. Crowds lie below all others. An annotation of which nothing is left has no segment.
    """
    rles = [annotation["segmentation"] for annotation in annotations]
    small = [-int(coco_mask.area(rle)) if overlap == "small_on_top" else 0 for rle in rles]
    crowd = [bool(annotation.get("iscrowd", 0)) for annotation in annotations]
    segment_ids: NDArray[np.int32] = np.full(size_hw, VOID, dtype=np.int32)
    for row in sorted(range(len(rles)), key=lambda row: (not crowd[row], small[row], row)):
        segment_ids[rle_to_mask(rles[row])] = row + 1  # one mask in memory at a time
    runs = IdRuns.from_map(segment_ids)
    kept_px = runs.areas_px()
    segments = [
        Segment(row, int(annotation["category_id"]), True, kept_px[row], crowd[row - 1])
        for row, annotation in enumerate(annotations, 1)
        if row in kept_px
    ]
    return PanopticSegmentation(segment_ids, tuple(segments))


def _image(entry: Entry) -> DatasetImage:
    size_hw = (entry["height"], entry["width"])
    return DatasetImage(entry["id"], entry["file_name"], size_hw, json_fields.other_keys(entry, IMAGE_KEYS))


def _with_rle(annotation: Entry, size_hw: tuple[int, int]) -> Entry:
    given = annotation["segmentation"]
    if isinstance(given, dict):
        given = {"size": given["size"], "counts": given["counts"]}
    return {**annotation, "segmentation": segmentation_to_rle(given, size_hw), ORIGINAL_SEGMENTATION: given}
