"""The headline numbers as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rich.console import Group as Stack
from rich.table import Table
from rich.text import Text

from segkit.report.metric_values import PER_CLASS, Group, format_value, read_group
from segkit.structures import CategorySet

ASKED_FOR = ("PQ_dagger", "BoundaryPQ", "mBoundaryIoU")  # numbers that are made on demand only


def metrics_table(metrics: Mapping[str, Mapping[str, Any]]) -> Stack:
    """One row per task and one table per family of columns, for `rich.console.Console().print`.

    metrics: task -> result of its evaluator, e.g. `{"panoptic_seg": {"PQ": 41.2, ...}, "bbox": {"AP": ...}}`.
    Panoptic quality shows PQ SQ RQ PQ_th PQ_st, AP its six averages, semantic IoU mIoU fwIoU mACC pACC mDice, any other
    task its first six values, and all show those of `ASKED_FOR` that there are. One decimal; "–" where a number is
    missing or None. Prints nothing without tasks.
    """
    families: dict[tuple[str, ...], list[Group]] = {}
    for task, result in metrics.items():
        group = read_group(task, result)
        if group.headline:
            asked_for = {name: group.values[name] for name in ASKED_FOR if name in group.values}
            group = replace(group, headline={**group.headline, **asked_for})
            families.setdefault(tuple(group.headline), []).append(group)
    return Stack(*(_table(columns, groups) for columns, groups in families.items()))


def per_class_tables(metrics: Mapping[str, Mapping[str, Any]], categories: CategorySet | None = None) -> Stack:
    """A table per task with a row for each class, in the order of the result; names where rows are category ids."""
    tables = []
    for task, result in metrics.items():
        rows = read_group(task, result).tables.get(PER_CLASS, {})
        columns = list(dict.fromkeys(column for row in rows.values() for column in row))
        table = Table("class", title=task)
        for column in columns:
            table.add_column(Text(column), justify="right")
        for name, row in rows.items():
            table.add_row(Text(_name(name, categories)), *(Text(format_value(row.get(column))) for column in columns))
        tables += [table] if rows else []
    return Stack(*tables)


def _name(row: str, categories: CategorySet | None) -> str:
    known = categories is not None and row.isdigit() and int(row) in categories
    return categories[int(row)].name if categories is not None and known else row


def _table(columns: tuple[str, ...], groups: list[Group]) -> Table:
    table = Table("task")
    for column in columns:
        table.add_column(Text(column), justify="right")
    for group in groups:
        table.add_row(Text(group.task), *(Text(format_value(value)) for value in group.headline.values()))
    return table
