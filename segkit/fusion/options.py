"""Checks of the options of fusion methods. They run when a method is built, before the first image."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from segkit.fusion.candidates import NMS_KINDS
from segkit.utils.errors import ConfigError
from segkit.utils.text import suggest

LARGEST = sys.float_info.max  # JSON holds no infinity


def check_fraction(method: object, *names: str) -> None:
    """Raise ConfigError if an option is not a number in [0, 1]."""
    for name in names:
        value = getattr(method, name)
        if not _is_number(value) or not 0 <= value <= 1:
            raise ConfigError(f"{name} must be a number in [0, 1], got {value!r}", where=type(method).__name__)


def check_numbers(method: object, *names: str, least: float = -LARGEST) -> None:
    """Raise ConfigError if an option is not a finite number, or is below `least`."""
    for name in names:
        value = getattr(method, name)
        if not _is_number(value) or not value >= least:
            expected = "a number" if least == -LARGEST else f"a number from {least:g}"
            raise ConfigError(f"{name} must be {expected}, got {value!r}", where=type(method).__name__)


def check_thresholds(method: object, name: str) -> None:
    """Raise ConfigError if an option does not map class contiguous ids (integers from 0) to numbers."""
    thresholds, where = getattr(method, name), type(method).__name__
    if not isinstance(thresholds, Mapping):
        raise ConfigError(f"{name} must be a mapping from contiguous ids to numbers, got {thresholds!r}", where=where)
    for class_id, value in thresholds.items():
        if isinstance(class_id, bool) or not isinstance(class_id, int) or class_id < 0:
            problem = f"{name} must have contiguous ids (integers from 0) as keys, got {class_id!r}"
            raise ConfigError(problem, where=where)
        if not _is_number(value):
            problem = f"{name} must have numbers as values, got {value!r} for the class {class_id}"
            raise ConfigError(problem, where=where)


def check_nms(kind: str) -> None:
    """Raise ConfigError if `kind` is not one of NMS_KINDS."""
    if kind not in NMS_KINDS:
        raise ConfigError(f"nms must be one of {[*NMS_KINDS]}, got {kind!r}")


def convert_options(name: str, method: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Convert options to the types of their defaults; raise ConfigError for an unknown option or another type."""
    by_name = {f.name: f for f in fields(method) if f.init}
    if unknown := sorted(set(options) - set(by_name)):
        remedy = f"{suggest(unknown[0], by_name)} its options are {sorted(by_name)}".lstrip()
        raise ConfigError(f"fusion method {name!r} has no option {unknown}", remedy=remedy)
    checked = {}
    for key, value in options.items():
        factory = by_name[key].default_factory
        expected = type(by_name[key].default if factory is MISSING else factory())
        if expected is float and type(value) is int and _is_number(value):
            value = float(value)
        accepted: Any = Mapping if expected is dict else expected
        if not isinstance(value, accepted) or (isinstance(value, bool) and expected is not bool):
            problem = f"option {key!r} must be of type {expected.__name__}, got {value!r}"
            raise ConfigError(problem, where=f"fusion method {name!r}")
        if expected is float and not _is_number(value):
            raise ConfigError(f"option {key!r} must be a finite number, got {value}", where=f"fusion method {name!r}")
        checked[key] = dict(value) if expected is dict else value
    return checked


def _is_number(value: object) -> bool:
    """Whether it is a finite number. NaN is not in the range."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST
