"""The tables of a damaged COCO JSON, and fields that panoptic and instance repairs share."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from segkit.curation.checks.tables import read_tables
from segkit.curation.issues import RULES, IssueList
from segkit.curation.repair.ids import IdTable, drop_copies, parse_integer_fields, parse_integer_ids
from segkit.curation.repair.log import COPIES, NO_IMAGE, RepairLog
from segkit.utils import json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.json_fields import Entry

SizeHW = tuple[int, int]
INTEGER_FIELDS = {"images": ("height", "width"), "categories": ("isthing",), "annotations": ("iscrowd",)}


def load_tables(path: Path, panoptic: bool, log: RepairLog) -> Entry:
    """Load the JSON and repair what concerns all tables.

    - Ids, sizes and flags that are integers written as text or float become integers.
    - NaN and infinity, which JSON does not have, become null.
    - Copies of entries are dropped.
    - Annotations are dropped if certainly no image has their image_id.

    Raises:
        DatasetError: The JSON cannot be read, is of another kind, or is nested too deeply to be written again.
    """
    tables = read_tables(path, panoptic)
    if isinstance(tables, IssueList):
        raise DatasetError(tables[0].message, where=path, remedy=RULES[tables[0].code].remedy)
    content: Entry = _replace_non_finite(json_fields.load_object(path), path)
    for key, fields in INTEGER_FIELDS.items():
        entries = json_fields.get_field(content, key, json_fields.LIST, path)
        content[key] = [parse_integer_fields(entry, *fields) for entry in entries]
    for key, types in (("images", json_fields.IMAGE_ID), ("categories", json_fields.INTEGER)):
        _drop_copies(content, key, parse_integer_ids(content[key], types), "id", log)
    image_ids = IdTable.from_table(content["images"], json_fields.IMAGE_ID, content["annotations"], "image_id")
    corrected = [image_ids.correct(annotation, "image_id") for annotation in content["annotations"]]
    annotations = [a for a in corrected if not log.must_drop(image_ids, a, "image_id", "annotations", NO_IMAGE)]
    _drop_copies(content, "annotations", annotations, "image_id" if panoptic else "id", log)
    return content


def correct_iscrowd(entry: Entry) -> Entry:
    """The entry with `iscrowd`: 0 if it is missing, a number if it is true or false."""
    value = entry.get("iscrowd", 0)
    return {**entry, "iscrowd": int(value) if type(value) is bool else value}


def correct_size(entry: Any, size_hw: SizeHW | None) -> Any:
    """The entry with this height and width; unchanged for None."""
    return {**entry, "height": size_hw[0], "width": size_hw[1]} if size_hw else entry


def get_file_name(entry: Any) -> str | None:
    """The `file_name` of the entry, normalized; None if it is not a name inside a folder."""
    name = entry.get("file_name") if type(entry) is dict else None
    if type(name) is not str:
        return None
    try:
        json_fields.check_inside(name, "file_name", "")
        name.encode()
    except (DatasetError, UnicodeEncodeError):
        return None
    return os.path.normpath(name)


def _drop_copies(content: Entry, table: str, entries: list[Any], key: str, log: RepairLog) -> None:
    content[table] = drop_copies(entries, key)
    log["dropped", table, COPIES] += len(entries) - len(content[table])


def _replace_non_finite(content: Any, path: Path, depth: int = json_fields.MAX_DEPTH) -> Any:
    if not isinstance(content, dict | list):
        return None if isinstance(content, float) and not math.isfinite(content) else content
    if not depth:
        problem = f"expected at most {json_fields.MAX_DEPTH} nested lists and objects, got more"
        raise DatasetError(problem, where=path, remedy="remove the deeply nested values")
    if isinstance(content, list):
        return [_replace_non_finite(value, path, depth - 1) for value in content]
    return {key: _replace_non_finite(value, path, depth - 1) for key, value in content.items()}
