"""Datasets that Detectron2, or the user in Detectron2's way, registered: records, categories and metrics."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from segkit.data.dataset import PANOPTIC_METRICS, Dataset, Record
from segkit.data.loaders.coco import CachedPanopticReader
from segkit.data.loaders.dataset_dicts import (
    check_annotations,
    complete_records,
    convert_segments,
    count_other_box_mode,
)
from segkit.data.loaders.readers import ReaderKey, build_panoptic_entries, encode_options, get_reader
from segkit.formats.cityscapes import CATEGORIES
from segkit.structures import THING_CHANNEL, Category, CategorySet, default_color
from segkit.utils.errors import ConfigError, DatasetError
from segkit.utils.plugins import run_user_code

logger = logging.getLogger(__name__)

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
        The dataset; its records are Detectron2's, with the key `reader` if it has COCO's files. Without such files,
        the keys of the user's dicts say what the dataset is.

    Raises:
        ConfigError: segkit has no metric for the `evaluator_type`, an image is not in the panoptic JSON, the user's
            function fails, or the metadata has no classes.
        DatasetError: the files are missing or contradict each other, or the user's dicts are wrong.
    """
    meta = MetadataCatalog.get(name)
    kind = meta.get("evaluator_type", "coco" if "json_file" in meta.as_dict() else None)
    if kind not in (None, *METRICS):
        raise ConfigError(
            f"the dataset {name!r} has evaluator_type {kind!r}, which segkit does not evaluate",
            where="DATASETS",
            remedy=f"use one with {sorted(METRICS)}, or one of segkit's names, which start with segkit_",
        )
    records = run_user_code(f"the function of the dataset {name!r}", DatasetCatalog.get, name)
    instances_json, has_panoptic = meta.get("json_file") or None, "panoptic_json" in meta.as_dict()
    if instances_json is None and not has_panoptic and kind != "cityscapes_instance":
        return _load_dicts(name, complete_records(name, records), METRICS.get(kind, PANOPTIC_METRICS))
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
    uses_segkit_mapper = "annotations" not in records[0] if has_panoptic else _has_rle(records)
    instances_path = Path(instances_json) if instances_json else None
    return Dataset(name, categories, METRICS[kind], records, instances_path, uses_segkit_mapper)


def get_metadata_categories(name: str) -> CategorySet:
    """Get the categories that Detectron2's metadata names.

    Category ids are those of `thing_dataset_id_to_contiguous_id` and `stuff_dataset_id_to_contiguous_id`. Without
    these, they are positions: in `thing_classes`, and after them in `stuff_classes`, whose first name may be "things".

    Args:
        name: a name in MetadataCatalog.

    Returns:
        Things and stuff.

    Raises:
        ConfigError: the metadata has no classes.
    """
    categories: list[Category] = []
    for kind, isthing in (("thing", True), ("stuff", False)):
        names, colors = _get_classes(name, kind), MetadataCatalog.get(name).get(f"{kind}_colors", [])
        for category_id, index in _get_category_ids(name, kind, categories):
            red, green, blue = colors[index] if index < len(colors) else default_color(category_id)
            categories.append(Category(category_id, names[index], isthing, (red, green, blue)))
    if not categories:
        remedy = f"set MetadataCatalog.get({name!r}).thing_classes = ['person', ...], or stuff_classes"
        raise ConfigError(f"the metadata of the dataset {name!r} has no classes", where="DATASETS", remedy=remedy)
    return CategorySet(categories, name)


def _get_classes(name: str, kind: str) -> Sequence[str]:
    """The names of things or stuff; ConfigError if they are no list of names."""
    names = MetadataCatalog.get(name).get(f"{kind}_classes", [])
    if not isinstance(names, (list, tuple)) or not all(isinstance(text, str) for text in names):
        problem = f"expected {kind}_classes of the dataset {name!r} to be a list of names, got {names!r}"
        raise ConfigError(problem, where="DATASETS")
    return names


def _get_category_ids(name: str, kind: str, things: Sequence[Category]) -> list[tuple[int, int]]:
    """(category_id, position in the names) of things or stuff; the channel of all things is left out."""
    ids = MetadataCatalog.get(name).get(f"{kind}_dataset_id_to_contiguous_id", {})
    used = {thing.category_id for thing in things}
    pairs = [(i, p) for i, p in sorted(ids.items()) if i not in used and (kind == "thing" or p != THING_CHANNEL)]
    if pairs and pairs == sorted(pairs, key=lambda pair: pair[1]):
        return pairs  # in another order, contiguous ids would not be the positions
    names = _get_classes(name, kind)
    first = THING_CHANNEL + 1 if things and _has_thing_channel(names) else 0
    return [*enumerate(range(first, len(names)), start=max(used, default=-1) + 1)]


def _has_rle(records: Sequence[Record]) -> bool:
    """Whether objects have RLE: Detectron2's mapper takes only polygons by default, and fails at others."""
    annotations = (a for record in records for a in record.get("annotations", ()) if not a.get("iscrowd", 0))
    return any(isinstance(annotation.get("segmentation"), dict) for annotation in annotations)


def _has_thing_channel(stuff_names: Sequence[str]) -> bool:
    return [*stuff_names[:1]] == ["things"]


def _load_dicts(name: str, records: list[Record], metrics: tuple[str, ...]) -> Dataset:
    """Load dicts without a JSON file, by the keys that they have; of `metrics` those that suit them."""
    keys = set[str]().union(*records)
    folders = {os.path.dirname(os.path.abspath(record["file_name"])) for record in records}
    metadata = {"image_root": os.path.commonpath(folders)}
    if "sem_seg_file_name" in keys and (
        metrics == ("semantic_iou",) or not keys & {"annotations", "pan_seg_file_name"}
    ):
        return _load_semantic(name, records, metadata)
    if not keys & {"annotations", "pan_seg_file_name"}:
        problem = "expected records with annotations, sem_seg_file_name or pan_seg_file_name, got none of them"
        raise DatasetError(problem, where=f"dataset {name}")
    categories = get_metadata_categories(name)
    possible: tuple[str, ...] = ("mask_ap",)
    has_masks, has_keypoints = True, False
    if "annotations" in keys:
        has_masks = check_annotations(name, records, _get_classes(name, "thing"))
        has_keypoints = any("keypoints" in annotation for record in records for annotation in record["annotations"])
        wrong_modes, boxes = count_other_box_mode(records)
        if wrong_modes > boxes / 2:
            text = "%s: %d of %d boxes leave their image as XYWH_ABS, but fit as XYXY_ABS: check bbox_mode"
            logger.warning(text, name, wrong_modes, boxes)
    if "pan_seg_file_name" in keys:
        shared = _get_classes(name, "thing") == _get_classes(name, "stuff")
        categories = _build_shared_categories(name, records) if shared else categories
        convert_segments(name, records, categories, shared)
        possible = PANOPTIC_METRICS
    elif "sem_seg_file_name" in keys and categories.stuff:
        offset = 0 if _has_thing_channel(_get_classes(name, "stuff")) else 1
        for record in records:
            record["sem_seg_offset"] = offset
        possible = PANOPTIC_METRICS
    else:
        categories = CategorySet(categories.things, name)
    chosen = tuple(metric for metric in metrics if metric in possible) or possible
    uses_segkit_mapper = has_masks and not has_keypoints  # Detectron2's mapper takes boxes alone, and keypoints
    return Dataset(name, categories, chosen, records, None, uses_segkit_mapper, metadata)


def _build_shared_categories(name: str, records: Sequence[Record]) -> CategorySet:
    """The categories if things and stuff are one list: the metadata or the segments say which are things."""
    ids = MetadataCatalog.get(name).get("thing_dataset_id_to_contiguous_id", {})
    segments = (segment for record in records for segment in record.get("segments_info", ()))
    things = {*ids.values()} or {segment.get("category_id") for segment in segments if segment.get("isthing")}
    names = _get_classes(name, "thing")
    return CategorySet((Category(i, text, i in things, default_color(i)) for i, text in enumerate(names)), name)


def _load_semantic(name: str, records: list[Record], metadata: Mapping[str, Any]) -> Dataset:
    """Load label maps whose labels are positions in `stuff_classes`."""
    names = _get_classes(name, "stuff")
    if not names:
        remedy = f"set MetadataCatalog.get({name!r}).stuff_classes = ['road', ...]"
        raise ConfigError(f"the metadata of the dataset {name!r} has no stuff_classes", where="DATASETS", remedy=remedy)
    if any("sem_seg_file_name" not in record for record in records):
        raise DatasetError("expected sem_seg_file_name in every record", where=f"dataset {name}")
    categories = CategorySet(Category(i, text, False, default_color(i)) for i, text in enumerate(names))
    records = [{key: value for key, value in record.items() if key != "annotations"} for record in records]
    return Dataset(name, categories, ("semantic_iou",), records, None, uses_segkit_mapper=False, metadata=metadata)


def _set_size(record: Record, height: int, width: int) -> None:
    record.setdefault("height", height)
    record.setdefault("width", width)
