"""What repairs of COCO datasets have in common: the tables of the JSON, what is told, a copy whole or not at all."""

from __future__ import annotations

import math
import os
import reprlib
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from segkit.curation.checks.tables import read_tables
from segkit.curation.issues import RULES, IssueList
from segkit.curation.repair.ids import Ids, key_of, with_integer_ids, with_integers, without_copies
from segkit.utils import json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.json_fields import Entry

INTEGERS = {"images": ("height", "width"), "categories": ("isthing",), "annotations": ("iscrowd",)}
COPIES = "each is a copy of an earlier one"
NO_IMAGE = "image_id {} is not in `images`"
NO_CATEGORY = "category_id {} is not in `categories`"
MISTYPED = ", yet an id there may be mistyped: one is damaged, twice, or that of nothing"
MOST_NAMED = 5  # ids in a line


class Told(Counter[tuple[str, ...]]):
    """How many of what, why, and for which id if for one: (`dropped`, `segments`, `they have no pixel`)."""

    def is_stranger(self, ids: Ids, entry: Any, key: str, what: str, why: str) -> bool:
        """Whether `entry[key]` surely is none of the ids, so that the entry is to be dropped; one that stays, though
        its id is unknown, is told as well."""
        value = key_of(entry, key)
        if value is None or value in ids.known:
            return False
        lacking = ids.lack(value)
        verb, why = ("dropped", why) if lacking else ("left", why + MISTYPED)
        self[verb, what, why, reprlib.repr(value)] += 1
        return lacking

    def lines(self) -> list[str]:
        """A line for each that happened at all, with the first of its ids."""
        numbers, named = Counter[tuple[str, str, str]](), defaultdict[tuple[str, str, str], list[str]](list)
        for (verb, what, why, *ids), number in self.items():
            numbers[verb, what, why] += number
            named[verb, what, why] += ids
        return [
            f"{verb} {number} of the {what}: {why.format(_listed(named[verb, what, why]))}"
            for (verb, what, why), number in numbers.items()
            if number
        ]


def load(path: Path, panoptic: bool, told: Told) -> Entry:
    """The object in the JSON; its three tables without copies, and ids and sizes that are integers, written as text or
    as a float, as integers. NaN and infinity, which JSON has not, are None.

    Annotations whose image_id surely no image has are dropped. DatasetError where the JSON cannot be read, is of
    another kind, or nested too deep to be written again.
    """
    tables = read_tables(path, panoptic)
    if isinstance(tables, IssueList):
        raise DatasetError(tables[0].message, where=path, remedy=RULES[tables[0].code].remedy)
    content: Entry = _finite(json_fields.load_object(path), path)
    for key, integers in INTEGERS.items():
        content[key] = [
            with_integers(entry, *integers) for entry in json_fields.get_field(content, key, json_fields.LIST, path)
        ]
    for key, types in (("images", json_fields.IMAGE_ID), ("categories", json_fields.INTEGER)):
        entries = with_integer_ids(content[key], types)
        content[key] = without_copies(entries, "id")
        told["dropped", key, COPIES] += len(entries) - len(content[key])
    image_ids = Ids.of_table(content["images"], json_fields.IMAGE_ID, content["annotations"], "image_id")
    read = [image_ids.in_entry(annotation, "image_id") for annotation in content["annotations"]]
    kept = [one for one in read if not told.is_stranger(image_ids, one, "image_id", "annotations", NO_IMAGE)]
    content["annotations"] = without_copies(kept, "image_id" if panoptic else "id")
    told["dropped", "annotations", COPIES] += len(kept) - len(content["annotations"])
    return content


def flagged(entry: Entry) -> Entry:
    """The entry with `iscrowd`, 0 where it is missing, a number where it is true or false."""
    value = entry.get("iscrowd", 0)
    return {**entry, "iscrowd": int(value) if type(value) is bool else value}


def of_size(entry: Any, size_hw: tuple[int, int] | None) -> Any:
    """The entry with this height and width; as it is for None."""
    return {**entry, "height": size_hw[0], "width": size_hw[1]} if size_hw else entry


def name_in(entry: Any) -> str | None:
    """The `file_name` in the entry, where it is one inside a folder."""
    name = entry.get("file_name") if type(entry) is dict else None
    if type(name) is not str:
        return None
    try:
        json_fields.check_inside(name, "file_name", "")
        name.encode()
    except (DatasetError, UnicodeEncodeError):
        return None
    return os.path.normpath(name)


def _listed(ids: list[str]) -> str:
    more = f" and {len(ids) - MOST_NAMED} more" if len(ids) > MOST_NAMED else ""
    return ", ".join(ids[:MOST_NAMED]) + more


def _finite(content: Any, path: Path, depth: int = json_fields.MAX_DEPTH) -> Any:
    if not isinstance(content, dict | list):
        return None if isinstance(content, float) and not math.isfinite(content) else content
    if not depth:
        problem = f"expected at most {json_fields.MAX_DEPTH} lists and objects in each other, got more"
        raise DatasetError(problem, where=path, remedy="take out what is nested so deep")
    if isinstance(content, list):
        return [_finite(value, path, depth - 1) for value in content]
    return {key: _finite(value, path, depth - 1) for key, value in content.items()}
