"""What COCO's JSON files have in common, read entry by entry: a damaged one is told and hides no other."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segkit.curation.checks.fields import inside, value_of
from segkit.curation.issues import Findings
from segkit.formats.coco import tables as coco
from segkit.formats.coco.tables import Entry, ImageId, Place
from segkit.utils import files
from segkit.utils.errors import DatasetError

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
    findings: Findings = field(default_factory=Findings)


def read_tables(path: Path, panoptic: bool) -> Tables | Findings:
    """The tables of a panoptic or an instances JSON with what is wrong with images and categories; or, where it is no
    JSON of the kind, just that."""
    findings = Findings()
    try:
        with files.no_garbage_collection():
            content = files.load_json(path)
    except (DatasetError, MemoryError) as error:
        findings.tell("json-unreadable", path, _without_place(error, path))
        return findings
    kind = _kind_of(content)
    if kind not in ("", "panoptic" if panoptic else "instances"):
        expected = "panoptic" if panoptic else "instances"
        findings.tell("json-kind", path, f"expected JSON of kind {expected}, this is {kind}")
        return findings
    if type(content) is not dict:
        findings.tell("type-wrong", path, f"expected an object, got a {type(content).__name__}")
        return findings
    tables = Tables(path)
    _read_categories(_table(content, "categories", tables), tables, panoptic)
    _read_images(_table(content, "images", tables), tables)
    tables.annotations = _table(content, "annotations", tables)
    if tables.images and content.get("annotations") == []:
        tables.findings.tell("annotations-empty", path, f"`annotations` is empty, `images` has {len(tables.images)}")
    return tables


def refusals(path: Path, read: Callable[[Path], object]) -> Findings:
    """What else keeps the JSON from being used: what its reader `read` refuses, and numbers that are no JSON."""
    findings = Findings()
    try:
        read(path)
        strange = _no_json(path)
    except (DatasetError, MemoryError, RecursionError) as error:
        where = getattr(error, "where", "") or path
        findings.tell("annotation-unreadable", where, _without_place(error, where))
        return findings
    if strange:
        message = (
            f"JSON has no {' and no '.join(sorted({*strange}))}, found {len(strange)} times: other tools refuse it"
        )
        findings.tell("number-not-finite", path, message)
    return findings


def category_of(entry: Entry, tables: Tables, place: object, findings: Findings) -> int | None:
    """`entry["category_id"]`, None with a finding where it is none of the categories."""
    category_id: int | None = value_of(entry, "category_id", coco.INTEGER, place, findings)
    if category_id is None or category_id in tables.isthing_of:
        return category_id
    known = coco.listed(sorted(tables.isthing_of))
    findings.tell("category-unknown", place, f"category_id is {reprlib.repr(category_id)}; the categories are {known}")
    return None


def image_of(annotation: Entry, index: int, tables: Tables, findings: Findings) -> ImageEntry | None:
    """The annotation's image entry; None with a finding where there is none."""
    where = f"{tables.path}, annotation at index {index}"
    image_id = value_of(annotation, "image_id", coco.IMAGE_ID, where, findings)
    if image_id is None:
        return None
    if image_id not in tables.images:
        message = "the annotation has this image_id, `images` has not"
        findings.tell("annotation-without-image", Place(tables.path, image_id), message)
    return tables.images.get(image_id)


def is_size(height: Any, width: Any) -> bool:
    """Whether these are pixels of an image whose run lengths COCO can hold."""
    return type(height) is type(width) is int and min(height, width) > 0 and height * width <= MAX_PIXELS


def _table(content: Entry, key: str, tables: Tables) -> list[Entry]:
    entries = value_of(content, key, coco.LIST, tables.path, tables.findings) or []
    found = []
    for index, entry in enumerate(entries):
        if type(entry) is dict:
            found.append(entry)
        else:
            place = f"{tables.path}, {key} at index {index}"
            tables.findings.tell("type-wrong", place, f"expected an object, got {reprlib.repr(entry)}")
    if not entries and type(content.get(key)) is list and key in ("images", "categories"):
        code = "dataset-empty" if key == "images" else "categories-empty"
        tables.findings.tell(code, tables.path, f"`{key}` is empty")
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
    findings, names = tables.findings, dict[str, int]()
    for index, entry in enumerate(entries):
        where = f"{tables.path}, category {reprlib.repr(entry['id']) if 'id' in entry else f'at index {index}'}"
        known = len(findings)
        category_id = value_of(entry, "id", coco.INTEGER, where, findings)
        name = value_of(entry, "name", coco.TEXT, where, findings)
        isthing = _isthing(entry, where, findings) if panoptic or "isthing" in entry else True
        if len(findings) == known:
            _try_category(entry, where, findings)
        if name is not None and name in names:
            findings.tell("category-name-twice", where, f"category {names[name]!r} is called {name!r} too")
        elif name is not None:
            names[name] = entry.get("id", index)
        if category_id in tables.isthing_of:
            findings.tell("category-id-twice", where, "expected distinct category ids")
        elif category_id is not None:
            tables.isthing_of[category_id] = isthing


def _try_category(entry: Entry, where: str, findings: Findings) -> None:
    """What the readers refuse besides: colors, names and ids that cannot be held."""
    try:
        coco.categories_of({"categories": [entry]}, Path(), all_things="isthing" not in entry)
    except DatasetError as error:
        findings.tell("type-wrong", where, error.problem)


def _isthing(entry: Entry, where: str, findings: Findings) -> bool | None:
    if "isthing" not in entry:
        findings.tell("key-missing", where, "expected `isthing` to be 0 or 1, got none")
        return None
    value = entry["isthing"]
    if type(value) in (int, bool) and value in (0, 1):
        return bool(value)
    findings.tell("isthing-invalid", where, f"`isthing` is {reprlib.repr(value)}")
    return None


def _read_images(entries: list[Entry], tables: Tables) -> None:
    findings, named = tables.findings, dict[str, ImageId]()
    for index, entry in enumerate(entries):
        place: object = f"{tables.path}, image at index {index}"
        image_id = value_of(entry, "id", coco.IMAGE_ID, place, findings)
        if image_id is None:
            continue
        place = Place(tables.path, image_id)
        name = inside(entry, "file_name", place, findings)
        size_hw = _size_of(entry, place, findings)
        if image_id in tables.images:
            findings.tell("image-id-twice", place, f"expected distinct image ids; the second names {name}")
            continue
        tables.images[image_id] = ImageEntry(image_id, name, size_hw)
        if name is not None and name in named:
            findings.tell("file-name-twice", place, f"image {named[name]!r} has the file {name} too")
        elif name is not None:
            named[name] = image_id


def _size_of(entry: Entry, place: object, findings: Findings) -> tuple[int, int] | None:
    height = value_of(entry, "height", coco.INTEGER, place, findings)
    width = value_of(entry, "width", coco.INTEGER, place, findings)
    if height is None or width is None:
        return None
    if not is_size(height, width):
        findings.tell("size-invalid", place, f"height x width is {reprlib.repr(height)} x {reprlib.repr(width)}")
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
