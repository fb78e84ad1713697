"""What COCO's JSON files have in common, read entry by entry: a damaged one is told and hides no other."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segkit.curation.checks.fields import inside, value_of
from segkit.curation.issues import IssueList
from segkit.formats import coco
from segkit.structures import ImageId
from segkit.utils import files, json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.json_fields import Entry, Location
from segkit.utils.text import abbreviate

MAX_PIXELS = 2**32 - 1  # what pycocotools counts to


@dataclass(frozen=True)
class ImageEntry:
    """A row of `images` as far as it is sound: file_name is None where it is no name inside the folder, size_hw where
    it is no size."""

    image_id: ImageId
    file_name: str | None
    size_hw: tuple[int, int] | None


@dataclass
class Tables:
    """The tables of a JSON. images: by id, the first of each. isthing_of: category_id -> isthing, where that is sound.
    annotations: the objects of the table."""

    path: Path
    images: dict[ImageId, ImageEntry] = field(default_factory=dict)
    isthing_of: dict[int, bool | None] = field(default_factory=dict)
    annotations: list[Entry] = field(default_factory=list)
    issues: IssueList = field(default_factory=IssueList)


def read_tables(path: Path, panoptic: bool) -> Tables | IssueList:
    """The tables of a panoptic or an instances JSON with what is wrong with images and categories; or, where it is no
    JSON of the kind, just that."""
    issues = IssueList()
    try:
        with files.no_garbage_collection():
            content = files.load_json(path)
    except (DatasetError, MemoryError) as error:
        issues.add("json-unreadable", path, _without_place(error, path))
        return issues
    kind = _kind_of(content)
    if kind not in ("", "panoptic" if panoptic else "instances"):
        expected = "panoptic" if panoptic else "instances"
        issues.add("json-kind", path, f"expected JSON of kind {expected}, this is {kind}")
        return issues
    if type(content) is not dict:
        issues.add("type-wrong", path, f"expected an object, got a {type(content).__name__}")
        return issues
    tables = Tables(path)
    _read_categories(_table(content, "categories", tables), tables, panoptic)
    _read_images(_table(content, "images", tables), tables)
    tables.annotations = _table(content, "annotations", tables)
    if tables.images and content.get("annotations") == []:
        tables.issues.add("annotations-empty", path, f"`annotations` is empty, `images` has {len(tables.images)}")
    return tables


def refusals(path: Path, read: Callable[[Path], object]) -> IssueList:
    """What else keeps the JSON from being used: what its reader `read` refuses, and numbers that are no JSON."""
    issues = IssueList()
    try:
        read(path)
        strange = _no_json(path)
    except (DatasetError, MemoryError, RecursionError) as error:
        where = getattr(error, "where", "") or path
        issues.add("annotation-unreadable", where, _without_place(error, where))
        return issues
    if strange:
        message = (
            f"JSON has no {' and no '.join(sorted({*strange}))}, found {len(strange)} times: other tools refuse it"
        )
        issues.add("number-not-finite", path, message)
    return issues


def category_of(entry: Entry, tables: Tables, place: object, issues: IssueList) -> int | None:
    """`entry["category_id"]`, None with a finding where it is none of the categories."""
    category_id: int | None = value_of(entry, "category_id", json_fields.INTEGER, place, issues)
    if category_id is None or category_id in tables.isthing_of:
        return category_id
    known = abbreviate(sorted(tables.isthing_of))
    issues.add("category-unknown", place, f"category_id is {reprlib.repr(category_id)}; the categories are {known}")
    return None


def image_of(annotation: Entry, index: int, tables: Tables, issues: IssueList) -> ImageEntry | None:
    """The annotation's image entry; None with a finding where there is none."""
    where = f"{tables.path}, annotation at index {index}"
    image_id = value_of(annotation, "image_id", json_fields.IMAGE_ID, where, issues)
    if image_id is None:
        return None
    if image_id not in tables.images:
        message = "the annotation has this image_id, `images` has not"
        issues.add("annotation-without-image", Location(tables.path, image_id), message)
    return tables.images.get(image_id)


def is_size(height: Any, width: Any) -> bool:
    """Whether these are pixels of an image whose run lengths COCO can hold."""
    return type(height) is type(width) is int and min(height, width) > 0 and height * width <= MAX_PIXELS


def _table(content: Entry, key: str, tables: Tables) -> list[Entry]:
    entries = value_of(content, key, json_fields.LIST, tables.path, tables.issues) or []
    found = []
    for index, entry in enumerate(entries):
        if type(entry) is dict:
            found.append(entry)
        else:
            place = f"{tables.path}, {key} at index {index}"
            tables.issues.add("type-wrong", place, f"expected an object, got {reprlib.repr(entry)}")
    if not entries and type(content.get(key)) is list and key in ("images", "categories"):
        code = "dataset-empty" if key == "images" else "categories-empty"
        tables.issues.add(code, tables.path, f"`{key}` is empty")
    return found


def _kind_of(content: Any) -> str:
    """panoptic, instances, a list of results; "" where nothing tells."""
    if type(content) is list:
        return "a list of results" if content else ""
    annotations = content.get("annotations") if type(content) is dict else None
    entries = [entry for entry in annotations if type(entry) is dict] if type(annotations) is list else []
    panoptic = sum("segments_info" in entry for entry in entries)
    instances = sum("segments_info" not in e and not e.keys().isdisjoint({"segmentation", "bbox"}) for e in entries)
    if not panoptic and not instances:
        return ""
    return "panoptic" if panoptic >= instances else "instances"


def _read_categories(entries: list[Entry], tables: Tables, panoptic: bool) -> None:
    issues, names = tables.issues, dict[str, int]()
    for index, entry in enumerate(entries):
        where = f"{tables.path}, category {reprlib.repr(entry['id']) if 'id' in entry else f'at index {index}'}"
        known = len(issues)
        category_id = value_of(entry, "id", json_fields.INTEGER, where, issues)
        name = value_of(entry, "name", json_fields.TEXT, where, issues)
        isthing = _isthing(entry, where, issues) if panoptic or "isthing" in entry else True
        if len(issues) == known:
            _try_category(entry, where, issues)
        if name is not None and name in names:
            issues.add("category-name-twice", where, f"category {names[name]!r} is called {name!r} too")
        elif name is not None:
            names[name] = entry.get("id", index)
        if category_id in tables.isthing_of:
            issues.add("category-id-twice", where, "expected distinct category ids")
        elif category_id is not None:
            tables.isthing_of[category_id] = isthing


def _try_category(entry: Entry, where: str, issues: IssueList) -> None:
    """What the readers refuse besides: colors, names and ids that cannot be held."""
    try:
        coco.read_categories({"categories": [entry]}, Path(), all_things="isthing" not in entry)
    except DatasetError as error:
        issues.add("type-wrong", where, error.problem)


def _isthing(entry: Entry, where: str, issues: IssueList) -> bool | None:
    if "isthing" not in entry:
        issues.add("key-missing", where, "expected `isthing` to be 0 or 1, got none")
        return None
    value = entry["isthing"]
    if type(value) in (int, bool) and value in (0, 1):
        return bool(value)
    issues.add("isthing-invalid", where, f"`isthing` is {reprlib.repr(value)}")
    return None


def _read_images(entries: list[Entry], tables: Tables) -> None:
    issues, named = tables.issues, dict[str, ImageId]()
    for index, entry in enumerate(entries):
        place: object = f"{tables.path}, image at index {index}"
        image_id = value_of(entry, "id", json_fields.IMAGE_ID, place, issues)
        if image_id is None:
            continue
        place = Location(tables.path, image_id)
        name = inside(entry, "file_name", place, issues)
        size_hw = _size_of(entry, place, issues)
        if image_id in tables.images:
            issues.add("image-id-twice", place, f"expected distinct image ids; the second names {name}")
            continue
        tables.images[image_id] = ImageEntry(image_id, name, size_hw)
        if name is not None and name in named:
            issues.add("file-name-twice", place, f"image {named[name]!r} has the file {name} too")
        elif name is not None:
            named[name] = image_id


def _size_of(entry: Entry, place: object, issues: IssueList) -> tuple[int, int] | None:
    height = value_of(entry, "height", json_fields.INTEGER, place, issues)
    width = value_of(entry, "width", json_fields.INTEGER, place, issues)
    if height is None or width is None:
        return None
    if not is_size(height, width):
        issues.add("size-invalid", place, f"height x width is {reprlib.repr(height)} x {reprlib.repr(width)}")
        return None
    return height, width


def _no_json(path: Path) -> list[str]:
    """Every NaN and Infinity in the file, which Python's parser takes for numbers."""
    content, found = files.read_bytes(path), list[str]()
    if b"NaN" in content or b"Infinity" in content:
        json.loads(content, parse_constant=found.append)
    return found


def _without_place(error: Exception, path: object) -> str:
    return str(error).removeprefix(f"{path}: ") or "not enough memory"
