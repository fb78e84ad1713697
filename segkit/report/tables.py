"""Tables for the terminal: rows as a rich table, and the metrics of an evaluation."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from segkit.report.metric_values import PER_CLASS, Rows, format_value, list_columns, read_group
from segkit.structures import CategorySet

ON_DEMAND = ("PQ_dagger", "BoundaryPQ", "mBoundaryIoU")  # metrics that are computed only if asked for


def metrics_table(metrics: Mapping[str, Mapping[str, Any]]) -> Group:
    """Build one table per family of metrics, with a row per task.

    Panoptic quality has the columns PQ SQ RQ PQ_th PQ_st, AP its six averages, semantic IoU mIoU fwIoU mACC pACC mDice,
    any other task its first six values. The metrics in `ON_DEMAND` follow if the result has them.

    Args:
        metrics: Task -> result of its evaluator, e.g. `{"panoptic_seg": {"PQ": 41.2, ...}, "bbox": {"AP": ...}}`.

    Returns:
        The tables, for `rich.console.Console().print`; empty without tasks. Values have one decimal, a missing value
        or None is "–".
    """
    families: dict[tuple[str, ...], dict[str, Mapping[str, Any]]] = {}
    for task, result in metrics.items():
        group = read_group(task, result)
        if group.headline:
            row = {**group.headline, **{name: group.values[name] for name in ON_DEMAND if name in group.values}}
            families.setdefault(tuple(row), {})[task] = row
    return Group(*(build_table(None, "task", rows.items()) for rows in families.values()))


def per_class_tables(metrics: Mapping[str, Mapping[str, Any]], categories: CategorySet | None = None) -> Group:
    """Build a table per task with a row for each class, in the order of the result.

    Args:
        metrics: Task -> result of its evaluator, as `metrics_table` takes it.
        categories: Names for the rows that are a category_id; None leaves the ids.

    Returns:
        The tables, for `rich.console.Console().print`; empty if no task has values per class.
    """
    tables = []
    for task, result in metrics.items():
        rows: Rows = read_group(task, result).tables.get(PER_CLASS, {})
        named = [(_class_name(key, categories), row) for key, row in rows.items()]
        tables += [build_table(task, "class", named)] if named else []
    return Group(*tables)


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
        table.add_column(Text(column), justify="left" if column in left else "right", no_wrap=no_wrap)
    for name, row in rows:
        table.add_row(Text(name), *(Text(format_value(row.get(column), decimals)) for column in columns))
    return table


def _class_name(key: str, categories: CategorySet | None) -> str:
    is_id = categories is not None and key.isdigit() and int(key) in categories
    return categories[int(key)].name if categories is not None and is_id else key
