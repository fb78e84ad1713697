"""COCO's layouts as sources: instances and panoptic."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.formats import coco_instances, coco_panoptic
from segkit.formats.source import Source, SourceImage
from segkit.structures import (
    VOID,
    PanopticSegmentation,
    Segment,
    rle_to_mask,
    segmentation_to_rle,
)

OVERLAPS = ("small_on_top", "later_on_top")  # who has the pixels that several masks hold


class CocoPanopticSource(Source):
    """A panoptic JSON, the folder of its PNGs, the folder of its images."""

    layout = "coco-panoptic"

    def __init__(self, json: str | Path, masks: str | Path, images: str | Path) -> None:
        """Raises DatasetError as `coco_panoptic.read` does; PNGs and images are opened when they are asked for."""
        file = coco_panoptic.read(json)
        self.root, self.pictures, self.masks = Path(json).parent, Path(images), Path(masks)
        self.categories = file.categories
        self._records = {record.image_id: record for record in file.records}
        self.images = tuple(SourceImage(r.image_id, r.file_name, (r.height, r.width)) for r in file.records)

    def segmentation(self, image: SourceImage) -> PanopticSegmentation:
        record = self._records[image.image_id]
        path = self.masks / record.png_name
        return coco_panoptic.read_segmentation(
            path, record.segments_info, self.categories, image.size_hw, image.image_id
        )


class CocoInstancesSource(Source):
    """An instances JSON and the folder of its images; every pixel that no mask holds is void."""

    layout = "coco-instances"
    overlaps = True

    def __init__(self, json: str | Path, images: str | Path, overlap: str = "small_on_top") -> None:
        """overlap: one of OVERLAPS, see `panoptic_of_annotations`. Raises DatasetError as `coco_instances.read` does,
        ValueError for another overlap."""
        if overlap not in OVERLAPS:
            raise ValueError(f"overlap must be one of {OVERLAPS}, got {overlap!r}")
        file = coco_instances.read(json)
        self.root, self.pictures, self.overlap = Path(json).parent, Path(images), overlap
        self.categories = file.categories
        self._annotations: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        for annotation in file.annotations:
            self._annotations[annotation["image_id"]].append(annotation)
        self.images = tuple(SourceImage(i["id"], i["file_name"], (i["height"], i["width"])) for i in file.images)

    def segmentation(self, image: SourceImage) -> PanopticSegmentation:
        return panoptic_of_annotations(self.annotations(image), image.size_hw, self.overlap)

    def annotations(self, image: SourceImage) -> list[dict[str, Any]]:
        found = self._annotations.get(image.image_id, [])
        return [{**a, "segmentation": segmentation_to_rle(a["segmentation"], image.size_hw)} for a in found]


def panoptic_of_annotations(
    annotations: Sequence[Mapping[str, Any]], size_hw: tuple[int, int], overlap: str = "small_on_top"
) -> PanopticSegmentation:
    """One segment for each COCO annotation (compressed RLE), numbered from 1 in their order.

    Where masks overlap: "small_on_top", the mask of fewer pixels has them, of equal ones the later; "later_on_top",
    the later one. Crowds lie below all others. An annotation of which nothing is left has no segment.
    """
    masks = [rle_to_mask(annotation["segmentation"]) for annotation in annotations]
    areas = [int(np.count_nonzero(mask)) for mask in masks]
    small = [-area if overlap == "small_on_top" else 0 for area in areas]
    crowd = [bool(annotation.get("iscrowd", 0)) for annotation in annotations]
    segment_ids: NDArray[np.int32] = np.full(size_hw, VOID, dtype=np.int32)
    for row in sorted(range(len(masks)), key=lambda row: (not crowd[row], small[row], row)):
        segment_ids[masks[row]] = row + 1
    kept_px = np.bincount(segment_ids.ravel(), minlength=len(masks) + 1).tolist()
    segments = [
        Segment(row, int(annotation["category_id"]), True, kept_px[row], crowd[row - 1])
        for row, annotation in enumerate(annotations, 1)
        if kept_px[row]
    ]
    return PanopticSegmentation(segment_ids, tuple(segments))
