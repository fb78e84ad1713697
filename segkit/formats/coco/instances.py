"""COCO's instances format: a JSON of images, categories and masks; and the results list.

Source: https://cocodataset.org/#format-data and #format-results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

try:
    import msgspec
except ImportError:
    msgspec = None  # type: ignore[assignment]

from segkit.formats.coco.columns import AREA, BOX, MASK, read_plain_columns
from segkit.formats.coco.tables import CATEGORY_KEYS, TABLES, read_annotations, read_categories, read_images
from segkit.formats.coco.validation import FIX, get_image_id, validate_entry
from segkit.structures import CategorySet, ImageId
from segkit.utils import files, json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.issues import raise_issue
from segkit.utils.json_fields import Entry, Location

FAST_JSON = msgspec is not None  # the extra `fast`


@dataclass(frozen=True)
class InstancesFile:
    """A valid instances JSON; every category is a thing.

    Attributes:
        path: the JSON.
        categories: all things.
        images: the file's objects, in its order.
        annotations: the file's objects, in its order; `iscrowd` is 0 if the file lacks it.
        info: the other tables of the file, by key.
        unread: keys of its categories that are not read.
    """

    path: Path
    categories: CategorySet
    images: tuple[Entry, ...]
    annotations: tuple[Entry, ...]
    info: Mapping[str, Any] = field(default_factory=dict)
    unread: tuple[str, ...] = ()


@files.no_garbage_collection()
def read_instances(json_path: str | Path, masks: bool = True) -> InstancesFile:
    """Read and validate an instances JSON.

    Every annotation needs a distinct id, an image and a category of the file, a box, an area and a valid segmentation.
    Polygons of fewer than three points are dropped, as Detectron2 does.

    Args:
        json_path: the JSON.
        masks: False leaves every `segmentation` as it is; it may then be missing.

    Returns:
        The content of the file.

    Raises:
        DatasetError: the file is missing, is not JSON, is a panoptic JSON or a results list, or is invalid.
    """
    path = Path(json_path)
    content = _load_json(path)
    if type(content) is not dict:
        content = json_fields.load_object(path)  # raises the error
    entries = read_annotations(content, path, panoptic=False)
    images = read_images(content, path)
    categories = read_categories(content, path, all_things=True)
    fields = (BOX, MASK) if masks else (BOX,)
    if _are_all_valid(entries, images, categories, fields):
        annotations = [entry if "iscrowd" in entry else {**entry, "iscrowd": 0} for entry in entries]
    else:
        annotations = _read_annotations(entries, images, categories, fields, path)
    info = json_fields.other_keys(content, TABLES)
    unread = tuple(json_fields.unexpected_keys(content["categories"], CATEGORY_KEYS))
    return InstancesFile(path, categories, tuple(images.values()), tuple(annotations), info, unread)


def write_instances(
    json_path: str | Path,
    images: Sequence[Entry],
    annotations: Sequence[Entry],
    categories: CategorySet,
    info: Mapping[str, Any] | None = None,
) -> None:
    """Write an instances JSON, atomically.

    Args:
        json_path: the JSON.
        images: `{id, file_name, height, width}` each.
        annotations: COCO annotations, see `formats.derive.coco_annotations`. One without `id` gets its position in the
            list, from 1: pycocotools takes the id 0 for "no match".
        categories: of the dataset; only things are written.
        info: other tables of the file, by key.

    Raises:
        ValueError: two ids are equal, or a number is not finite.
    """
    numbered = [{"id": number, **annotation} for number, annotation in enumerate(annotations, 1)]
    if len({annotation["id"] for annotation in numbered}) != len(numbered):
        raise ValueError("annotations must have distinct ids, all of them or none")
    things = [entry for entry in categories.to_coco() if entry["isthing"]]
    content = {**(info or {}), "images": [*images], "annotations": numbered, "categories": things}
    files.dump_json(Path(json_path), content)


@files.no_garbage_collection()
def read_results(json_path: str | Path) -> list[Entry]:
    """Read COCO's results list; its entries are not validated, see `read_result_columns`.

    Args:
        json_path: the JSON.

    Returns:
        The file's objects; there may be none.

    Raises:
        DatasetError: the file is missing, is not JSON, or is not a list of objects.
    """
    path = Path(json_path)
    content = _load_json(path)
    if type(content) is not list:
        remedy = "is it a dataset's JSON?"
        raise DatasetError(f"expected a list of results, got a {type(content).__name__}", where=path, remedy=remedy)
    return json_fields.check_objects(content, "the list", path)


def _load_json(path: Path) -> Any:
    """`files.load_json`, in half the time if msgspec reads the file; Python's json decides on the rest."""
    if FAST_JSON:
        try:
            return msgspec.json.decode(files.read_bytes(path))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            pass
    return files.load_json(path)


def _are_all_valid(
    entries: Sequence[Entry], images: Mapping[ImageId, Entry], categories: CategorySet, fields: tuple[str, ...]
) -> bool:
    """Whether `_read_annotations` would return every entry as it is."""
    ids: list[Any] = [entry.get("id") for entry in entries]
    image_ids: list[Any] = [entry.get("image_id") for entry in entries]
    if not {*map(type, ids)} <= {*json_fields.INTEGER} or len({*ids}) != len(ids):
        return False
    if not {*map(type, image_ids)} <= {*json_fields.IMAGE_ID} or not {*image_ids} <= images.keys():
        return False
    sizes_by_image = {image_id: (image["height"], image["width"]) for image_id, image in images.items()}
    sizes_hw = [sizes_by_image[image_id] for image_id in image_ids]
    return read_plain_columns(entries, sizes_hw, AREA, fields, categories.thing_contiguous_ids) is not None


def _read_annotations(
    entries: Sequence[Entry],
    images: Mapping[ImageId, Entry],
    categories: CategorySet,
    fields: tuple[str, ...],
    path: Path,
) -> list[Entry]:
    keys = ("category_id", "iscrowd", AREA, *fields)
    annotations: dict[int, Entry] = {}
    for index, entry in enumerate(entries):
        image = images[get_image_id(entry, index, images, path)]
        size_hw = image["height"], image["width"]
        unnamed = Location(path, image["id"], "annotation at index", index)
        annotation_id = json_fields.get_field(entry, "id", json_fields.INTEGER, unnamed)
        where = Location(path, image["id"], "annotation", annotation_id)
        if annotation_id in annotations:
            raise DatasetError("expected distinct annotation ids, got this one twice", where=where, remedy=FIX)
        valid = validate_entry(entry, keys, categories.isthing_by_id, size_hw, where, raise_issue)
        annotations[annotation_id] = {**entry, **valid}
    return [*annotations.values()]
