"""Options that are set class by class: from names, which people write, to contiguous ids, which methods read."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from segkit.utils.errors import ConfigError

PER_CLASS_OPTIONS = ("class_score_thresholds",)


def resolve_class_keys(options: Mapping[str, Any], things: Mapping[int, str]) -> dict[str, Any]:
    """The options with the keys of those that are PER_CLASS_OPTIONS as thing contiguous ids.

    things: thing contiguous id -> name. A key is a name or, a whole number, an id that is kept. ConfigError for an
    unknown one, a name that several things have, and a class that is there twice.
    """
    found = dict(options)
    for option in PER_CLASS_OPTIONS:
        if isinstance(values := options.get(option), Mapping):
            found[option] = _by_id(values, things, option)
    return found


def _by_id(values: Mapping[Any, Any], things: Mapping[int, str], option: str) -> dict[int, Any]:
    found: dict[int, Any] = {}
    for key, value in values.items():
        class_id = _id_of(key, things, option)
        if class_id in found:
            raise ConfigError(f"option {option!r} has the thing class {things[class_id]!r} twice", remedy="keep one")
        found[class_id] = value
    return found


def _id_of(key: Any, things: Mapping[int, str], option: str) -> int:
    named = [class_id for class_id, name in things.items() if name == key]
    if len(named) > 1:
        raise ConfigError(f"option {option!r}: several things have the name {key!r}", remedy=f"give an id of {named}")
    if named := named or [class_id for class_id in things if str(class_id) == str(key)]:
        return named[0]
    names = [*dict.fromkeys(things.values())]
    near = difflib.get_close_matches(str(key), names, n=1)
    remedy = f"did you mean {near[0]!r}?" if near else f"the things are {names[:20]}"
    raise ConfigError(f"option {option!r} has no thing class {key!r}", remedy=remedy)
