"""What COCO's JSON files have in common: typed fields, the images table, the categories."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from segkit.structures import CategorySet, ImageId
from segkit.utils.errors import DatasetError
from segkit.utils.files import load_json
from segkit.utils.json_fields import (
    IMAGE_ID,
    INTEGER,
    LIST,
    TEXT,
    Entry,
    Location,
    all_finite,
    check_inside,
    check_objects,
    get_field,
    get_flag,
    get_table,
)
from segkit.utils.text import abbreviate

TABLES = ("images", "annotations", "categories")
IMAGE_KEYS = ("id", "file_name", "height", "width")
CATEGORY_KEYS = ("id", "name", "isthing", "color", "supercategory")


def check_bbox(entry: Entry, where: object) -> None:
    """DatasetError where `bbox` is not x, y, width, height: four finite numbers, the last two not negative."""
    box = get_field(entry, "bbox", LIST, where)
    if len(box) != 4 or not all_finite(box) or min(box[2:]) < 0:
        expected = "`bbox` to be [x, y, width, height] in pixels"
        raise DatasetError(f"expected {expected}, got {reprlib.repr(box)}", where=where)


def read_images(content: Entry, path: Path) -> dict[ImageId, Entry]:
    """The `images` table, in its order; DatasetError where an entry lacks a usable id, file_name, height or width.

    A file_name may lie in sub-folders, and must not leave the image folder. More pixels than Pillow opens are refused.
    """
    images: dict[ImageId, Entry] = {}
    for entry in get_table(content, "images", path):
        image_id = get_field(entry, "id", IMAGE_ID, f"{path}, images")
        where = Location(path, image_id)
        if image_id in images:
            raise DatasetError("expected distinct image ids, got this one twice", where=where)
        check_inside(get_field(entry, "file_name", TEXT, where), "file_name", where)
        if get_field(entry, "height", INTEGER, where) < 1 or get_field(entry, "width", INTEGER, where) < 1:
            got = f"{entry['height']} x {entry['width']}"
            raise DatasetError(f"expected height and width of at least 1 pixel, got {got}", where=where)
        check_pixels(entry["height"], entry["width"], where)
        images[image_id] = entry
    return images


def check_pixels(height: int, width: int, where: object) -> None:
    """DatasetError for an image of more pixels than Pillow opens: masks of that size would fill the memory."""
    if Image.MAX_IMAGE_PIXELS and height * width > 2 * Image.MAX_IMAGE_PIXELS:
        most = f"at most {2 * Image.MAX_IMAGE_PIXELS} pixels"
        raise DatasetError(f"expected {most}, got {height} x {width}", where=where, remedy="cut the image into tiles")


def get_image_id(annotation: Entry, images: Mapping[ImageId, Entry], path: Path) -> ImageId:
    """The annotation's image_id; DatasetError where it is not in the `images` table."""
    image_id: ImageId = get_field(annotation, "image_id", IMAGE_ID, f"{path}, annotations")
    if image_id not in images:
        raise DatasetError(
            "an annotation has this image_id, the `images` table has not",
            where=Location(path, image_id),
            remedy=f"add the image or drop the annotation; the table holds {abbreviate(images)}",
        )
    return image_id


def get_category_id(entry: Entry, categories: CategorySet, where: object) -> int:
    """The entry's category_id; DatasetError where it is not among the categories."""
    category_id: int = get_field(entry, "category_id", INTEGER, where)
    if category_id not in categories:
        known = abbreviate(category.category_id for category in categories.categories)
        raise DatasetError(f"expected a category_id of `categories` ({known}), got {category_id}", where=where)
    return category_id


def read_categories(content: Entry, path: Path, all_things: bool = False) -> CategorySet:
    """The `categories`; DatasetError where one is malformed, or lacks `isthing` and not all are to be things."""
    entries = get_table(content, "categories", path)
    for entry in entries:
        where = f"{path}, category {entry.get('id')!r}"
        if not all_things and "isthing" not in entry:
            raise DatasetError("expected `isthing` to be 0 or 1, got none", where=where, remedy="add it")
        get_flag(entry, "isthing", where)
        color = entry.get("color")
        if color is not None and not _is_color(color):
            expected, got = "`color` to be three integers in 0..255", reprlib.repr(color)
            raise DatasetError(f"expected {expected}, got {got}", where=where)
    return CategorySet.from_coco([{**entry, "isthing": 1} for entry in entries] if all_things else entries, path)


def read_classes(path: str | Path) -> CategorySet | tuple[str, ...]:
    """The classes in a JSON: names of the labels 0, 1, ... (a list of strings), or categories with their ids (a list of
    objects, or any COCO JSON with `categories`); those without `isthing` are all things.

    Raises DatasetError where the file is missing or something else.
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
