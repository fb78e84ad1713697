"""COCO's instances format: a JSON of images, categories and masks, and the results list.

Source: https://cocodataset.org/#format-data and #format-results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from segkit.formats.coco.tables import (
    CATEGORY_KEYS,
    TABLES,
    check_bbox,
    get_category_id,
    get_image_id,
    read_categories,
    read_images,
)

try:
    import msgspec
except ImportError:
    msgspec = None  # type: ignore[assignment]

from segkit.formats.coco.masks import (
    MAX_COORDINATE,
    MAX_OUTLINE_PX,
    MIN_POLYGON_NUMBERS,
    drop_slivers,
    find_mask_fault,
    is_too_long,
)
from segkit.structures import CategorySet, ImageId
from segkit.utils import files, json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.json_fields import Entry, Location

FAST_JSON = msgspec is not None  # the extra `fast`


@dataclass(frozen=True)
class InstancesFile:
    """A validated JSON; `images` and `annotations` are the file's objects, in its order, and may be none.

    `iscrowd` is 0 where the file lacks it. Every category is a thing. info: what else the file holds, by key.
    unread: keys of its categories of which nothing is kept.
    """

    path: Path
    categories: CategorySet
    images: tuple[Entry, ...]
    annotations: tuple[Entry, ...]
    info: Mapping[str, Any] = field(default_factory=dict)
    unread: tuple[str, ...] = ()


@files.no_garbage_collection()
def read_instances(json_path: str | Path, masks: bool = True) -> InstancesFile:
    """Reads and checks an instances JSON.

    Raises DatasetError where it is missing, not JSON, a panoptic JSON or a results list, or contradicts itself: every
    annotation needs an id of its own, a known image and category, a bbox (xywh), an area and a sound segmentation.
    Polygons of fewer than three points are left out, as Detectron2 does. masks: False leaves every `segmentation` as
    the file has it, unread; it may then be missing.
    """
    path = Path(json_path)
    content = _load_json(path)
    if type(content) is not dict:
        content = json_fields.load_object(path)  # which says what is wrong with it
    entries = json_fields.get_table(content, "annotations", path)
    _refuse_panoptic(entries, path)
    images = read_images(content, path)
    categories = read_categories(content, path, all_things=True)
    info = json_fields.other_keys(content, TABLES)
    unread = tuple(json_fields.unexpected_keys(content["categories"], CATEGORY_KEYS))
    if _all_sound(entries, images, categories, masks):
        flagged = tuple(entry if "iscrowd" in entry else {**entry, "iscrowd": 0} for entry in entries)
        return InstancesFile(path, categories, tuple(images.values()), flagged, info, unread)
    annotations: dict[int, Entry] = {}
    for entry in entries:
        image_id = get_image_id(entry, images, path)
        annotation_id = json_fields.get_field(entry, "id", json_fields.INTEGER, Location(path, image_id, "annotation"))
        where = Location(path, image_id, "annotation", annotation_id)
        if annotation_id in annotations:
            raise DatasetError("expected distinct annotation ids, got this one twice", where=where)
        annotations[annotation_id] = _read_annotation(entry, images[image_id], categories, where, masks)
    return InstancesFile(path, categories, tuple(images.values()), tuple(annotations.values()), info, unread)


def write_instances(
    json_path: str | Path,
    images: Sequence[Entry],
    annotations: Sequence[Entry],
    categories: CategorySet,
    info: Mapping[str, Any] | None = None,
) -> None:
    """Writes a dataset's JSON, whole or not at all; of the categories, the things.

    images: `{id, file_name, height, width}` each. annotations: as `formats.derive.coco_annotations` makes them; where
    one lacks an `id` it gets its place in the list, from 1: to pycocotools' matching the id 0 is "no match". info: what
    else the file is to hold, by key. Raises ValueError where two ids are equal, or a number is not finite.
    """
    numbered = [{"id": place, **annotation} for place, annotation in enumerate(annotations, 1)]
    if len({annotation["id"] for annotation in numbered}) != len(numbered):
        raise ValueError("annotations must have distinct ids, all of them or none")
    things = [entry for entry in categories.to_coco() if entry["isthing"]]
    content = {**(info or {}), "images": [*images], "annotations": numbered, "categories": things}
    files.dump_json(Path(json_path), content)


@files.no_garbage_collection()
def read_checked_results(json_path: str | Path) -> list[Entry]:
    """Reads and checks COCO's results list; it may be empty.

    Raises DatasetError where it is missing, not JSON, not a list, or where a result lacks image_id, category_id, a
    finite score, or both bbox and segmentation, or has unsound ones.
    """
    path = Path(json_path)
    return [_read_result(result, index, path) for index, result in enumerate(read_results(path))]


@files.no_garbage_collection()
def read_results(json_path: str | Path) -> list[Entry]:
    """COCO's results list as it is, for a reader that checks it: a list of objects; it may be empty.

    Raises DatasetError where it is missing, not JSON or something else.
    """
    path = Path(json_path)
    content = _load_json(path)
    if type(content) is not list:
        remedy = "is it a dataset's JSON?"
        raise DatasetError(f"expected a list of results, got a {type(content).__name__}", where=path, remedy=remedy)
    return json_fields.check_objects(content, "the list", path)


def _load_json(path: Path) -> Any:
    """`files.load_json`, in half the time where msgspec can read the file; what it refuses (NaN, say) json decides."""
    if FAST_JSON:
        try:
            return msgspec.json.decode(files.read_bytes(path))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            pass
    return files.load_json(path)


def _refuse_panoptic(annotations: Sequence[Entry], path: Path) -> None:
    if any("segments_info" in annotation for annotation in annotations):
        raise DatasetError(
            "this is a panoptic JSON (an annotation has segments_info), an instances JSON is expected: "
            "its annotations have bbox and segmentation",
            where=path,
        )


def _all_sound(entries: Sequence[Entry], images: Mapping[ImageId, Entry], categories: CategorySet, masks: bool) -> bool:
    """Whether every annotation is as `_read_annotation` would give it back: all of a field at once, a tenth of the
    time that it takes one by one."""
    columns: list[list[Any]] = [
        [entry.get(key) for entry in entries] for key in ("id", "image_id", "category_id", "bbox", "area")
    ]
    ids, image_ids, category_ids, boxes, areas = columns
    crowds = [entry.get("iscrowd", 0) for entry in entries]
    if not {*map(type, ids), *map(type, category_ids), *map(type, crowds)} <= {*json_fields.INTEGER}:
        return False
    if not {*map(type, image_ids)} <= {*json_fields.IMAGE_ID} or not {*image_ids} <= images.keys():
        return False
    if len({*ids}) != len(ids) or not {*crowds} <= {0, 1} or not all(i in categories for i in {*category_ids}):
        return False
    if not {*map(type, boxes)} <= {*json_fields.LIST} or not {*map(len, boxes)} <= {4}:
        return False
    numbers = [*chain.from_iterable(boxes), *areas]
    if not json_fields.all_finite(numbers):
        return False
    lengths = chain((box[2] for box in boxes), (box[3] for box in boxes), areas)
    return min(lengths, default=0) >= 0 and (not masks or _masks_sound(entries, images))


def _masks_sound(entries: Sequence[Entry], images: Mapping[ImageId, Entry]) -> bool:
    outlines: list[Any] = [entry.get("segmentation") for entry in entries]
    polygons = [*chain.from_iterable(outline for outline in outlines if type(outline) is list)]
    if [] in outlines or not {*map(type, polygons)} <= {*json_fields.LIST}:
        return False
    if any(number < MIN_POLYGON_NUMBERS or number % 2 for number in {*map(len, polygons)}):
        return False
    numbers = [*chain.from_iterable(polygons)]
    near = MAX_OUTLINE_PX / max(map(len, polygons), default=1)  # of coordinates that make no outline too long
    if not json_fields.all_finite(numbers, min(near, MAX_COORDINATE)) and (
        not json_fields.all_finite(numbers, MAX_COORDINATE) or any(map(is_too_long, polygons))
    ):
        return False
    return not any(
        find_mask_fault(outline, (images[entry["image_id"]]["height"], images[entry["image_id"]]["width"]))
        for entry, outline in zip(entries, outlines, strict=True)
        if type(outline) is not list
    )


def _read_result(result: Entry, index: int, path: Path) -> Entry:
    image_id: ImageId = json_fields.get_field(result, "image_id", json_fields.IMAGE_ID, f"{path}, result {index}")
    where = Location(path, image_id, "result", index)
    json_fields.get_field(result, "category_id", json_fields.INTEGER, where)
    json_fields.get_finite(result, "score", where)
    if not result.keys() & {"bbox", "segmentation"}:
        raise DatasetError("expected `bbox` or `segmentation`, got neither", where=where)
    if "bbox" in result:
        check_bbox(result, where)
    if "segmentation" not in result:
        return result
    return {**result, "segmentation": _read_segmentation(result, None, where)}


def _read_annotation(
    entry: Entry, image: Mapping[str, int], categories: CategorySet, where: Location, masks: bool
) -> Entry:
    get_category_id(entry, categories, where)
    check_bbox(entry, where)
    if json_fields.get_finite(entry, "area", where) < 0:
        raise DatasetError(f"expected `area` to be 0 or more pixels, got {entry['area']}", where=where)
    flagged = {**entry, "iscrowd": json_fields.get_flag(entry, "iscrowd", where)}
    if not masks:
        return flagged
    return {**flagged, "segmentation": _read_segmentation(entry, (image["height"], image["width"]), where)}


def _read_segmentation(entry: Entry, size_hw: tuple[int, int] | None, where: Location) -> Any:
    segmentation = drop_slivers(
        json_fields.get_field(entry, "segmentation", (*json_fields.LIST, *json_fields.OBJECT), where)
    )
    fault = find_mask_fault(segmentation, size_hw)
    if fault:
        raise DatasetError(f"bad segmentation: {fault}", where=where, remedy="correct or drop it")
    return segmentation
