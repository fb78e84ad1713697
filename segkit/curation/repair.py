"""What repairs of COCO datasets have in common: the tables of the JSON, what is told, a copy whole or not at all."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

from segkit.curation.check_tables import read_tables
from segkit.curation.findings import RULES, Findings
from segkit.curation.repair_ids import Ids, with_integer_ids, with_integers, without_copies
from segkit.formats import coco_tables as coco
from segkit.formats.coco_tables import Entry
from segkit.structures import DatasetError

INTEGERS = {"images": ("height", "width"), "categories": ("isthing",), "annotations": ("iscrowd",)}
COPIES = "each is a copy of an earlier one"
NO_IMAGE = "`images` has not their image_id"
NO_CATEGORY = "`categories` has not their category_id"


class Told(Counter[tuple[str, str, str]]):
    """How many of what, and why: (`dropped`, `segments`, `they have no pixel`)."""

    def lines(self) -> list[str]:
        """A line for each that happened at all."""
        return [f"{verb} {number} of the {what}: {why}" for (verb, what, why), number in self.items() if number]


def load(path: Path, panoptic: bool, told: Told) -> Entry:
    """The object in the JSON; its three tables without copies, and ids and sizes that are integers, written as text or
    as a float, as integers. NaN and infinity, which JSON has not, are None.

    Annotations whose image_id surely no image has are dropped. DatasetError where the JSON cannot be read, is of
    another kind, or nested too deep to be written again.
    """
    tables = read_tables(path, panoptic)
    if isinstance(tables, Findings):
        raise DatasetError(tables[0].message, where=path, remedy=RULES[tables[0].code].remedy)
    content: Entry = _finite(coco.load(path), path)
    for key, integers in INTEGERS.items():
        content[key] = [with_integers(entry, *integers) for entry in coco.field(content, key, coco.LIST, path)]
    for key, types in (("images", coco.IMAGE_ID), ("categories", coco.INTEGER)):
        entries = with_integer_ids(content[key], types)
        content[key] = without_copies(entries, "id")
        told["dropped", key, COPIES] += len(entries) - len(content[key])
    image_ids = Ids.of_table(content["images"], coco.IMAGE_ID, content["annotations"], "image_id")
    read = [image_ids.in_entry(annotation, "image_id") for annotation in content["annotations"]]
    kept = image_ids.without_strangers(read, "image_id")
    told["dropped", "annotations", NO_IMAGE] += len(read) - len(kept)
    content["annotations"] = without_copies(kept, "image_id" if panoptic else "id")
    told["dropped", "annotations", COPIES] += len(kept) - len(content["annotations"])
    return content


def flagged(entry: Entry) -> Entry:
    """The entry with `iscrowd`, 0 where it is missing, a number where it is true or false."""
    value = entry.get("iscrowd", 0)
    return {**entry, "iscrowd": int(value) if type(value) is bool else value}


def _finite(content: Any, path: Path, depth: int = coco.MAX_DEPTH) -> Any:
    if not isinstance(content, dict | list):
        return None if isinstance(content, float) and not math.isfinite(content) else content
    if not depth:
        problem = f"expected at most {coco.MAX_DEPTH} lists and objects in each other, got more"
        raise DatasetError(problem, where=path, remedy="take out what is nested so deep")
    if isinstance(content, list):
        return [_finite(value, path, depth - 1) for value in content]
    return {key: _finite(value, path, depth - 1) for key, value in content.items()}
