"""Ids and integers in a damaged COCO JSON: which are valid, and which are only written in another type."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from segkit.utils import json_fields

INTEGER_TEXT = re.compile(r"0|-?[1-9][0-9]{0,18}")


@dataclass(frozen=True)
class IdTable:
    """The ids of a table.

    Attributes:
        ids: The valid ids.
        is_complete: Whether the table certainly has no other id. False if one of its ids may be mistyped.
    """

    ids: frozenset[int | str]
    is_complete: bool = True

    @classmethod
    def from_table(cls, entries: list[Any], types: tuple[type, ...], users: Iterable[Any], key: str) -> IdTable:
        """Collect the `id` of the entries.

        An id may be mistyped if it is damaged, if two entries have it, or if no user refers to it. A user with an
        unknown id may then mean this entry.

        Args:
            entries: The table.
            types: Types of a valid id.
            users: Entries of other tables that refer to this one.
            key: Key of the reference in the users.
        """
        entry_ids = [get_id(entry, "id") for entry in entries]
        table = cls(frozenset(i for i in entry_ids if i is not None and type(i) in types), False)
        used = {get_id(table.correct(user, key), key) for user in users}
        return cls(table.ids, len(table.ids) == len(entry_ids) and table.ids <= used)

    def correct(self, entry: Any, key: str) -> Any:
        """The entry with `entry[key]` as an id of the table, if it is one written as text, float or integer."""
        value = get_value(entry, key)
        number = parse_integer(value)
        if number is None or (type(value) is not float and value in self.ids):
            return entry
        candidates = [i for i in (number, str(number)) if i in self.ids]
        return {**entry, key: candidates[0]} if len(candidates) == 1 else entry

    def certainly_lacks(self, value: Any) -> bool:
        """Whether `value` certainly is not an id of the table. An integer is uncertain if all ids are text."""
        return self.is_complete and type(value) in self._types and value not in self.ids

    @cached_property
    def _types(self) -> set[type]:
        return {*map(type, self.ids)}


def get_value(entry: Any, key: str) -> Any:
    """`entry[key]`; None if the entry is not an object or lacks the key."""
    return entry.get(key) if type(entry) is dict else None


def get_id(entry: Any, key: str) -> int | str | None:
    """`entry[key]` if it has the type of an id."""
    value = get_value(entry, key)
    return value if type(value) in json_fields.IMAGE_ID else None


def parse_integer(value: Any) -> int | None:
    """The integer that the value is, or that it is as text or float; None for any other value."""
    if type(value) is int or (type(value) is float and value.is_integer()):
        return int(value)
    return int(value) if type(value) is str and INTEGER_TEXT.fullmatch(value) else None


def parse_integer_fields(entry: Any, *keys: str) -> Any:
    """The entry with these fields as integers if they are integers written as text or float."""
    if type(entry) is not dict:
        return entry
    numbers = {key: parse_integer(entry[key]) for key in keys if type(entry.get(key)) in (str, float)}
    return {**entry, **{key: number for key, number in numbers.items() if number is not None}} if numbers else entry


def parse_integer_ids(entries: list[Any], types: tuple[type, ...]) -> list[Any]:
    """The entries; an `id` of another type becomes an integer if it is one and no other entry has it."""
    numbers = [parse_integer(get_value(entry, "id")) for entry in entries]
    times, corrected = Counter(numbers), []
    for entry, number in zip(entries, numbers, strict=True):
        is_mistyped = number is not None and times[number] == 1 and type(entry["id"]) not in types
        corrected.append({**entry, "id": number} if is_mistyped else entry)
    return corrected


def drop_copies(entries: list[Any], key: str) -> list[Any]:
    """The entries without those that equal an earlier one; only entries with the same `key` are compared."""
    times = Counter(get_id(entry, key) for entry in entries)
    texts: defaultdict[Any, set[str]] = defaultdict(set)
    distinct = []
    for entry in entries:
        value = get_id(entry, key)
        if value is not None and times[value] > 1:
            text = json.dumps(entry, sort_keys=True)
            if text in texts[value]:
                continue
            texts[value].add(text)
        distinct.append(entry)
    return distinct


def collect_values(entries: list[Any], keys: Collection[str]) -> dict[int | str, tuple[Any, ...]]:
    """Id -> values of `keys`; all None if entries with the same id contradict each other."""
    values_by_id: dict[int | str, tuple[Any, ...]] = {}
    for entry in entries:
        entry_id = get_id(entry, "id")
        if entry_id is not None:
            values = tuple(entry.get(key) for key in keys)
            if values_by_id.setdefault(entry_id, values) != values:
                values_by_id[entry_id] = (None,) * len(keys)
    return values_by_id
