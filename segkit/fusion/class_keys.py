"""Options that are set class by class: from names, which people write, to contiguous ids, which methods read."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from segkit.structures import ConfigError

PER_CLASS = ("score_threshold_of",)


def by_contiguous_id(options: Mapping[str, Any], things: Mapping[int, str]) -> dict[str, Any]:
    """The options with the keys of those that are PER_CLASS as thing contiguous ids.

    things: thing contiguous id -> name. A key is a name or, a whole number, an id that is kept. ConfigError for an
    unknown one.
    """
    found = dict(options)
    for option in PER_CLASS:
        if isinstance(values := options.get(option), Mapping):
            found[option] = {_id_of(key, things, option): value for key, value in values.items()}
    return found


def _id_of(key: Any, things: Mapping[int, str], option: str) -> int:
    by_name = {name: class_id for class_id, name in things.items()}
    if isinstance(key, str) and key in by_name:
        return by_name[key]
    if not isinstance(key, bool) and str(key).isdigit() and int(key) in things:
        return int(key)
    near = difflib.get_close_matches(str(key), by_name, n=1)
    remedy = f"did you mean {near[0]!r}?" if near else f"the things are {[*by_name][:20]}"
    raise ConfigError(f"option {option!r} has no thing class {key!r}", remedy=remedy)
