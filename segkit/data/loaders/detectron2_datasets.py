"""Datasets that Detectron2 (or the user, in Detectron2's way) registered: what segkit needs to know of them."""

from __future__ import annotations

from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog

from segkit.data.dataset import PANOPTIC_METRICS, Dataset, Record
from segkit.formats import cityscapes, coco, png
from segkit.structures import THING_CHANNEL, Category, CategorySet, default_color
from segkit.utils.errors import ConfigError

METRICS = {
    "coco": ("mask_ap",),
    "coco_panoptic_seg": PANOPTIC_METRICS,
    "cityscapes_panoptic_seg": ("panoptic_quality",),
    "cityscapes_instance": ("mask_ap",),
    "sem_seg": ("semantic_iou",),
    "cityscapes_sem_seg": ("semantic_iou",),
}


def load_registered_dataset(name: str) -> Dataset:
    """A dataset of Detectron2's catalog with the metrics that its `evaluator_type` stands for.

    Raises ConfigError for a type that segkit has no metric for.
    """
    meta = MetadataCatalog.get(name)
    kind = meta.get("evaluator_type", "coco" if "json_file" in meta.as_dict() else None)
    if kind not in METRICS:
        raise ConfigError(
            f"the dataset {name!r} has evaluator_type {kind!r}, which segkit does not judge",
            where="DATASETS",
            remedy=f"segkit judges {sorted(METRICS)}, and its own names start with segkit_",
        )
    records = DatasetCatalog.get(name)
    if METRICS[kind] == ("semantic_iou",):
        return _adopt_semantic(name, kind, records)
    json_file = meta.get("json_file")
    instances_json = Path(json_file) if json_file else None
    if "panoptic_json" not in meta.as_dict():
        categories = categories_of_metadata(name) if kind == "coco" else cityscapes.CATEGORIES
        things = CategorySet(categories.things, name)
        return Dataset(name, things, METRICS[kind], records, instances_json, uses_segkit_mapper=False)
    file = coco.read_panoptic(meta.panoptic_json)
    ground_truth = {record.image_id: record for record in file.records}
    for record in records:
        match = ground_truth.get(record["image_id"])
        if match is None:
            raise ConfigError(f"the image {record['image_id']!r} of {name!r} is not in {meta.panoptic_json}")
        record["pan_seg_file_name"] = str(Path(meta.panoptic_root) / match.png_name)
        record["pan_seg_format"] = "coco_panoptic"
        record["segments_info"] = match.segments_info
        record.setdefault("height", match.height)
        record.setdefault("width", match.width)
    return Dataset(
        name,
        file.categories,
        METRICS[kind],
        records,
        instances_json,
        uses_segkit_mapper="annotations" not in records[0],
    )


def _adopt_semantic(name: str, kind: str, records: list[Record]) -> Dataset:
    """Label maps whose labels are indices into `stuff_classes`."""
    classes = MetadataCatalog.get(name).stuff_classes
    categories = CategorySet(Category(i, text, False, default_color(i)) for i, text in enumerate(classes))
    for record in records:
        path = Path(record["sem_seg_file_name"])
        header = png.read_header(path)
        record.setdefault("image_id", path.stem)
        record.setdefault("height", header.height)
        record.setdefault("width", header.width)
        record.update(pan_seg_file_name=str(path), pan_seg_format="semantic")
    return Dataset(name, categories, METRICS[kind], records, uses_segkit_mapper=False)


def categories_of_metadata(name: str) -> CategorySet:
    """The categories that Detectron2's metadata of a dataset names, things and stuff."""
    meta = MetadataCatalog.get(name).as_dict()
    found: dict[int, Category] = {}
    for kind, isthing in (("thing", True), ("stuff", False)):
        names, colors = meta.get(f"{kind}_classes", []), meta.get(f"{kind}_colors", [])
        for category_id, index in meta.get(f"{kind}_dataset_id_to_contiguous_id", {}).items():
            if category_id in found or (not isthing and index == THING_CHANNEL):
                continue
            red, green, blue = colors[index] if index < len(colors) else default_color(category_id)
            found[category_id] = Category(category_id, names[index], isthing, (red, green, blue))
    return CategorySet(found.values(), name)
