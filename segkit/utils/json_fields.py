"""Fields of JSON files, typed and checked: each error names the file, the entry and what was expected."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from segkit.utils.errors import DatasetError
from segkit.utils.files import load_json

Entry: TypeAlias = dict[str, Any]

INTEGER, NUMBER, TEXT, LIST, OBJECT = (int,), (int, float), (str,), (list,), (dict,)
IMAGE_ID = (int, str)
TYPE_NAMES = {int: "an integer", float: "a number", str: "a string", list: "a list", dict: "an object"}
LARGEST = 1e300  # a finite number, and so is the sum of a file full of them
MISSING = object()
MAX_DEPTH = 64  # of lists and objects in each other that are written again


class Location(NamedTuple):
    """Where in a file: put into words only when there is something to say."""

    path: Path
    image_id: int | str | None = None
    part: str = ""
    part_id: object = None

    def __str__(self) -> str:
        image = "" if self.image_id is None else f", image {self.image_id!r}"
        return f"{self.path}{image}" + (f", {self.part} {self.part_id!r}" if self.part else "")


def load_object(path: Path) -> Entry:
    """The JSON object in the file; DatasetError where it is missing, not JSON, or a list (of results, say)."""
    content = load_json(path)
    if type(content) is not dict:
        remedy = "a results list has no images and categories: give the dataset's JSON"
        problem = f"expected an object with images, annotations and categories, got a {type(content).__name__}"
        raise DatasetError(problem, where=path, remedy=remedy if type(content) is list else "")
    return content


def get_field(entry: Entry, key: str, types: tuple[type, ...], where: object) -> Any:
    """`entry[key]`; DatasetError where it is missing or of another type (a bool is no number)."""
    value = entry.get(key, MISSING)
    if type(value) in types:
        return value
    expected = " or ".join(TYPE_NAMES[kind] for kind in types)
    got = "none" if value is MISSING else reprlib.repr(value)
    raise DatasetError(f"expected `{key}` to be {expected}, got {got}", where=where)


def get_flag(entry: Entry, key: str, where: object) -> int:
    """`entry[key]` as 0 or 1, 0 where it is missing; DatasetError for anything but 0, 1 and a bool."""
    value = entry.get(key, 0)
    if type(value) in (int, bool) and value in (0, 1):
        return int(value)
    raise DatasetError(f"expected `{key}` to be 0 or 1, got {reprlib.repr(value)}", where=where)


def get_finite(entry: Entry, key: str, where: object) -> float:
    """`entry[key]`, a number that is neither NaN nor infinite; DatasetError otherwise."""
    value: float = get_field(entry, key, NUMBER, where)
    if not -LARGEST <= value <= LARGEST:
        raise DatasetError(f"expected `{key}` to be a finite number, got {reprlib.repr(value)}", where=where)
    return value


def all_finite(values: Collection[Any], largest: float = LARGEST) -> bool:
    """Whether all are numbers of at most `largest` in size, none of them NaN; true of no values."""
    if not values:
        return True
    if not {*map(type, values)} <= {*NUMBER} or min(values) < -largest or max(values) > largest:
        return False
    total = sum(values)  # min and max may step over a NaN, a sum does not
    return bool(total == total)


def get_table(content: Entry, key: str, path: Path) -> list[Entry]:
    """The list of objects `content[key]`; DatasetError where it is something else."""
    return check_objects(get_field(content, key, LIST, path), f"`{key}`", path)


def check_objects(entries: list[Any], name: str, where: object) -> list[Entry]:
    """`entries`, each one an object; DatasetError otherwise."""
    for index, entry in enumerate(entries):
        if type(entry) is not dict:
            got = reprlib.repr(entry)
            raise DatasetError(f"expected {name} to hold objects, got {got} at index {index}", where=where)
    return entries


def unexpected_keys(entries: Iterable[Mapping[str, Any]], known: Collection[str]) -> list[str]:
    """The keys of all entries beside the known ones, sorted."""
    return sorted(set[str]().union(*entries) - {*known})


def other_keys(entry: Mapping[str, Any], known: Collection[str]) -> Entry:
    """What the entry holds beside the known keys, in its order."""
    return {key: value for key, value in entry.items() if key not in known}


def split_writable_keys(entry: Mapping[str, Any]) -> tuple[Entry, list[str]]:
    """What of an entry of any JSON can be written again, and the keys of the rest: NaN, infinity, more than `MAX_DEPTH`
    lists and objects in each other."""
    lost = [key for key, value in entry.items() if not _is_writable(value, MAX_DEPTH)]
    return other_keys(entry, lost), lost


def check_inside(name: object, key: str, where: object) -> str:
    """The name; DatasetError if it is not a relative file name, empty, or leaves its folder on any operating system."""
    if not isinstance(name, str):
        raise DatasetError(f"expected `{key}` to be a path inside its folder, got {reprlib.repr(name)}", where=where)
    parts = name.replace("\\", "/").split("/")
    absolute = parts[0] == "" or name[1:2] == ":"  # a drive of Windows
    if absolute or ".." in parts or parts[-1] in ("", ".") or "\0" in name:
        raise DatasetError(f"expected `{key}` to be a path inside its folder, got {name!r}", where=where)
    return name


def _is_writable(value: Any, depth: int) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if not isinstance(value, dict | list):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_is_writable(one, depth - 1) for one in inner)
