"""The fields of an entry of COCO's JSON, one by one: what is unsound is told, and taken for none."""

from __future__ import annotations

import reprlib
from pathlib import PurePath
from typing import Any

from segkit.curation.issues import IssueList
from segkit.utils import json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.json_fields import MISSING, TYPE_NAMES, Entry

NEEDED, OPTIONAL = "key-missing", "key-missing-optional"  # codes of a key that is not there
BOX_NUMBERS = 4


def value_of(entry: Entry, key: str, types: tuple[type, ...], place: object, issues: IssueList) -> Any:
    """`entry[key]`, None with a finding where it is missing or of another type (a bool is no number)."""
    value = entry.get(key, MISSING)
    if type(value) in types:
        return value
    expected = " or ".join(TYPE_NAMES[kind] for kind in types)
    if value is MISSING:
        issues.add("key-missing", place, f"expected `{key}`, {expected}, got none")
    else:
        issues.add("type-wrong", place, f"expected `{key}` to be {expected}, got {reprlib.repr(value)}")
    return None


def number_of(entry: Entry, key: str, place: object, issues: IssueList, code_missing: str) -> float | None:
    """`entry[key]`, a finite number; None with a finding otherwise, of code_missing where the key is missing."""
    if key not in entry:
        issues.add(code_missing, place, f"expected `{key}`, got none")
        return None
    value: float | None = value_of(entry, key, json_fields.NUMBER, place, issues)
    if value is not None and not -json_fields.LARGEST <= value <= json_fields.LARGEST:
        issues.add("number-not-finite", place, f"`{key}` is {reprlib.repr(value)}")
        return None
    return value


def box_of(
    entry: Entry,
    size_hw: tuple[int, int] | None,
    place: object,
    issues: IssueList,
    code_missing: str,
    slack_px: float = 0,
) -> list[float] | None:
    """`entry["bbox"]`, four numbers inside the image; None with a finding otherwise, as `number_of` has it."""
    if "bbox" not in entry:
        issues.add(code_missing, place, "expected `bbox`, got none")
        return None
    box: list[float] | None = value_of(entry, "bbox", json_fields.LIST, place, issues)
    if box is None:
        return None
    if not {*map(type, box)} <= {*json_fields.NUMBER} or len(box) != BOX_NUMBERS:
        issues.add("box-invalid", place, f"expected [x, y, width, height], got {reprlib.repr(box)}")
    elif not json_fields.all_finite(box):
        issues.add("number-not-finite", place, f"`bbox` is {reprlib.repr(box)}")
    elif min(box[2:]) < 0:
        issues.add("box-invalid", place, f"width and height must not be negative, got {box}")
    elif size_hw is not None and (
        min(box[:2]) < -slack_px or box[0] + box[2] > size_hw[1] + slack_px or box[1] + box[3] > size_hw[0] + slack_px
    ):
        issues.add("box-outside", place, f"{box} in an image of {size_hw[0]} x {size_hw[1]} (height x width)")
    else:
        return box
    return None


def crowd_of(entry: Entry, isthing: bool | None, place: object, issues: IssueList, code_missing: str) -> bool:
    """`entry["iscrowd"]`, False where it is unsound; told, too, where stuff has it."""
    if "iscrowd" not in entry:
        issues.add(code_missing, place, "expected `iscrowd`, got none")
        return False
    value = entry["iscrowd"]
    if type(value) not in (int, bool) or value not in (0, 1):
        issues.add("iscrowd-invalid", place, f"`iscrowd` is {reprlib.repr(value)}")
        return False
    if value and isthing is False:
        issues.add("crowd-of-stuff", place, f"category {entry.get('category_id')!r} is stuff, `iscrowd` is 1")
    return bool(value)


def inside(entry: Entry, key: str, place: object, issues: IssueList) -> str | None:
    """The file name `entry[key]` in its one spelling; None with a finding where it is none or leads out of its
    folder."""
    name: str | None = value_of(entry, key, json_fields.TEXT, place, issues)
    if name is None:
        return None
    try:
        json_fields.check_inside(name, key, "")
        name.encode("utf-8", "surrogateescape")
    except DatasetError as error:
        issues.add("name-outside", place, error.problem)
    except UnicodeEncodeError:
        issues.add("name-outside", place, f"`{key}` is no Unicode, and no name of a file: {reprlib.repr(name)}")
    else:
        return PurePath(name).as_posix()
    return None
