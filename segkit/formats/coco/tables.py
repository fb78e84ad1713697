"""What COCO's JSON files have in common: typed fields, the images table, the categories."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from PIL import Image

from segkit.structures import CategorySet
from segkit.utils.errors import DatasetError
from segkit.utils.files import load_json

ImageId: TypeAlias = int | str
Entry: TypeAlias = dict[str, Any]

INTEGER, NUMBER, TEXT, LIST, OBJECT = (int,), (int, float), (str,), (list,), (dict,)
IMAGE_ID = (int, str)
TYPE_NAMES = {int: "an integer", float: "a number", str: "a string", list: "a list", dict: "an object"}
LARGEST = 1e300  # a finite number, and so is the sum of a file full of them
MAX_LISTED = 5  # ids in one message
MISSING = object()
TABLES = ("images", "annotations", "categories")
IMAGE_KEYS = ("id", "file_name", "height", "width")
CATEGORY_KEYS = ("id", "name", "isthing", "color", "supercategory")
MAX_DEPTH = 64  # of lists and objects in each other that are written again


class Place(NamedTuple):
    """Where in a file: put into words only when there is something to say."""

    path: Path
    image_id: ImageId | None = None
    part: str = ""
    part_id: object = None

    def __str__(self) -> str:
        image = "" if self.image_id is None else f", image {self.image_id!r}"
        return f"{self.path}{image}" + (f", {self.part} {self.part_id!r}" if self.part else "")


def load(path: Path) -> Entry:
    """The JSON object in the file; DatasetError where it is missing, not JSON, or a list (of results, say)."""
    content = load_json(path)
    if type(content) is not dict:
        remedy = "a results list has no images and categories: give the dataset's JSON"
        problem = f"expected an object with images, annotations and categories, got a {type(content).__name__}"
        raise DatasetError(problem, where=path, remedy=remedy if type(content) is list else "")
    return content


def field(entry: Entry, key: str, types: tuple[type, ...], where: object) -> Any:
    """`entry[key]`; DatasetError where it is missing or of another type (a bool is no number)."""
    value = entry.get(key, MISSING)
    if type(value) in types:
        return value
    expected = " or ".join(TYPE_NAMES[kind] for kind in types)
    got = "none" if value is MISSING else reprlib.repr(value)
    raise DatasetError(f"expected `{key}` to be {expected}, got {got}", where=where)


def flag(entry: Entry, key: str, where: object) -> int:
    """`entry[key]` as 0 or 1, 0 where it is missing; DatasetError for anything but 0, 1 and a bool."""
    value = entry.get(key, 0)
    if type(value) in (int, bool) and value in (0, 1):
        return int(value)
    raise DatasetError(f"expected `{key}` to be 0 or 1, got {reprlib.repr(value)}", where=where)


def finite(entry: Entry, key: str, where: object) -> float:
    """`entry[key]`, a number that is neither NaN nor infinite; DatasetError otherwise."""
    value: float = field(entry, key, NUMBER, where)
    if not -LARGEST <= value <= LARGEST:
        raise DatasetError(f"expected `{key}` to be a finite number, got {reprlib.repr(value)}", where=where)
    return value


def check_bbox(entry: Entry, where: object) -> None:
    """DatasetError where `bbox` is not x, y, width, height: four finite numbers, the last two not negative."""
    box = field(entry, "bbox", LIST, where)
    if len(box) != 4 or not all_finite(box) or min(box[2:]) < 0:
        expected = "`bbox` to be [x, y, width, height] in pixels"
        raise DatasetError(f"expected {expected}, got {reprlib.repr(box)}", where=where)


def all_finite(values: Collection[Any], largest: float = LARGEST) -> bool:
    """Whether all are numbers of at most `largest` in size, none of them NaN; true of no values."""
    if not values:
        return True
    if not {*map(type, values)} <= {*NUMBER} or min(values) < -largest or max(values) > largest:
        return False
    total = sum(values)  # min and max may step over a NaN, a sum does not
    return bool(total == total)


def table(content: Entry, key: str, path: Path) -> list[Entry]:
    """The list of objects `content[key]`; DatasetError where it is something else."""
    return objects(field(content, key, LIST, path), f"`{key}`", path)


def objects(entries: list[Any], name: str, where: object) -> list[Entry]:
    """`entries`, each one an object; DatasetError otherwise."""
    for index, entry in enumerate(entries):
        if type(entry) is not dict:
            got = reprlib.repr(entry)
            raise DatasetError(f"expected {name} to hold objects, got {got} at index {index}", where=where)
    return entries


def images_by_id(content: Entry, path: Path) -> dict[ImageId, Entry]:
    """The `images` table, in its order; DatasetError where an entry lacks a usable id, file_name, height or width.

    A file_name may lie in sub-folders, and must not leave the image folder. More pixels than Pillow opens are refused.
    """
    images: dict[ImageId, Entry] = {}
    for entry in table(content, "images", path):
        image_id = field(entry, "id", IMAGE_ID, f"{path}, images")
        where = Place(path, image_id)
        if image_id in images:
            raise DatasetError("expected distinct image ids, got this one twice", where=where)
        check_inside(field(entry, "file_name", TEXT, where), "file_name", where)
        if field(entry, "height", INTEGER, where) < 1 or field(entry, "width", INTEGER, where) < 1:
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


def strange_keys(entries: Iterable[Mapping[str, Any]], known: Collection[str]) -> list[str]:
    """The keys of all entries beside the known ones, sorted."""
    return sorted(set[str]().union(*entries) - {*known})


def others(entry: Mapping[str, Any], known: Collection[str]) -> Entry:
    """What the entry holds beside the known keys, in its order."""
    return {key: value for key, value in entry.items() if key not in known}


def writable(entry: Mapping[str, Any]) -> tuple[Entry, list[str]]:
    """What of an entry of any JSON can be written again, and the keys of the rest: NaN, infinity, more than `MAX_DEPTH`
    lists and objects in each other."""
    lost = [key for key, value in entry.items() if not _is_writable(value, MAX_DEPTH)]
    return others(entry, lost), lost


def image_id_of(annotation: Entry, images: Mapping[ImageId, Entry], path: Path) -> ImageId:
    """The annotation's image_id; DatasetError where it is not in the `images` table."""
    image_id: ImageId = field(annotation, "image_id", IMAGE_ID, f"{path}, annotations")
    if image_id not in images:
        raise DatasetError(
            "an annotation has this image_id, the `images` table has not",
            where=Place(path, image_id),
            remedy=f"add the image or drop the annotation; the table holds {listed(images)}",
        )
    return image_id


def category_id_of(entry: Entry, categories: CategorySet, where: object) -> int:
    """The entry's category_id; DatasetError where it is not among the categories."""
    category_id: int = field(entry, "category_id", INTEGER, where)
    if category_id not in categories:
        known = listed(category.category_id for category in categories.categories)
        raise DatasetError(f"expected a category_id of `categories` ({known}), got {category_id}", where=where)
    return category_id


def categories_of(content: Entry, path: Path, all_things: bool = False) -> CategorySet:
    """The `categories`; DatasetError where one is malformed, or lacks `isthing` and not all are to be things."""
    entries = table(content, "categories", path)
    for entry in entries:
        where = f"{path}, category {entry.get('id')!r}"
        if not all_things and "isthing" not in entry:
            raise DatasetError("expected `isthing` to be 0 or 1, got none", where=where, remedy="add it")
        flag(entry, "isthing", where)
        color = entry.get("color")
        if color is not None and not _is_color(color):
            expected, got = "`color` to be three integers in 0..255", reprlib.repr(color)
            raise DatasetError(f"expected {expected}, got {got}", where=where)
    return CategorySet.from_coco([{**entry, "isthing": 1} for entry in entries] if all_things else entries, path)


def check_inside(name: object, key: str, where: object) -> None:
    """DatasetError for what is no relative file name, is empty or leads out of its folder, on any operating system."""
    if not isinstance(name, str):
        raise DatasetError(f"expected `{key}` to be a path inside its folder, got {reprlib.repr(name)}", where=where)
    parts = name.replace("\\", "/").split("/")
    absolute = parts[0] == "" or name[1:2] == ":"  # a drive of Windows
    if absolute or ".." in parts or parts[-1] in ("", ".") or "\0" in name:
        raise DatasetError(f"expected `{key}` to be a path inside its folder, got {name!r}", where=where)


def listed(ids: Iterable[object]) -> str:
    """The first ids, for a message: `3, 7 and 12 more`."""
    ids = list(ids)
    more = f" and {len(ids) - MAX_LISTED} more" if len(ids) > MAX_LISTED else ""
    return ", ".join(repr(i) for i in ids[:MAX_LISTED]) + more


def _is_writable(value: Any, depth: int) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if not isinstance(value, dict | list):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_is_writable(one, depth - 1) for one in inner)


def _is_color(color: object) -> bool:
    return isinstance(color, list) and len(color) == 3 and all(type(c) is int and 0 <= c <= 255 for c in color)
