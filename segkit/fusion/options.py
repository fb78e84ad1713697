"""Options of fusion methods: checked where a method is made, so that a wrong one is refused before the first image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from segkit.fusion.candidates import NMS_KINDS
from segkit.structures import ConfigError


def check_fraction(method: object, *names: str) -> None:
    """ConfigError where an option is no number in [0, 1]."""
    for name in names:
        value = getattr(method, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise ConfigError(f"{name} must be a number in [0, 1], got {value!r}", where=type(method).__name__)


def check_nms(kind: str) -> None:
    """ConfigError where `kind` is no kind of suppression."""
    if kind not in NMS_KINDS:
        raise ConfigError(f"nms must be one of {[*NMS_KINDS]}, got {kind!r}")


def checked_options(name: str, method: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with the types of their defaults; ConfigError for an unknown one or one of another type."""
    known = {f.name: f for f in fields(method)}
    if unknown := sorted(set(options) - set(known)):
        raise ConfigError(f"fusion method {name!r} has no option {unknown}", remedy=f"its options are {sorted(known)}")
    checked = {}
    for key, value in options.items():
        factory = known[key].default_factory
        expected = type(known[key].default if factory is MISSING else factory())
        if expected is float and type(value) is int:
            value = float(value)
        wanted: Any = Mapping if expected is dict else expected
        if not isinstance(value, wanted) or (isinstance(value, bool) and expected is not bool):
            problem = f"option {key!r} must be of type {expected.__name__}, got {value!r}"
            raise ConfigError(problem, where=f"fusion method {name!r}")
        checked[key] = dict(value) if expected is dict else value
    return checked
