"""Checks of options that only fusion methods have. They run when a method is built, before the first image."""

from __future__ import annotations

from collections.abc import Mapping

from segkit.fusion.candidates import NMS_KINDS
from segkit.utils.errors import ConfigError
from segkit.utils.options import is_number


def check_thresholds(method: object, name: str) -> None:
    """Raise ConfigError if an option does not map class contiguous ids (integers from 0) to numbers."""
    thresholds, where = getattr(method, name), type(method).__name__
    if not isinstance(thresholds, Mapping):
        raise ConfigError(f"{name} must be a mapping from contiguous ids to numbers, got {thresholds!r}", where=where)
    for class_id, value in thresholds.items():
        if isinstance(class_id, bool) or not isinstance(class_id, int) or class_id < 0:
            problem = f"{name} must have contiguous ids (integers from 0) as keys, got {class_id!r}"
            raise ConfigError(problem, where=where)
        if not is_number(value):
            problem = f"{name} must have numbers as values, got {value!r} for the class {class_id}"
            raise ConfigError(problem, where=where)


def check_nms(kind: str) -> None:
    """Raise ConfigError if `kind` is not one of NMS_KINDS."""
    if kind not in NMS_KINDS:
        raise ConfigError(f"nms must be one of {[*NMS_KINDS]}, got {kind!r}")
