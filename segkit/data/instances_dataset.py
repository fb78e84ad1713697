"""COCO instances as Detectron2 dataset dicts."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from detectron2.structures import BoxMode

from segkit.data.catalog import Dataset, Record
from segkit.data.files import LISTED, check_files_exist
from segkit.formats import coco_instances
from segkit.structures import CategorySet, DatasetError, segmentation_to_rle


def annotations_by_image(
    instances_json: Path, categories: CategorySet, file: coco_instances.InstancesFile | None = None
) -> dict[Any, list[Record]]:
    """Detectron2 annotations of each image_id; crowds included with iscrowd = 1; DatasetError for other categories."""
    file = file or coco_instances.read(instances_json)
    used = {annotation["category_id"] for annotation in file.annotations}
    if unknown := sorted(used - set(categories.thing_contiguous_ids)):
        raise DatasetError(
            f"expected annotations of the dataset's things, got the category ids {unknown[:LISTED]}",
            where=instances_json,
        )
    sizes = {image["id"]: (image["height"], image["width"]) for image in file.images}
    found: dict[Any, list[Record]] = defaultdict(list)
    for annotation in file.annotations:
        segmentation = annotation["segmentation"]
        if not isinstance(segmentation, list):  # Detectron2's mapper takes polygons or compressed RLE
            segmentation = segmentation_to_rle(segmentation, sizes[annotation["image_id"]])
        found[annotation["image_id"]].append(
            {
                "bbox": annotation["bbox"],
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": categories.thing_contiguous_ids[annotation["category_id"]],
                "iscrowd": annotation.get("iscrowd", 0),
                "segmentation": segmentation,
            }
        )
    return found


def load_coco_instances(name: str, instances_json: Path, image_root: Path) -> Dataset:
    """A COCO instances dataset, judged by box and mask AP."""
    file = coco_instances.read(instances_json)
    check_files_exist(image_root, [i["file_name"] for i in file.images], "image", f"listed in {instances_json}")
    annotations = annotations_by_image(instances_json, file.categories, file)
    records = [
        {
            "file_name": str(image_root / image["file_name"]),
            "image_id": image["id"],
            "height": image["height"],
            "width": image["width"],
            "annotations": annotations.get(image["id"], []),
        }
        for image in file.images
    ]
    metadata = {"json_file": str(instances_json), "image_root": str(image_root)}
    return Dataset(name, file.categories, ("mask_ap",), records, instances_json, metadata=metadata)
