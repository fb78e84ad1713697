"""The metrics in an evaluator's result: headline, values per class, their text, and tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from segkit.metrics.undefined import NOTES
from segkit.structures import CategorySet
from segkit.utils.text import make_printable

MISSING = "–"
# The first column identifies a group of metrics, whatever the task is called: keys of Detectron2's evaluators.
HEADLINES: Mapping[str, tuple[str, ...]] = {
    "PQ": ("PQ", "SQ", "RQ", "PQ_th", "PQ_st"),
    "VPQ": ("VPQ", "VPQ_th", "VPQ_st", "VPQ1", "VPQ2", "VPQ3", "VPQ4", "STQ", "AQ", "STQ_IoU"),
    "AP": ("AP", "AP50", "AP75", "APs", "APm", "APl"),
    "mIoU": ("mIoU", "fwIoU", "mACC", "pACC", "mDice"),
}
# Detectron2's flat keys per class
PER_CLASS_PREFIXES = ("AP-", "AP50-", "AR-", "IoU-", "ACC-", "Dice-", "NSD-", "BoundaryIoU-", "min(IoU, B-Iou)-")
PER_CLASS = "per_class"
UNKNOWN_COLUMNS = 6  # headline columns of a task that HEADLINES does not have
ON_DEMAND = ("PQ_dagger", "BoundaryPQ", "mBoundaryIoU")  # metrics that are computed only if asked for
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


def read_groups(metrics: Mapping[str, Any]) -> list[MetricGroup]:
    """Sort the values of every task, see `read_group`.

    Args:
        metrics: Task -> what its evaluator returns, and `notes`, which is no task.

    Returns:
        The sorted values of each task.
    """
    return [read_group(task, result) for task, result in metrics.items() if task != NOTES]


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


def format_interval(bounds: Mapping[str, Any], style: str = "+.2f") -> str:
    """Text of the values `low` and `high`; "–" without them."""
    return MISSING if bounds.get("low") is None else f"{bounds['low']:{style}} to {bounds['high']:{style}}"


def as_number(value: Any) -> float | None:
    """Convert a metric to a float.

    Args:
        value: any value of a result; a bool is not a number.

    Returns:
        The value, None if it is no finite number.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        return None
    return float(value)


def metrics_table(metrics: Mapping[str, Mapping[str, Any]]) -> Group:
    """Build one table per family of metrics, with a row per task, and below them the notes of the results.

    Panoptic quality has the columns PQ SQ RQ PQ_th PQ_st, that of videos VPQ, STQ and their parts, AP its six averages,
    semantic IoU mIoU fwIoU mACC pACC mDice, any other task its first six values. The metrics in `ON_DEMAND` follow if
    the result has them.

    Args:
        metrics: Task -> result of its evaluator, e.g. `{"panoptic_seg": {"PQ": 41.2, ...}, "bbox": {"AP": ...}}`, and
            `notes`, a list of lines.

    Returns:
        The tables, for `rich.console.Console().print`; empty without tasks. Values have one decimal, a missing value
        or None is "–".
    """
    families: dict[tuple[str, ...], dict[str, Mapping[str, Any]]] = {}
    for group in read_groups(metrics):
        if group.headline:
            row = {**group.headline, **{name: group.values[name] for name in ON_DEMAND if name in group.values}}
            families.setdefault(tuple(row), {})[group.task] = row
    tables = (build_table(None, "task", rows.items()) for rows in families.values())
    return Group(*tables, *(Text(note) for note in metrics.get(NOTES, ())))


def per_class_tables(metrics: Mapping[str, Mapping[str, Any]], categories: CategorySet | None = None) -> Group:
    """Build a table per task with a row for each class, in the order of the result.

    Args:
        metrics: Task -> result of its evaluator, as `metrics_table` takes it.
        categories: Names for the rows whose key is a category_id; None leaves the ids.

    Returns:
        The tables, for `rich.console.Console().print`; empty if no task has values per class.
    """
    names = {str(c.category_id): c.name for c in categories.categories} if categories else {}
    rows = {group.task: group.tables.get(PER_CLASS, {}) for group in read_groups(metrics)}
    named = {task: [(names.get(key, key), row) for key, row in classes.items()] for task, classes in rows.items()}
    return Group(*(build_table(task, "class", classes) for task, classes in named.items() if classes))


def build_table(
    title: str | None,
    corner: str,
    rows: Iterable[tuple[str, Mapping[str, Any]]],
    decimals: int = 1,
    left: Collection[str] = (),
    no_wrap: bool = False,
) -> Table:
    """Build a rich table whose first column holds the row names.

    Args:
        title: Text above the table, None for none.
        corner: Heading of the first column.
        rows: (row name, column -> value); a column that a row lacks is "–". Brackets in names are not rich markup.
        decimals: Decimals of the floats.
        left: Columns aligned to the left; the others are aligned to the right.
        no_wrap: Whether only the first column may wrap.

    Returns:
        The table.
    """
    rows = list(rows)
    table = Table(corner, title=title)
    columns = list_columns(row for _, row in rows)
    for column in columns:
        table.add_column(Text(make_printable(column)), justify="left" if column in left else "right", no_wrap=no_wrap)
    for name, row in rows:
        cells = [name, *(format_value(row.get(column), decimals) for column in columns)]
        table.add_row(*(Text(make_printable(cell)) for cell in cells))
    return table


def _read_rows(rows: Mapping[Any, Any], only_column: str) -> dict[str, dict[str, Any]]:
    return {
        str(name): {str(key): value for key, value in row.items()} if isinstance(row, Mapping) else {only_column: row}
        for name, row in rows.items()
    }
