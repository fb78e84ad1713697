"""Ids and integers of a damaged COCO JSON: which are what they should be, which are but written otherwise."""

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
class Ids:
    """Ids that something has. complete: whether these are all of them, so that others are unknown."""

    known: frozenset[int | str]
    complete: bool = True

    @classmethod
    def of_table(cls, entries: list[Any], types: tuple[type, ...], asking: Iterable[Any], key: str) -> Ids:
        """The `id` of the entries. They are not complete where one is damaged, there twice, or `key` of no object in
        `asking`: it may be mistyped, and be meant by what asks for an unknown one."""
        found = [key_of(entry, "id") for entry in entries]
        ids = cls(frozenset(i for i in found if i is not None and type(i) in types), False)
        asked = {key_of(ids.in_entry(entry, key), key) for entry in asking}
        return cls(ids.known, len(ids.known) == len(found) and ids.known <= asked)

    def in_entry(self, entry: Any, key: str) -> Any:
        """The entry, `entry[key]` the id that it is, or is written as text or a float; as it is where it is none."""
        value = entry.get(key) if type(entry) is dict else None
        number = integer_of(value)
        if number is None or (type(value) is not float and value in self.known):
            return entry
        meant = [i for i in (number, str(number)) if i in self.known]
        return {**entry, key: meant[0]} if len(meant) == 1 else entry

    def lack(self, value: Any) -> bool:
        """Whether `value` is an id that surely is not among these: where they are all text, an integer may be one."""
        return self.complete and type(value) in self._types and value not in self.known

    @cached_property
    def _types(self) -> set[type]:
        return {*map(type, self.known)}


def key_of(entry: Any, key: str) -> int | str | None:
    """`entry[key]` where it is an id."""
    value = entry.get(key) if type(entry) is dict else None
    return value if type(value) in json_fields.IMAGE_ID else None


def integer_of(value: Any) -> int | None:
    """The integer that the value is, or is written as text or a float; None where it is none."""
    if type(value) is int or (type(value) is float and value.is_integer()):
        return int(value)
    return int(value) if type(value) is str and INTEGER_TEXT.fullmatch(value) else None


def with_integers(entry: Any, *keys: str) -> Any:
    """The entry, these of its values integers where they are written as text or floats."""
    if type(entry) is not dict:
        return entry
    found = {key: integer_of(entry[key]) for key in keys if type(entry.get(key)) in (str, float)}
    return {**entry, **{key: number for key, number in found.items() if number is not None}} if found else entry


def with_integer_ids(entries: list[Any], types: tuple[type, ...]) -> list[Any]:
    """The entries, each `id` that is of none of these types an integer, where it is one that no other entry has."""
    numbers = [integer_of(entry.get("id")) if type(entry) is dict else None for entry in entries]
    times = Counter(numbers)
    return [
        {**entry, "id": number}
        if number is not None and times[number] == 1 and type(entry["id"]) not in types
        else entry
        for entry, number in zip(entries, numbers, strict=True)
    ]


def without_copies(entries: list[Any], key: str) -> list[Any]:
    """The entries but those equal to an earlier one; only entries of equal `key` are compared."""
    times = Counter(key_of(entry, key) for entry in entries)
    earlier: defaultdict[Any, set[str]] = defaultdict(set)
    kept = []
    for entry in entries:
        value = key_of(entry, key)
        if value is not None and times[value] > 1:
            text = json.dumps(entry, sort_keys=True)
            if text in earlier[value]:
                continue
            earlier[value].add(text)
        kept.append(entry)
    return kept


def agreed(entries: list[Any], keys: Collection[str]) -> dict[int | str, tuple[Any, ...]]:
    """The values of `keys` of every id, as they are; None for each where entries of one id contradict each other."""
    found: dict[int | str, tuple[Any, ...]] = {}
    for entry in entries:
        entry_id = key_of(entry, "id")
        if entry_id is not None:
            values = tuple(entry.get(key) for key in keys)
            if found.setdefault(entry_id, values) != values:
                found[entry_id] = (None,) * len(keys)
    return found
