"""What COCO's JSON files have in common: the table of images and the categories."""

from __future__ import annotations

import reprlib
from pathlib import Path

from segkit.formats.coco.validation import validate_images
from segkit.formats.pixel_limit import check_pixels, get_max_pixels
from segkit.structures import CategorySet, ImageId
from segkit.utils.errors import DatasetError
from segkit.utils.files import load_json
from segkit.utils.issues import raise_issue
from segkit.utils.json_fields import Entry, Location, check_objects, get_flag, get_table

TABLES = ("images", "annotations", "categories")
IMAGE_KEYS = ("id", "file_name", "height", "width")
CATEGORY_KEYS = ("id", "name", "isthing", "color", "supercategory")


def read_images(content: Entry, path: str | Path) -> dict[ImageId, Entry]:
    """Read the table `images`.

    Args:
        content: the content of the JSON.
        path: the JSON, for messages.

    Returns:
        The file's objects by image_id, in their order.

    Raises:
        DatasetError: an image has no valid id, file_name or size, two images have one id, or an image has more pixels
            than `get_max_pixels` allows.
    """
    path = Path(path)
    entries = get_table(content, "images", path)
    validate_images(entries, path, raise_issue)
    most = get_max_pixels()  # more is not decoded, and masks would fill the memory
    for entry in entries:
        if entry["height"] * entry["width"] > most:
            check_pixels((entry["height"], entry["width"]), Location(path, entry["id"]))
    return {entry["id"]: entry for entry in entries}


def read_annotations(content: Entry, path: Path, panoptic: bool) -> list[Entry]:
    """Read the table `annotations`; its entries are not validated.

    Args:
        content: the content of the JSON.
        path: the JSON, for messages.
        panoptic: whether a panoptic JSON is expected, or an instances JSON.

    Returns:
        The file's objects.

    Raises:
        DatasetError: the table is missing or invalid, or the JSON is of the other kind.
    """
    annotations = get_table(content, "annotations", path)
    for annotation in annotations:
        keys = ", ".join(sorted(annotation.keys() & {"segmentation", "bbox", "category_id"}))
        if panoptic and keys and "segments_info" not in annotation:
            expected = "a panoptic JSON is expected: its annotations have segments_info"
            raise DatasetError(f"this is an instances JSON (an annotation has {keys}), {expected}", where=path)
        if not panoptic and "segments_info" in annotation:
            expected = "an instances JSON is expected: its annotations have bbox and segmentation"
            raise DatasetError(f"this is a panoptic JSON (an annotation has segments_info), {expected}", where=path)
    return annotations


def read_categories(content: Entry, path: str | Path, all_things: bool = False) -> CategorySet:
    """Read the table `categories`.

    Args:
        content: the content of the JSON.
        path: the JSON, for messages.
        all_things: every category is a thing, and `isthing` may be missing.

    Returns:
        The categories.

    Raises:
        DatasetError: a category has an invalid id, name, `isthing` or color, or two have one id.
    """
    path = Path(path)
    entries = get_table(content, "categories", path)
    for entry in entries:
        where = f"{path}, category {entry.get('id')!r}"
        if not all_things and "isthing" not in entry:
            problem = "expected `isthing` to be 0 or 1, got none"
            raise DatasetError(problem, where=where, remedy="add it", code="key-missing")
        get_flag(entry, "isthing", where)
        color = entry.get("color")
        if color is not None and not _is_color(color):
            expected, got = "`color` to be three integers in 0..255", reprlib.repr(color)
            raise DatasetError(f"expected {expected}, got {got}", where=where, code="type-wrong")
    return CategorySet.from_coco([{**entry, "isthing": 1} for entry in entries] if all_things else entries, path)


def read_classes(path: str | Path) -> CategorySet | tuple[str, ...]:
    """Read the classes of label images.

    Args:
        path: a JSON with a list of names, a list of COCO categories, or any COCO JSON.

    Returns:
        The names of the labels 0, 1, ..., or the categories; if one has no `isthing`, all are things.

    Raises:
        DatasetError: the file is missing or holds something else.
    """
    path = Path(path)
    content = load_json(path)
    entries = content.get("categories") if isinstance(content, dict) else content
    if not isinstance(entries, list) or not entries:
        got = reprlib.repr(entries if isinstance(content, dict) else content)
        raise DatasetError(f"expected a list of names or `categories`, got {got}", where=path)
    if all(type(entry) is str for entry in entries):
        return tuple(entries)
    table = check_objects(entries, "`categories`", path)
    return read_categories({"categories": table}, path, all_things=any("isthing" not in entry for entry in table))


def _is_color(color: object) -> bool:
    return isinstance(color, list) and len(color) == 3 and all(type(c) is int and 0 <= c <= 255 for c in color)
