"""What repairs of COCO datasets have in common: a copy below a folder of its own, whole or not at all."""

from __future__ import annotations

import math
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segkit.formats import coco_tables as coco
from segkit.formats import files
from segkit.formats.coco_tables import Entry
from segkit.structures import DatasetError


def load(path: Path) -> Entry:
    """The object in the JSON, with the three tables as lists; DatasetError where it has none to repair."""
    content = coco.load(path)
    for key in ("images", "annotations", "categories"):
        coco.field(content, key, coco.LIST, path)
    return content


def store(path: Path, content: Entry) -> None:
    """Write the JSON; NaN and infinity, which JSON has not, become null."""
    try:
        files.dump_json(path, _finite(content))
    except RecursionError:
        raise DatasetError("expected JSON, got a nesting too deep to be written", where=path) from None


def without_copies(entries: list[Any], key: str) -> list[Any]:
    """The entries but those equal to an earlier one; only entries of equal `key` are compared."""
    earlier: dict[Any, list[Any]] = {}
    kept = []
    for entry in entries:
        value = key_of(entry, key)
        alike = earlier.setdefault(value, []) if value is not None else []
        if entry not in alike:
            alike.append(entry)
            kept.append(entry)
    return kept


def key_of(entry: Any, key: str) -> int | str | None:
    """`entry[key]` where it is an id."""
    value = entry.get(key) if type(entry) is dict else None
    return value if type(value) in coco.IMAGE_ID else None


def isthing_by_id(content: Entry) -> dict[int, Any]:
    """`isthing`, as it is, of every category that has an id."""
    entries = [entry for entry in content["categories"] if type(entry) is dict and type(entry.get("id")) is int]
    return {entry["id"]: entry.get("isthing") for entry in entries}


def flagged(entry: Entry) -> Entry:
    """The entry with `iscrowd`, 0 where it is missing, a number where it is true or false."""
    value = entry.get("iscrowd", 0)
    return {**entry, "iscrowd": int(value) if type(value) is bool else value}


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill: it becomes `path` at the end of the block, and is removed on an error. DatasetError where
    `path` is there and not an empty folder, or cannot be written."""
    if os.path.lexists(path) and (not path.is_dir() or any(path.iterdir())):
        raise DatasetError("expected an empty or new folder", where=path, remedy="name another one")
    neighbour = path.absolute().with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        neighbour.mkdir(parents=True)
        yield neighbour
        if path.is_dir():
            path.rmdir()
        os.replace(neighbour, path)
    except OSError as error:
        raise DatasetError(f"the copy cannot be written: {error}", where=path) from None
    finally:
        shutil.rmtree(neighbour, ignore_errors=True)


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
