"""What an evaluation's result dict says: which numbers lead, which belong to a class, and how each is written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

NONE = "–"
# A group of numbers is known by its first column, whatever the task is called: Detectron2's evaluators' keys.
HEADLINES: Mapping[str, tuple[str, ...]] = {
    "PQ": ("PQ", "SQ", "RQ", "PQ_th", "PQ_st"),
    "AP": ("AP", "AP50", "AP75", "APs", "APm", "APl"),
    "mIoU": ("mIoU", "fwIoU", "mACC", "pACC", "mDice"),
}
PER_CLASS_PREFIXES = (
    "AP-",
    "AP50-",
    "AR-",
    "IoU-",
    "ACC-",
    "Dice-",
    "BoundaryIoU-",
    "min(IoU, B-Iou)-",
)  # Detectron2's flat per-class keys
PER_CLASS = "per_class"
UNKNOWN_COLUMNS = 6


@dataclass(frozen=True)
class Group:
    """The numbers of one task.

    headline: columns that lead, None where absent. values: all single values. tables: name -> row -> column -> value.
    """

    task: str
    headline: Mapping[str, Any]
    values: Mapping[str, Any]
    tables: Mapping[str, Mapping[str, Mapping[str, Any]]]


def read_group(task: str, result: Mapping[str, Any]) -> Group:
    """Sort one task's result, e.g. `{"PQ": 41.2, "per_class": {...}, "AP-person": 50.1}`.

    A mapping under a key is a table: of rows (`{"person": {"PQ": 1.0, "SQ": 2.0}}`), or of one column, which then has
    the leading metric's name (`{"person": 1.0}`). Detectron2's `AP-person`, `IoU-sky` join the table `per_class`.
    Raises ValueError where the result is not a mapping.
    """
    if not isinstance(result, Mapping):
        raise ValueError(f"metrics must map every task to a mapping, got {type(result).__name__} for {task!r}")
    values = {str(key): value for key, value in result.items() if not isinstance(value, Mapping)}
    lead = next((first for first in HEADLINES if first in values), "")
    columns = HEADLINES.get(lead) or tuple(key for key in values if not key.startswith(PER_CLASS_PREFIXES))
    tables = {str(key): _table(rows, lead or "value") for key, rows in result.items() if isinstance(rows, Mapping)}
    for key in [key for key in values if key.startswith(PER_CLASS_PREFIXES)]:
        prefix = next(prefix for prefix in PER_CLASS_PREFIXES if key.startswith(prefix))
        row = tables.setdefault(PER_CLASS, {}).setdefault(key[len(prefix) :], {})
        row.setdefault(prefix[:-1], values.pop(key))
    if lead:
        values = {key: as_number(value) if key in columns else value for key, value in values.items()}
    shown = columns if lead else columns[:UNKNOWN_COLUMNS]
    return Group(task, {column: values.get(column) for column in shown}, values, tables)


def format_value(value: Any) -> str:
    """One decimal for a float; whole numbers and text as they are; "–" for None, NaN and infinities."""
    if value is None:
        return NONE
    if isinstance(value, Real) and not isinstance(value, Integral):
        number = as_number(value)
        return NONE if number is None else f"{number:.1f}"
    return str(value)


def as_number(value: Any) -> float | None:
    """The finite number that the value is, else None; truth values are no numbers."""
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        return None
    return float(value)


def _table(rows: Mapping[Any, Any], only_column: str) -> dict[str, dict[str, Any]]:
    return {
        str(name): {str(key): value for key, value in row.items()} if isinstance(row, Mapping) else {only_column: row}
        for name, row in rows.items()
    }
