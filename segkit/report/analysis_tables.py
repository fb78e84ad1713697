"""What the analysis of panoptic quality says, as tables for the terminal and as rows for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from segkit.report.metric_values import NONE, format_value
from segkit.structures import CategorySet

KIND_NAMES = {
    "wrong_class": "wrong class",
    "split": "split",
    "merged": "merged",
    "poor_mask": "poor mask",
    "lost_to_void": "lost to void",
    "missed": "missed",
    "hallucinated": "hallucinated",
    "mask_quality": "mask quality of matches",
}
OVERALL = ("PQ", "SQ", "RQ", "PQ_th", "PQ_st")
NOTHING = "nothing"


def intervals_table(intervals: Mapping[str, Any]) -> Table:
    """The headline numbers, each with its interval."""
    title = f"{intervals['level']:.0%} intervals, bootstrap over {intervals['images']} images"
    table = Table("", *OVERALL, title=title)
    for name, key in (("from", "low"), ("to", "high")):
        table.add_row(name, *(format_value(intervals[column][key]) for column in OVERALL))
    return table


def budget_rows(budget: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Kind of error -> {PQ points, things, stuff, segments}, the dearest first; `error_budget`'s result."""
    dearest_first = sorted(budget["kinds"].items(), key=lambda item: -(item[1]["cost"] or 0))
    return {
        KIND_NAMES.get(kind, kind): {
            "PQ points": one["cost"],
            "things": one["cost_th"],
            "stuff": one["cost_st"],
            "segments": one["segments"],
        }
        for kind, one in dearest_first
    }


def budget_table(budget: Mapping[str, Any]) -> Table:
    """What each kind of error costs."""
    return _table("Where PQ is lost: points regained by repairing one kind of error", "error", budget_rows(budget))


def confusion_rows(
    confusion: Mapping[str, Any], categories: CategorySet | None, limit: int
) -> dict[str, dict[str, Any]]:
    """The most frequent confusions: `true → predicted` -> {segments, share of the true class}."""
    wrong = [one for one in confusion["top"] if one["true"] != one["predicted"]][:limit]
    return {
        f"{_name(one['true'], categories)} → {_name(one['predicted'], categories)}": {
            "segments": one["segments"],
            "% of the true class": None if one["share"] is None else float(one["share"]),
        }
        for one in wrong
    }


def confusion_table(confusion: Mapping[str, Any], categories: CategorySet | None, limit: int = 5) -> Table:
    """The most frequent confusions."""
    return _table(
        "Most frequent confusions of segments", "true → predicted", confusion_rows(confusion, categories, limit)
    )


def worst_rows(worst: Sequence[Mapping[str, Any]], limit: int) -> dict[str, dict[str, Any]]:
    """Image id -> {PQ points that its errors cost the dataset, its PQ, its faults in words}."""
    return {
        str(one["image_id"]): {"PQ points": one["cost"], "PQ": one["PQ"], "faults": _faults(one["segments"])}
        for one in worst[:limit]
    }


def worst_table(worst: Sequence[Mapping[str, Any]], limit: int = 5) -> Table:
    """The images whose errors cost most."""
    return _table("Images that cost most", "image", worst_rows(worst, limit), decimals=2)


def comparison_table(compared: Mapping[str, Any], categories: CategorySet | None, classes: int | None = 10) -> Table:
    """`compare`'s result: overall, things, stuff, and the classes that differ most (None: all)."""
    title = f"B - A, {compared['level']:.0%} interval, paired bootstrap over {compared['images']} images"
    table = Table("", "A", "B", "B - A", "B better in", "verdict", title=title)
    for name in OVERALL:
        table.add_row(name, *_compared(compared[name]))
    differing = sorted(
        ((category_id, one["PQ"]) for category_id, one in compared["per_class"].items()),
        key=lambda item: -abs(item[1]["difference"] or 0),
    )
    for category_id, one in [item for item in differing if item[1]["difference"] is not None][:classes]:
        table.add_row(Text(f"PQ {_name(int(category_id), categories)}"), *_compared(one))
    return table


def _table(title: str, first: str, rows: Mapping[str, Mapping[str, Any]], decimals: int = 1) -> Table:
    columns = list(next(iter(rows.values()), {}))
    table = Table(first, title=title)
    for column in columns:
        table.add_column(Text(column), justify="left" if column == "faults" else "right")
    for name, row in rows.items():
        values = (row[column] for column in columns)
        table.add_row(Text(name), *(Text(_value(value, decimals)) for value in values))
    return table


def _value(value: Any, decimals: int) -> str:
    return f"{value:.{decimals}f}" if isinstance(value, float) else format_value(value)


def _compared(one: Mapping[str, Any]) -> list[str]:
    share = NONE if one["share_better"] is None else f"{one['share_better']:.0%}"
    numbers = [format_value(one["A"]), format_value(one["B"])]
    return [*numbers, _with_interval(one, "difference", "+"), share, one["verdict"] or NONE]


def _with_interval(one: Mapping[str, Any], key: str, sign: str = "") -> str:
    if one[key] is None or one["low"] is None:
        return format_value(one[key])
    return f"{one[key]:{sign}.2f} [{one['low']:{sign}.2f}, {one['high']:{sign}.2f}]"


def _name(category_id: int | None, categories: CategorySet | None) -> str:
    if category_id is None:
        return NOTHING
    return categories[category_id].name if categories and category_id in categories else str(category_id)


def _faults(segments: Sequence[Mapping[str, Any]]) -> str:
    counts: dict[str, int] = {}
    for segment in segments:
        name = KIND_NAMES.get(segment["kind"], segment["kind"])
        counts[name] = counts.get(name, 0) + 1
    return ", ".join(f"{number} {name}" for name, number in sorted(counts.items(), key=lambda item: -item[1]))
