"""The values in an evaluator's result: which are the headline, which belong to a class, and how they are printed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

MISSING = "–"
# The first column identifies a group of metrics, whatever the task is called: keys of Detectron2's evaluators.
HEADLINES: Mapping[str, tuple[str, ...]] = {
    "PQ": ("PQ", "SQ", "RQ", "PQ_th", "PQ_st"),
    "AP": ("AP", "AP50", "AP75", "APs", "APm", "APl"),
    "mIoU": ("mIoU", "fwIoU", "mACC", "pACC", "mDice"),
}
# Detectron2's flat keys per class
PER_CLASS_PREFIXES = ("AP-", "AP50-", "AR-", "IoU-", "ACC-", "Dice-", "BoundaryIoU-", "min(IoU, B-Iou)-")
PER_CLASS = "per_class"
UNKNOWN_COLUMNS = 6  # headline columns of a task that HEADLINES does not have
Rows = Mapping[str, Mapping[str, Any]]  # row name -> column -> value


@dataclass(frozen=True)
class MetricGroup:
    """The metrics of one task.

    Attributes:
        task: Name of the task.
        headline: Column -> value of the leading metrics, None where the result lacks one.
        values: Name -> value of all single values.
        tables: Table name -> rows.
    """

    task: str
    headline: Mapping[str, Any]
    values: Mapping[str, Any]
    tables: Mapping[str, Rows]


def read_group(task: str, result: Mapping[str, Any]) -> MetricGroup:
    """Sort the values of one task's result.

    A mapping under a key becomes a table. Its values are rows (`{"person": {"PQ": 1.0, "SQ": 2.0}}`) or numbers
    (`{"person": 1.0}`); numbers form one column, named after the leading metric. Detectron2's keys `AP-person` and
    `IoU-sky` go into the table `per_class`.

    Args:
        task: Name of the task.
        result: What the evaluator returns, e.g. `{"PQ": 41.2, "per_class": {...}, "AP-person": 50.1}`.

    Returns:
        The sorted values. All parts are empty for an empty result.

    Raises:
        ValueError: The result is not a mapping.
    """
    if not isinstance(result, Mapping):
        raise ValueError(f"metrics must map every task to a mapping, got {type(result).__name__} for {task!r}")
    values = {str(key): value for key, value in result.items() if not isinstance(value, Mapping)}
    lead = next((first for first in HEADLINES if first in values), "")
    columns = HEADLINES.get(lead) or tuple(key for key in values if not key.startswith(PER_CLASS_PREFIXES))
    tables = {str(key): _read_rows(rows, lead or "value") for key, rows in result.items() if isinstance(rows, Mapping)}
    for key in [key for key in values if key.startswith(PER_CLASS_PREFIXES)]:
        prefix = next(prefix for prefix in PER_CLASS_PREFIXES if key.startswith(prefix))
        row = tables.setdefault(PER_CLASS, {}).setdefault(key[len(prefix) :], {})
        row.setdefault(prefix[:-1], values.pop(key))
    if lead:
        values = {key: as_number(value) if key in columns else value for key, value in values.items()}
    shown = columns if lead else columns[:UNKNOWN_COLUMNS]
    return MetricGroup(task, {column: values.get(column) for column in shown}, values, tables)


def list_columns(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """All columns of the rows, in the order of their first appearance."""
    return list(dict.fromkeys(column for row in rows for column in row))


def format_value(value: Any, decimals: int = 1) -> str:
    """Text of a value: decimals for a float, "–" for None, NaN and infinities, everything else as it is."""
    if value is None:
        return MISSING
    if isinstance(value, Real) and not isinstance(value, Integral):
        number = as_number(value)
        return MISSING if number is None else f"{number:.{decimals}f}"
    return str(value)


def as_number(value: Any) -> float | None:
    """The value as a float if it is a finite number, else None; a bool is not a number."""
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        return None
    return float(value)


def _read_rows(rows: Mapping[Any, Any], only_column: str) -> dict[str, dict[str, Any]]:
    return {
        str(name): {str(key): value for key, value in row.items()} if isinstance(row, Mapping) else {only_column: row}
        for name, row in rows.items()
    }
