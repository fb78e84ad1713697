"""What a record says is true: its panoptic segmentation and its instances, from whichever files it names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from detectron2.data.detection_utils import read_image
from detectron2.structures import BoxMode
from PIL import Image
from pycocotools import mask as coco_mask

from segkit.data.dataset import Dataset, Record
from segkit.data.loaders.readers import SOURCE_FORMAT, read_source
from segkit.formats import cache as annotation_cache
from segkit.formats import cityscapes, coco, derive
from segkit.formats.image_io import is_deep
from segkit.structures import IGNORE_LABEL, VOID, CategorySet, PanopticSegmentation, Segment, segmentation_to_rle
from segkit.utils.errors import DatasetError

DEEP_REMEDY = "Detectron2 reads 8-bit label maps alone: use one of segkit's formats (docs/datasets.md)"


def _read_coco(record: Record, categories: CategorySet) -> PanopticSegmentation:
    return coco.read_segmentation(
        record["pan_seg_file_name"],
        record["segments_info"],
        categories,
        size_hw=(record["height"], record["width"]),
        image_id=record["image_id"],
    )


def _read_cityscapes(record: Record, categories: CategorySet) -> PanopticSegmentation:
    return cityscapes.read_segmentation(record["pan_seg_file_name"], size_hw=(record["height"], record["width"]))


def _read_semantic(record: Record, categories: CategorySet) -> PanopticSegmentation:
    """A label map as Detectron2 reads it: each label is a category_id, and one segment with segment_id = label + 1."""
    path = record["pan_seg_file_name"]
    try:
        with Image.open(path) as image:
            deep = is_deep(image)
        if deep:  # Detectron2 would clip them
            raise DatasetError("expected an 8-bit label map, got one of more bits", where=path, remedy=DEEP_REMEDY)
        labels = read_image(path, "L")[..., 0].astype(np.int32)
    except (OSError, ValueError, SyntaxError) as error:
        raise DatasetError(f"the label map cannot be read: {' '.join(str(error).split())}", where=path) from error
    if labels.shape != (record["height"], record["width"]):
        raise DatasetError(f"expected {record['height']} x {record['width']} pixels, got {labels.shape}", where=path)
    found = np.unique(labels[labels != IGNORE_LABEL], return_counts=True)
    counts = dict(zip(*(column.tolist() for column in found), strict=True))
    if unknown := [label for label in counts if label not in categories]:
        raise DatasetError(f"expected labels below {len(categories)} or {IGNORE_LABEL}, got {unknown[:5]}", where=path)
    segments = tuple(Segment(label + 1, label, False, area_px) for label, area_px in counts.items())
    return PanopticSegmentation(np.where(labels == IGNORE_LABEL, VOID, labels + 1).astype(np.int32), segments)


PANOPTIC_READERS: dict[str, Callable[[Record, CategorySet], PanopticSegmentation]] = {
    "coco_panoptic": _read_coco,
    "cityscapes": _read_cityscapes,
    "semantic": _read_semantic,
    SOURCE_FORMAT: read_source,
}


def read_segmentation(record: Record, categories: CategorySet) -> PanopticSegmentation:
    """The panoptic truth of a record, category ids of the dataset; DatasetError where file and record disagree."""
    return PANOPTIC_READERS[record["pan_seg_format"]](record, categories)


class InstanceGroundTruth:
    """COCO annotations of each record: of `instances_json`, else of the record, else derived from its segments."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.derived = dataset.instances_json is None
        self._by_image: dict[Any, Sequence[dict[str, Any]]] = {}
        if dataset.instances_json is not None:
            file = annotation_cache.read_instances(dataset.instances_json)
            image_ids = (image["id"] for image in file.images)
            self._by_image = dict(zip(image_ids, file.annotations, strict=True))

    def of(self, record: Record, read: Callable[[Record], PanopticSegmentation]) -> list[dict[str, Any]]:
        """Annotations {category_id, bbox [x, y, w, h], area, iscrowd, segmentation (RLE)}, dataset category ids.

        read: gives the panoptic segmentation of a record, where instances are derived from it.
        """
        size_hw = record["height"], record["width"]
        if self.dataset.instances_json is not None:
            found = self._by_image.get(record["image_id"], ())
            return [{**a, "segmentation": segmentation_to_rle(a["segmentation"], size_hw)} for a in found]
        if "annotations" in record:
            return [_from_detectron2(a, size_hw, self.dataset.categories) for a in record["annotations"]]
        return derive.build_coco_annotations(record["image_id"], read(record))


def _from_detectron2(annotation: Record, size_hw: tuple[int, int], categories: CategorySet) -> dict[str, Any]:
    rle = segmentation_to_rle(annotation["segmentation"], size_hw)
    return {
        "category_id": categories.category_id(annotation["category_id"], isthing=True),
        "bbox": list(BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYWH_ABS)),
        "area": float(coco_mask.area(rle)),
        "iscrowd": int(annotation.get("iscrowd", 0)),
        "segmentation": rle,
    }
