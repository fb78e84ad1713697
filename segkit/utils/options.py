"""Checks of the options of methods: frozen dataclasses, checked when they are built, before the first image."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from segkit.utils.errors import ConfigError
from segkit.utils.text import suggest

LARGEST = sys.float_info.max  # JSON holds no infinity


def check_fraction(method: object, *names: str) -> None:
    """Check that options are numbers in [0, 1].

    Args:
        method: the method.
        *names: its options.

    Raises:
        ConfigError: an option is none.
    """
    for name in names:
        value = getattr(method, name)
        if not is_number(value) or not 0 <= value <= 1:
            raise ConfigError(f"{name} must be a number in [0, 1], got {value!r}", where=type(method).__name__)


def check_numbers(method: object, *names: str, least: float = -LARGEST) -> None:
    """Check that options are finite numbers.

    Args:
        method: the method.
        *names: its options.
        least: the lowest allowed number.

    Raises:
        ConfigError: an option is none, or is below `least`.
    """
    for name in names:
        value = getattr(method, name)
        if not is_number(value) or not value >= least:
            expected = "a number" if least == -LARGEST else f"a number from {least:g}"
            raise ConfigError(f"{name} must be {expected}, got {value!r}", where=type(method).__name__)


def convert_options(where: str, method: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Convert options to the types of their defaults.

    Args:
        where: the method for messages, as "fusion method 'heuristic'".
        method: its dataclass.
        options: option -> value.

    Returns:
        The options, integers as floats if the default is one.

    Raises:
        ConfigError: an option is unknown, or has another type than its default.
    """
    by_name = {f.name: f for f in fields(method) if f.init}
    if unknown := sorted(set(options) - set(by_name)):
        remedy = f"{suggest(unknown[0], by_name)} its options are {sorted(by_name)}".lstrip()
        raise ConfigError(f"{where} has no option {unknown}", remedy=remedy)
    checked = {}
    for key, value in options.items():
        factory = by_name[key].default_factory
        expected = type(by_name[key].default if factory is MISSING else factory())
        if expected is float and type(value) is int and is_number(value):
            value = float(value)
        accepted: Any = Mapping if expected is dict else expected
        if not isinstance(value, accepted) or (isinstance(value, bool) and expected is not bool):
            problem = f"option {key!r} must be of type {expected.__name__}, got {value!r}"
            raise ConfigError(problem, where=where)
        if expected is float and not is_number(value):
            raise ConfigError(f"option {key!r} must be a finite number, got {value}", where=where)
        checked[key] = dict(value) if expected is dict else value
    return checked


def is_number(value: object) -> bool:
    """Check if a value is a finite number; NaN is not in the range.

    Args:
        value: any value.

    Returns:
        Whether it is one.
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST
