"""What panoptic and instance repairs share: the log, the tables of a damaged COCO JSON, and fields of its entries."""

from __future__ import annotations

import math
import os
import reprlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segkit.curation.checks.tables import read_tables
from segkit.curation.issues import RULES, IssueList
from segkit.curation.repair.ids import IdTable, drop_copies, get_id, get_value, parse_integer_fields, parse_integer_ids
from segkit.utils import json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.file_names import FolderNames
from segkit.utils.json_fields import Entry

SizeHW = tuple[int, int]
ENTRY_KEYS = "height", "width", "file_name"
INTEGER_FIELDS = {"images": ("height", "width"), "categories": ("isthing",), "annotations": ("iscrowd",)}
COPIES = "each is a copy of an earlier one"
NO_IMAGE = "image_id {} is not in `images`"
NO_CATEGORY = "category_id {} is not in `categories`"
UNCERTAIN = ", but the table has a damaged, repeated or unused id, which may be the one that is meant"
MAX_IDS = 5  # in a line


class RepairLog(Counter[tuple[str, ...]]):
    """Counts by (action, kind of item, reason), e.g. (`dropped`, `segments`, `they have no pixel`).

    The key of an entry with an unknown id has the id as a fourth item; its reason has a placeholder for the ids.
    """

    def must_drop(self, ids: IdTable, entry: Any, key: str, kind: str, reason: str) -> bool:
        """Log an entry whose `key` is an unknown id, and return whether it must be dropped.

        It must be dropped only if it is certain that nothing has this id.
        """
        value = get_id(entry, key)
        if value is None or value in ids.ids:
            return False
        is_certain = ids.certainly_lacks(value)
        action, reason = ("dropped", reason) if is_certain else ("left unchanged", reason + UNCERTAIN)
        self[action, kind, reason, reprlib.repr(value)] += 1
        return is_certain

    def lines(self) -> list[str]:
        """One line for each action, kind and reason that occurred, with the first ids."""
        numbers, ids = Counter[tuple[str, str, str]](), defaultdict[tuple[str, str, str], list[str]](list)
        for (action, kind, reason, *unknown_ids), number in self.items():
            numbers[action, kind, reason] += number
            ids[action, kind, reason] += unknown_ids
        return [
            f"{action} {number} of the {kind}: {reason.format(_format_ids(ids[action, kind, reason]))}"
            for (action, kind, reason), number in numbers.items()
            if number
        ]


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


def correct_sizes(entries: list[Any], sizes: Mapping[Any, SizeHW | None]) -> list[Any]:
    """The entries of images, with height and width of `sizes` if it has the size of their id."""
    sized = [(entry, sizes.get(get_id(entry, "id"))) for entry in entries]
    return [{**entry, "height": size_hw[0], "width": size_hw[1]} if size_hw else entry for entry, size_hw in sized]


def correct_names(entries: list[Any], folder: Path, kind: str, log: RepairLog) -> list[Any]:
    """The entries, with `file_name` spelled as the file in the folder if no other entry names this file."""
    names = FolderNames(folder)
    spellings = [names.resolve(entry["file_name"]) if get_file_name(entry) else None for entry in entries]
    times = Counter(spellings)
    corrected = []
    for entry, spelling in zip(entries, spellings, strict=True):
        is_wrong = spelling is not None and times[spelling] == 1 and spelling != entry["file_name"]
        log["corrected", f"names of {kind}", "the files are spelled otherwise"] += is_wrong
        corrected.append({**entry, "file_name": spelling} if is_wrong else entry)
    return corrected


def get_file_name(entry: Any) -> str | None:
    """The `file_name` of the entry, normalized; None if it is not a name inside a folder."""
    name = get_value(entry, "file_name")
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


def _format_ids(ids: list[str]) -> str:
    more = f" and {len(ids) - MAX_IDS} more" if len(ids) > MAX_IDS else ""
    return ", ".join(ids[:MAX_IDS]) + more
