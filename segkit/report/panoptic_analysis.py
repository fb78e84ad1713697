"""What the analysis of panoptic quality says, as tables for the terminal and as rows for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from segkit.report.metric_values import MISSING, format_value
from segkit.structures import CategorySet

KIND_NAMES = {
    "wrong_class": "wrong class",
    "split": "split",
    "merged": "merged",
    "poor_mask": "poor mask",
    "lost_to_void": "lost to void",
    "missed": "missed",
    "false_positive": "false positive",
    "mask_quality": "mask quality of matches",
}
OVERALL = ("PQ", "SQ", "RQ", "PQ_th", "PQ_st")
NOTHING = "nothing"
VERDICTS = {"better": "better", "worse": "worse"}  # what else `compare` may say is unclear


def analysis_tables(found: Mapping[str, Any], analysis: Mapping[str, Any], categories: CategorySet | None) -> Group:
    """All of it for `rich.console.Console().print`, without tables of nothing; found: panoptic quality's numbers, which
    tell where the reference's rules and the corrected ones differ."""
    reason = analysis["intervals"]["reason"]
    parts: list[Table | Text] = [Text(f"No intervals: {reason}.") if reason else intervals_table(analysis["intervals"])]
    if any(kind["segments"] for kind in analysis["error_budget"]["error_types"].values()):
        parts.append(budget_table(analysis["error_budget"]))
    if analysis["confusion"]["top"]:
        parts.append(confusion_table(analysis["confusion"], categories))
    if analysis["worst_images"]:
        parts.append(worst_table(analysis["worst_images"]))
    if "other_mode" in found:
        other = found["other_mode"]
        pq = f"PQ is {format_value(other['PQ'])} instead of {format_value(found['PQ'])}"
        parts.append(Text(f"By the {other['mode']} rules {pq}: {'; '.join(other['reasons'])}."))
    return Group(*parts)


def intervals_table(intervals: Mapping[str, Any]) -> Table:
    """The headline numbers, each with its interval."""
    title = f"{_percent(intervals['level'])} intervals, bootstrap over {_images(intervals['images'])}"
    table = Table("", title=title)
    for column in OVERALL:
        table.add_column(column, justify="right")
    for name, key in (("from", "low"), ("to", "high")):
        table.add_row(name, *(format_value(intervals[column][key]) for column in OVERALL))
    return table


def build_budget_rows(budget: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Kind of error -> {PQ points, things, stuff, segments}, the dearest first; `error_budget`'s result."""
    dearest_first = sorted(budget["error_types"].items(), key=lambda item: -(item[1]["cost"] or 0))
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
    return _table(
        "Where PQ is lost: points regained by repairing one kind of error", "error", build_budget_rows(budget)
    )


def confusion_rows(
    confusion: Mapping[str, Any], categories: CategorySet | None, limit: int
) -> dict[str, dict[str, Any]]:
    """The most frequent confusions: `true → predicted` -> {segments, share of the true class}."""
    return {
        f"{_name(one['ground_truth'], categories)} → {_name(one['prediction'], categories)}": {
            "segments": one["segments"],
            "% of the true class": None if one["share"] is None else float(one["share"]),
        }
        for one in confusion["top"][:limit]
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
    """`compare`'s result: overall, things, stuff, and PQ of the classes that differ most (None: of all with a number).

    In place of the interval of a class with too few images stands in how many it is.
    """
    title = f"B - A, {_percent(compared['level'])} interval, paired bootstrap over {_images(compared['images'])}"
    table = Table("", title=title)
    for column in ("A", "B", "B - A", "interval"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("B is", no_wrap=True)
    for name in OVERALL:
        table.add_row(name, *_compared(compared[name], compared["images"]), end_section=name == OVERALL[-1])
    shown = [item for item in compared["per_class"].items() if _is_shown(item[1]["PQ"], classes is None)]
    differences = {category_id: one["PQ"]["difference"] for category_id, one in shown}
    shown.sort(key=lambda item: -1 if differences[item[0]] is None else abs(differences[item[0]]), reverse=True)
    for category_id, one in shown[:classes]:
        table.add_row(Text(_name(int(category_id), categories)), *_compared(one["PQ"], one["images"]))
    return table


def describe_comparison(compared: Mapping[str, Any]) -> str:
    """`compare`'s result in a sentence."""
    if compared["reason"]:
        return f"No interval: {compared['reason']}."
    pq, level = compared["PQ"], _percent(compared["level"])
    if pq["conclusion"] is None:
        return "PQ has no value in A or in B."
    certain = f"({level} interval {pq['low']:+.2f} to {pq['high']:+.2f})"
    if pq["conclusion"] in VERDICTS:
        return f"B is {pq['conclusion']} than A by {abs(pq['difference']):.2f} points of PQ {certain}."
    return f"No clear difference between A and B: {pq['difference']:+.2f} points of PQ {certain}."


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


def _is_shown(one: Mapping[str, Any], all_classes: bool) -> bool:
    return one["A"] is not None or one["B"] is not None if all_classes else bool(one["difference"])


def _compared(one: Mapping[str, Any], images: int) -> list[str]:
    """The cells of a row: A, B, B - A, interval, verdict."""
    difference = MISSING if one["difference"] is None else f"{one['difference']:+.2f}"
    if one["low"] is not None:
        interval = f"{one['low']:+.2f} to {one['high']:+.2f}"
    elif one["difference"] is not None:
        interval = f"of {_images(images)}"
    else:
        interval = MISSING
    verdict = MISSING if one["conclusion"] is None else VERDICTS.get(one["conclusion"], "unclear")
    return [format_value(one["A"]), format_value(one["B"]), difference, interval, verdict]


def _images(number: int) -> str:
    return "1 image" if number == 1 else f"{number} images"


def _percent(share: float) -> str:
    return f"{100 * share:.4g}%"


def _name(category_id: int | None, categories: CategorySet | None) -> str:
    if category_id is None:
        return NOTHING
    return categories[category_id].name if categories and category_id in categories else str(category_id)


def _faults(segments: Sequence[Mapping[str, Any]]) -> str:
    counts: dict[str, int] = {}
    for segment in segments:
        name = KIND_NAMES.get(segment["error_type"], segment["error_type"])
        counts[name] = counts.get(name, 0) + 1
    return ", ".join(f"{number} {name}" for name, number in sorted(counts.items(), key=lambda item: -item[1]))
