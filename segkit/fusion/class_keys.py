"""Options with a value per class: from class names, as people write them, to contiguous ids, as methods need them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segkit.utils.errors import ConfigError
from segkit.utils.text import suggest

PER_CLASS_OPTIONS = ("class_score_thresholds",)


def resolve_class_keys(options: Mapping[str, Any], things: Mapping[int, str]) -> dict[str, Any]:
    """Replace class names by thing contiguous ids in the keys of PER_CLASS_OPTIONS.

    Args:
        options: Options of a fusion method. A key of a per-class option is a name or a thing contiguous id.
        things: Thing contiguous id -> name.

    Returns:
        A copy of the options, with ids as keys.

    Raises:
        ConfigError: A class is unknown or appears twice, or several things have the name.
    """
    resolved = dict(options)
    for option in PER_CLASS_OPTIONS:
        if isinstance(values := options.get(option), Mapping):
            resolved[option] = _resolve_keys(values, things, option)
    return resolved


def _resolve_keys(values: Mapping[Any, Any], things: Mapping[int, str], option: str) -> dict[int, Any]:
    resolved: dict[int, Any] = {}
    for key, value in values.items():
        class_id = _find_class_id(key, things, option)
        if class_id in resolved:
            raise ConfigError(f"option {option!r} has the thing class {things[class_id]!r} twice", remedy="keep one")
        resolved[class_id] = value
    return resolved


def _find_class_id(key: Any, things: Mapping[int, str], option: str) -> int:
    ids = [class_id for class_id, name in things.items() if name == key]
    if len(ids) > 1:
        raise ConfigError(f"option {option!r}: several things have the name {key!r}", remedy=f"give an id of {ids}")
    if ids := ids or [class_id for class_id in things if str(class_id) == str(key)]:
        return ids[0]
    names = [*dict.fromkeys(things.values())]
    remedy = suggest(key, names, f"the things are {names[:20]}")
    raise ConfigError(f"option {option!r} has no thing class {key!r}", remedy=remedy)
