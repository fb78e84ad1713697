"""The tables of a COCO JSON for checks: an invalid entry is reported, and hides no other issue."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePath
from typing import Any, TypeVar

from segkit.curation import image_files
from segkit.curation.image_files import ImageDigest, ImageInspection
from segkit.curation.issues import IssueList, RunAll
from segkit.formats import coco
from segkit.formats.coco import ImageEntry, validation
from segkit.structures import ImageId
from segkit.utils import files, json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.file_names import FolderNames, describe_spelling
from segkit.utils.issues import try_read
from segkit.utils.json_fields import Entry, Location, get_field, get_flag

EMPTY = {"categories": "categories-empty", "images": "dataset-empty", "annotations": "annotations-empty"}
Item = TypeVar("Item")


@dataclass
class Tables:
    """The valid part of the tables of a JSON.

    Attributes:
        path: the JSON.
        images: by image_id, the first entry of each; `file_name` has one spelling per file.
        isthing_by_id: by category_id, None if `isthing` is invalid.
        class_names: by category_id, the id if the name is invalid.
        annotations: the objects of the table.
        outside_names: by image_id, file names that lead out of the image folder.
        issues: what is wrong with images and categories.
    """

    path: Path
    images: dict[ImageId, ImageEntry] = field(default_factory=dict)
    isthing_by_id: dict[int, bool | None] = field(default_factory=dict)
    class_names: dict[int, str] = field(default_factory=dict)
    annotations: list[Entry] = field(default_factory=list)
    outside_names: dict[ImageId, str] = field(default_factory=dict)
    issues: IssueList = field(default_factory=IssueList)

    def get_image(self, annotation: Entry, index: int) -> ImageEntry | None:
        """Get the image of an annotation.

        Args:
            annotation: the JSON object.
            index: its index in the table.

        Returns:
            The image; None, with an issue, if `image_id` is invalid or unknown.
        """
        get = validation.get_image_id
        image_id = try_read(self.issues.add_error, "", get, annotation, index, self.images, self.path)
        return None if image_id is None else self.images[image_id]


def read_tables(path: Path, panoptic: bool) -> Tables | IssueList:
    """Read the tables of a JSON.

    Args:
        path: a panoptic or an instances JSON.
        panoptic: which of them is expected.

    Returns:
        The tables; or only the issue, if the file is not a JSON of this kind.
    """
    issues = IssueList()
    try:
        with files.no_garbage_collection():
            content = files.load_json(path)
    except (DatasetError, MemoryError) as error:
        issues.add("json-unreadable", path, _describe(error, path))
        return issues
    kind, expected = _detect_kind(content), "panoptic" if panoptic else "instances"
    if kind not in ("", expected):
        issues.add("json-kind", path, f"expected JSON of kind {expected}, this is {kind}")
        return issues
    if type(content) is not dict:
        issues.add("type-wrong", path, f"expected an object, got a {type(content).__name__}")
        return issues
    categories, images, annotations = (
        json_fields.get_table(content, key, path, issues.add_error) for key in ("categories", "images", "annotations")
    )
    tables = Tables(path, annotations=annotations, issues=issues)
    _read_categories(categories, tables, panoptic)
    _read_images(images, tables)
    for key, code in EMPTY.items():
        if content.get(key) == [] and (tables.images or key != "annotations"):
            issues.add(code, path, f"`{key}` is empty, `images` has {len(tables.images)}")
    return tables


def check_images(
    check: Callable[[Item], tuple[IssueList, ImageDigest]],
    items: Sequence[Item],
    tables: Tables,
    images: Path | None,
    run_all: RunAll,
    others: Mapping[bytes, str],
    read: Callable[[Path], object],
) -> IssueList:
    """Check all images, what they have in common, and finally whether the reader accepts the JSON.

    Args:
        check: check of one item.
        items: the images with their annotations.
        tables: of the JSON.
        images: the image folder, None if it does not exist.
        run_all: `map`, or a map over processes.
        others: digests of another split's images.
        read: the reader of the JSON.

    Returns:
        The issues of the tables, and all others.
    """
    issues = tables.issues
    digests = image_files.run_checks(check, items, run_all, issues)
    if images:
        names = [image.file_name for image in tables.images.values() if image.file_name]
        issues += image_files.find_orphans(images, names, "image-orphan")
    issues += image_files.find_equal_images(digests, others)
    return issues if issues.has_errors() else issues + _check_readable(tables.path, read)


def resolve_names(tables: Tables, folder: Path | None) -> None:
    """Spell the names of images as their files, and report the names that are spelled otherwise.

    Args:
        tables: of the JSON; its images and issues change.
        folder: the image folder, None if it does not exist.
    """
    names, first_by_name = FolderNames(folder or ""), dict[str, ImageEntry]()
    hints = {str(Location(tables.path, i)): names.explain(name) for i, name in tables.outside_names.items() if folder}
    for index, issue in enumerate(tables.issues):
        if issue.code == "name-outside" and hints.get(issue.place):
            tables.issues[index] = replace(issue, message=f"{issue.message} ({hints[issue.place]})")
    for image_id, image in tables.images.items() if folder else ():
        if image.file_name is None:
            continue
        place, spelling = Location(tables.path, image_id), names.resolve(image.file_name)
        report_spelling(image.file_name, spelling, place, tables.issues)
        first = first_by_name.setdefault(spelling, image)
        if first.file_name != image.file_name:  # equal names are reported already
            tables.issues.add("file-name-twice", place, f"image {first.image_id!r} has the file {spelling} too")
        tables.images[image_id] = image._replace(file_name=spelling)


def report_spelling(name: str, spelling: str, place: object, issues: IssueList) -> None:
    """Report a name that is spelled otherwise than its file.

    Args:
        name: the name in the JSON.
        spelling: the name of the file.
        place: of the entry.
        issues: gets the issue.
    """
    if name != spelling:
        message = f"{name!r} is the file {spelling!r}: the name is spelled {describe_spelling(name, spelling)}"
        issues.add("name-spelling", place, message)


def inspect_image(image: ImageEntry | None, images: Path | None, issues: IssueList) -> tuple[str, ImageInspection]:
    """Inspect the image file of an entry.

    Args:
        image: the entry, if there is one.
        images: the image folder, None if it does not exist.
        issues: gets the issues.

    Returns:
        The path of the image, and the result; both are empty without a file name.
    """
    if images is None or image is None or not image.file_name:
        return "", ImageInspection()
    path = images / image.file_name
    inspection = image_files.inspect_image(path, Location(path, image.image_id))
    issues += inspection.issues
    return str(path), inspection


def name_entry(entry: Entry, index: int) -> str:
    """Name an entry in a place.

    Args:
        entry: the JSON object.
        index: its index in the table.

    Returns:
        Its id, or its index if it has none.
    """
    return reprlib.repr(entry["id"]) if "id" in entry else f"at index {index}"


def report_missing(entry: Entry, keys: dict[str, str], place: str, issues: IssueList) -> None:
    """Report keys that the readers do without.

    Args:
        entry: the JSON object.
        keys: the code of the issue by key.
        place: of the entry.
        issues: gets the issues.
    """
    for key, code in keys.items():
        if key not in entry:
            issues.add(code, place, f"expected `{key}`, got none")


def report_box_outside(
    box: list[float] | None, size_hw: tuple[int, int] | None, place: str, issues: IssueList, slack_px: float = 0
) -> list[float] | None:
    """Report a box that reaches beyond the image.

    Args:
        box: valid [x, y, width, height] in pixels, None if it is invalid.
        size_hw: (height, width) of the image in pixels, None if it is unknown.
        place: of the entry.
        issues: gets the issue.
        slack_px: pixels beyond the image that are accepted.

    Returns:
        The box; None if it is invalid or outside.
    """
    if box is None or size_hw is None or validation.is_box_inside(box, size_hw, slack_px):
        return box
    issues.add("box-outside", place, f"{box} in an image of {size_hw[0]} x {size_hw[1]} (height x width)")
    return None


def normalize_name(name: str | None, place: object, issues: IssueList) -> str | None:
    """Give a file name its one spelling.

    Args:
        name: a valid `file_name`, None if it is invalid.
        place: of the entry.
        issues: gets the issue of a name that is not Unicode.

    Returns:
        The path with single slashes; None if it is invalid or not Unicode.
    """
    try:
        (name or "").encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        issues.add("name-outside", place, f"expected `file_name` to be Unicode, got {reprlib.repr(name)}")
        return None
    return None if name is None else PurePath(name).as_posix()


def _detect_kind(content: Any) -> str:
    """panoptic, instances, a list of results; "" if nothing tells."""
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
    issues, id_by_name = tables.issues, dict[str, int]()
    get = partial(try_read, issues.add_error, "")
    for index, entry in enumerate(entries):
        where = f"{tables.path}, category {name_entry(entry, index)}"
        issues_before = len(issues)
        category_id: int | None = get(get_field, entry, "id", json_fields.INTEGER, where)
        name: str | None = get(get_field, entry, "name", json_fields.TEXT, where)
        isthing: int | None = get(get_flag, entry, "isthing", where)
        if "isthing" not in entry:
            isthing = None if panoptic else 1
            report_missing(entry, {"isthing": "key-missing"} if panoptic else {}, where, issues)
        if len(issues) == issues_before:  # colors, names and ids that cannot be stored
            alone = {"categories": [entry]}
            try_read(issues.add_error, "type-wrong", coco.read_categories, alone, tables.path, not panoptic)
        if name is not None and name in id_by_name:
            issues.add("category-name-twice", where, f"category {id_by_name[name]!r} is called {name!r} too")
        elif name is not None:
            id_by_name[name] = entry.get("id", index)
        if category_id in tables.isthing_by_id:
            issues.add("category-id-twice", where, "expected distinct category ids")
        elif category_id is not None:
            tables.isthing_by_id[category_id] = None if isthing is None else bool(isthing)
            tables.class_names[category_id] = name or str(category_id)


def _read_images(entries: list[Entry], tables: Tables) -> None:
    issues, id_by_name = tables.issues, dict[str, ImageId]()
    for image_id, image in validation.validate_images(entries, tables.path, issues.add_error).items():
        place = Location(tables.path, image_id)
        name = normalize_name(image.file_name, place, issues)
        tables.images[image_id] = image._replace(file_name=name)
        if name is not None and name in id_by_name:
            issues.add("file-name-twice", place, f"image {id_by_name[name]!r} has the file {name} too")
        elif name is not None:
            id_by_name[name] = image_id
    for entry in entries:
        entry_id: Any = entry.get("id")
        file_name: Any = entry.get("file_name")
        is_named = type(entry_id) in json_fields.IMAGE_ID and type(file_name) is str
        if is_named and tables.images[entry_id].file_name is None:
            tables.outside_names[entry_id] = file_name


def _check_readable(path: Path, read: Callable[[Path], object]) -> IssueList:
    """What else keeps a JSON without errors from being used: an error of its reader; NaN and infinity are no JSON."""
    issues, constants = IssueList(), list[str]()
    try:
        read(path)
        content = files.read_bytes(path)
        if b"NaN" in content or b"Infinity" in content:  # which Python's parser accepts
            json.loads(content, parse_constant=constants.append)
    except (DatasetError, MemoryError, RecursionError) as error:
        where = getattr(error, "where", "") or path
        issues.add("annotation-unreadable", where, _describe(error, where))
        return issues
    if constants:
        names = " and no ".join(sorted({*constants}))
        message = f"JSON has no {names}, found {len(constants)} times: other tools refuse it"
        issues.add("number-not-finite", path, message)
    return issues


def _describe(error: Exception, path: object) -> str:
    return str(error).removeprefix(f"{path}: ") or "not enough memory"
