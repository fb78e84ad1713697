"""Datasets that Detectron2, or the user in Detectron2's way, registered: records, categories and metrics."""

from __future__ import annotations

from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog

from segkit.data.dataset import PANOPTIC_METRICS, Dataset, Record
from segkit.data.loaders.coco import CachedPanopticReader
from segkit.data.loaders.readers import ReaderKey, build_panoptic_entries, encode_options, get_reader
from segkit.formats import png
from segkit.formats.cityscapes import CATEGORIES
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
    """Load a dataset of Detectron2's catalog, with the metrics that its `evaluator_type` stands for.

    Args:
        name: a name in DatasetCatalog.

    Returns:
        The dataset; its records are Detectron2's, with the key `reader` if it has COCO's files.

    Raises:
        ConfigError: segkit has no metric for the `evaluator_type`, or an image is not in the panoptic JSON.
        DatasetError: the files are missing or contradict each other.
    """
    meta = MetadataCatalog.get(name)
    kind = meta.get("evaluator_type", "coco" if "json_file" in meta.as_dict() else None)
    if kind not in METRICS:
        raise ConfigError(
            f"the dataset {name!r} has evaluator_type {kind!r}, which segkit does not evaluate",
            where="DATASETS",
            remedy=f"use one with {sorted(METRICS)}, or one of segkit's names, which start with segkit_",
        )
    records = DatasetCatalog.get(name)
    if METRICS[kind] == ("semantic_iou",):
        return _load_semantic(name, kind, records)
    instances_json, has_panoptic = meta.get("json_file") or None, "panoptic_json" in meta.as_dict()
    options = {"images": meta.get("image_root") or "."}
    if has_panoptic:
        options |= {"json": meta.panoptic_json, "masks": meta.panoptic_root}
        if instances_json:
            options["instances_json"] = instances_json
        key = ReaderKey("coco-panoptic", encode_options(options))
        reader, images = get_reader(key)
        assert isinstance(reader, CachedPanopticReader)
        for record in records:
            if record["image_id"] not in images:
                raise ConfigError(f"the image {record['image_id']!r} of {name!r} is not in {meta.panoptic_json}")
            record.update(build_panoptic_entries(reader, images[record["image_id"]], key))
            _set_size(record, *images[record["image_id"]].size_hw)
        categories = reader.categories
    else:
        things = get_metadata_categories(name) if kind == "coco" else CATEGORIES
        categories = CategorySet(things.things, name)
        key = ReaderKey("coco-instances", encode_options({**options, "json": instances_json}), has_map=False)
    if instances_json or has_panoptic:
        for record in records:
            record["reader"] = key
    uses_segkit_mapper = has_panoptic and "annotations" not in records[0]
    instances_path = Path(instances_json) if instances_json else None
    return Dataset(name, categories, METRICS[kind], records, instances_path, uses_segkit_mapper)


def get_metadata_categories(name: str) -> CategorySet:
    """Get the categories that Detectron2's metadata names.

    Args:
        name: a name in MetadataCatalog.

    Returns:
        Things and stuff, with the category ids of the dataset's files.
    """
    meta = MetadataCatalog.get(name).as_dict()
    categories: dict[int, Category] = {}
    for kind, isthing in (("thing", True), ("stuff", False)):
        names, colors = meta.get(f"{kind}_classes", []), meta.get(f"{kind}_colors", [])
        for category_id, index in meta.get(f"{kind}_dataset_id_to_contiguous_id", {}).items():
            if category_id in categories or (not isthing and index == THING_CHANNEL):
                continue
            red, green, blue = colors[index] if index < len(colors) else default_color(category_id)
            categories[category_id] = Category(category_id, names[index], isthing, (red, green, blue))
    return CategorySet(categories.values(), name)


def _load_semantic(name: str, kind: str, records: list[Record]) -> Dataset:
    """Load label maps whose labels are indices into `stuff_classes`."""
    classes = MetadataCatalog.get(name).stuff_classes
    categories = CategorySet(Category(i, text, False, default_color(i)) for i, text in enumerate(classes))
    for record in records:
        path = Path(record["sem_seg_file_name"])
        record.setdefault("image_id", path.stem)
        _set_size(record, *png.read_header(path).size_hw)
    return Dataset(name, categories, METRICS[kind], records, uses_segkit_mapper=False)


def _set_size(record: Record, height: int, width: int) -> None:
    record.setdefault("height", height)
    record.setdefault("width", width)
