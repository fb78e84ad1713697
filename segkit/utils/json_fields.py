"""Typed fields of JSON files: each error names the entry, what was expected, and the code of its issue."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from segkit.utils.errors import DatasetError
from segkit.utils.files import load_json
from segkit.utils.issues import IssueHandler, raise_issue, try_read

Entry: TypeAlias = dict[str, Any]

INTEGER, NUMBER, TEXT, LIST, OBJECT = (int,), (int, float), (str,), (list,), (dict,)
IMAGE_ID = (int, str)
TYPE_NAMES = {int: "an integer", float: "a number", str: "a string", list: "a list", dict: "an object"}
LARGEST = 1e300  # of a finite number: the sum of a file full of them is finite, too
MISSING = object()
MAX_DEPTH = 64  # nested lists and objects that are written again


class Location(NamedTuple):
    """An entry of a file, put into words only if there is something to report.

    Attributes:
        path: the file.
        image_id: id of the image, None if the location is the whole file.
        part: kind of the entry in the image, such as `segment`; "" if the location is the whole image.
        part_id: id of the entry.
    """

    path: Path
    image_id: int | str | None = None
    part: str = ""
    part_id: object = None

    def __str__(self) -> str:
        image = "" if self.image_id is None else f", image {self.image_id!r}"
        return f"{self.path}{image}" + (f", {self.part} {self.part_id!r}" if self.part else "")


def load_object(path: Path) -> Entry:
    """Load a JSON file that holds one object.

    Args:
        path: the JSON file.

    Returns:
        The object.

    Raises:
        DatasetError: the file is missing, is not JSON, or holds something else, such as a list of results.
    """
    content = load_json(path)
    if type(content) is not dict:
        remedy = "a results list has no images and categories: give the dataset's JSON"
        problem = f"expected an object with images, annotations and categories, got a {type(content).__name__}"
        raise DatasetError(problem, where=path, remedy=remedy if type(content) is list else "", code="type-wrong")
    return content


def get_field(entry: Entry, key: str, types: tuple[type, ...], where: object) -> Any:
    """Get a field of a known type.

    Args:
        entry: the JSON object.
        key: the name of the field.
        types: accepted types, such as `INTEGER`; a bool is not a number.
        where: location of the entry, for the message.

    Returns:
        `entry[key]`.

    Raises:
        DatasetError: the field is missing (code `key-missing`) or has another type (`type-wrong`).
    """
    value = entry.get(key, MISSING)
    if type(value) in types:
        return value
    expected = " or ".join(TYPE_NAMES[kind] for kind in types)
    got, code = ("none", "key-missing") if value is MISSING else (reprlib.repr(value), "type-wrong")
    raise DatasetError(f"expected `{key}` to be {expected}, got {got}", where=where, code=code)


def get_flag(entry: Entry, key: str, where: object) -> int:
    """Get a flag, such as `iscrowd`.

    Args:
        entry: the JSON object.
        key: the name of the field.
        where: location of the entry, for the message.

    Returns:
        0 or 1; 0 if the field is missing.

    Raises:
        DatasetError: the field is not 0, 1, false or true (code `<key>-invalid`).
    """
    value = entry.get(key, 0)
    if type(value) in (int, bool) and value in (0, 1):
        return int(value)
    problem = f"expected `{key}` to be 0 or 1, got {reprlib.repr(value)}"
    raise DatasetError(problem, where=where, code=f"{key}-invalid")


def get_finite(entry: Entry, key: str, where: object) -> float:
    """Get a finite number.

    Args:
        entry: the JSON object.
        key: the name of the field.
        where: location of the entry, for the message.

    Returns:
        `entry[key]`.

    Raises:
        DatasetError: the field is missing, is not a number, or is NaN, infinite or beyond `LARGEST`
            (code `number-not-finite`).
    """
    value: float = get_field(entry, key, NUMBER, where)
    if not -LARGEST <= value <= LARGEST:
        problem = f"expected `{key}` to be a finite number, got {reprlib.repr(value)}"
        raise DatasetError(problem, where=where, code="number-not-finite")
    return value


def all_finite(values: Collection[Any], largest: float = LARGEST) -> bool:
    """Check many numbers at once.

    Args:
        values: any values.
        largest: limit of their size.

    Returns:
        Whether all are numbers in [-largest, largest], without NaN; True for no values.
    """
    if not values:
        return True
    if not {*map(type, values)} <= {*NUMBER} or min(values) < -largest or max(values) > largest:
        return False
    total = sum(values)  # min and max may step over a NaN, a sum does not
    return bool(total == total)


def get_table(content: Entry, key: str, where: object, on_issue: IssueHandler = raise_issue) -> list[Entry]:
    """Get a list of objects.

    Args:
        content: the content of the file, or one of its objects.
        key: the name of the list.
        where: location of `content`, for the message.
        on_issue: takes the code and the error if the field is missing or of another type, or of an entry that is not an
            object.

    Returns:
        The objects of `content[key]`.

    Raises:
        DatasetError: by default, for each of these issues.
    """
    entries = try_read(on_issue, "", get_field, content, key, LIST, where)
    return check_objects(entries or [], f"`{key}`", where, on_issue)


def check_objects(entries: list[Any], name: str, where: object, on_issue: IssueHandler = raise_issue) -> list[Entry]:
    """Check that a list holds objects only.

    Args:
        entries: the list.
        name: of the list, for the message.
        where: location of the list, for the message.
        on_issue: takes the code `type-wrong` and the error of each other entry.

    Returns:
        The objects of the list.

    Raises:
        DatasetError: by default, if an entry is not an object.
    """
    for index, entry in enumerate(entries):
        if type(entry) is not dict:
            problem = f"expected {name} to hold objects, got {reprlib.repr(entry)} at index {index}"
            on_issue("type-wrong", DatasetError(problem, where=where, code="type-wrong"))
    return [entry for entry in entries if type(entry) is dict]


def unexpected_keys(entries: Iterable[Mapping[str, Any]], known: Collection[str]) -> list[str]:
    """List the keys that are not read.

    Args:
        entries: JSON objects.
        known: the keys that are read.

    Returns:
        All other keys of the entries, sorted.
    """
    return sorted(set[str]().union(*entries) - {*known})


def other_keys(entry: Mapping[str, Any], known: Collection[str]) -> Entry:
    """Keep what is not read.

    Args:
        entry: a JSON object.
        known: the keys that are read.

    Returns:
        The entry without these keys, in its order.
    """
    return {key: value for key, value in entry.items() if key not in known}


def split_writable_keys(entry: Mapping[str, Any]) -> tuple[Entry, list[str]]:
    """Separate what can be written again: not NaN, not infinity, at most `MAX_DEPTH` nested lists and objects.

    Args:
        entry: an object of any JSON that Python reads.

    Returns:
        The entry without values that cannot be written, and the keys of these.
    """
    lost = [key for key, value in entry.items() if not _is_writable(value, MAX_DEPTH)]
    return other_keys(entry, lost), lost


def check_inside(name: object, key: str, where: object) -> str:
    """Check that a file name stays inside its folder on any operating system.

    Args:
        name: the value of the field, a relative path.
        key: the name of the field, for the message.
        where: location of the entry, for the message.

    Returns:
        The name.

    Raises:
        DatasetError: the name is not a string, is empty or absolute, or leads out of its folder (code `name-outside`).
    """
    if isinstance(name, str):
        parts = name.replace("\\", "/").split("/")
        is_absolute = parts[0] == "" or name[1:2] == ":"  # a drive of Windows
        if not is_absolute and ".." not in parts and parts[-1] not in ("", ".") and "\0" not in name:
            return name
    problem = f"expected `{key}` to be a path inside its folder, got {reprlib.repr(name)}"
    raise DatasetError(problem, where=where, code="name-outside")


def _is_writable(value: Any, depth: int) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if not isinstance(value, dict | list):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_is_writable(item, depth - 1) for item in inner)
