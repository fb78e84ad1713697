"""The analysis of panoptic quality and the comparison of two evaluations, as tables for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from segkit.report.tables import Rows, build_table, format_interval, format_value
from segkit.structures import CategorySet

OVERALL = ("PQ", "SQ", "RQ", "PQ_th", "PQ_st")
NOTHING = "nothing"
CLEAR_CONCLUSIONS, UNCLEAR = ("better", "worse"), "no clear difference"  # of `compare`; shorter in a table


def analysis_tables(metrics: Mapping[str, Any], analysis: Mapping[str, Any], categories: CategorySet | None) -> Group:
    """Build all tables of an analysis; empty tables are left out.

    Args:
        metrics: Result of panoptic quality. Its `other_mode` says where the reference rules and the corrected rules
            differ.
        analysis: The `analysis` of the evaluation: intervals, error_budget, confusion, worst_images.
        categories: Names for the category ids; None leaves the ids.

    Returns:
        The tables, for `rich.console.Console().print`.
    """
    reason = analysis["intervals"]["reason"]
    parts: list[Table | Text] = [Text(f"No intervals: {reason}.") if reason else intervals_table(analysis["intervals"])]
    if any(error["segments"] for error in analysis["error_budget"]["error_types"].values()):
        parts.append(budget_table(analysis["error_budget"]))
    if analysis["confusion"]["top"]:
        parts.append(confusion_table(analysis["confusion"], categories))
    if analysis["worst_images"]:
        parts.append(worst_images_table(analysis["worst_images"]))
    if "other_mode" in metrics:
        other = metrics["other_mode"]
        values = f"PQ is {format_value(other['PQ'])} instead of {format_value(metrics['PQ'])}"
        parts.append(Text(f"By the {other['mode']} rules, {values}: {'; '.join(other['reasons'])}."))
    return Group(*parts)


def intervals_table(intervals: Mapping[str, Any]) -> Table:
    """Build the table of the confidence intervals of the headline metrics."""
    title = f"{_format_percent(intervals['level'])} intervals, bootstrap over {_count_images(intervals['images'])}"
    low, high = ({name: intervals[name][bound] for name in OVERALL} for bound in ("low", "high"))
    return build_table(title, "", [("from", low), ("to", high)])


def build_budget_rows(budget: Mapping[str, Any]) -> Rows:
    """List what each type of error costs, the most expensive first.

    Args:
        budget: The `error_budget` of an analysis.

    Returns:
        Error type -> {PQ points, things, stuff, segments}.
    """
    by_cost = sorted(budget["error_types"].items(), key=lambda item: -(item[1]["cost"] or 0))
    columns = {"PQ points": "cost", "things": "cost_th", "stuff": "cost_st", "segments": "segments"}
    return {
        _format_error_type(error_type): {column: error[key] for column, key in columns.items()}
        for error_type, error in by_cost
    }


def budget_table(budget: Mapping[str, Any]) -> Table:
    """Build the table of what each type of error costs.

    Args:
        budget: The `error_budget` of an analysis.

    Returns:
        The table, the most expensive type first.
    """
    title = "Where PQ is lost: points regained by repairing one type of error"
    return build_table(title, "error", build_budget_rows(budget).items())


def confusion_table(confusion: Mapping[str, Any], categories: CategorySet | None, limit: int = 5) -> Table:
    """Build the table of the most frequent confusions."""
    rows = []
    for cell in confusion["top"][:limit]:
        names = [_get_name(cell[key], categories) for key in ("ground_truth", "prediction")]
        share = None if cell["share"] is None else float(cell["share"])
        rows.append((" → ".join(names), {"segments": cell["segments"], "% of the true class": share}))
    return build_table("Most frequent confusions of segments", "true → predicted", rows)


def worst_images_table(worst_images: Sequence[Mapping[str, Any]], limit: int = 5) -> Table:
    """Build the table of the images whose errors cost most."""
    rows = []
    for image in worst_images[:limit]:
        row = {"PQ points": image["cost"], "PQ": image["PQ"], "errors": _summarize_errors(image["segments"])}
        rows.append((str(image["image_id"]), row))
    return build_table("Images that cost most", "image", rows, decimals=2, left=("errors",))


def comparison_table(
    compared: Mapping[str, Any],
    categories: CategorySet | None,
    classes: int | None = 10,
    overall: Sequence[str] = OVERALL,
    kind: str = "",
    of_class: str | None = None,
) -> Table:
    """Build the table of a comparison: the headline metrics, then one metric of the classes that differ most.

    Args:
        compared: Result of `segkit.metrics.panoptic.bootstrap.compare` or
            `segkit.metrics.semantic_comparison.compare_semantic_iou`, or a part of the one of
            `segkit.metrics.average_precision_comparison.compare_average_precision`.
        categories: Names for the category ids; None leaves the keys of the classes.
        classes: How many classes to show, of those that differ; None shows all classes that have a value in A or B.
        overall: The headline metrics.
        kind: The kind of IoU, for the title.
        of_class: The metric of the classes; None is the first of the headline metrics.

    Returns:
        The table. If a class has too few images for an interval, the number of images is shown instead.
    """
    metric = overall[0] if of_class is None else of_class

    def is_shown(value: Mapping[str, Any]) -> bool:
        return value["A"] is not None or value["B"] is not None if classes is None else bool(value["difference"])

    def sort_key(item: tuple[str, Mapping[str, Any]]) -> tuple[bool, float]:
        """Classes with an interval first, then the most different."""
        difference = item[1][metric]["difference"]
        return item[1][metric]["low"] is None, 1.0 if difference is None else -abs(difference)

    title = f"{f'{kind}: ' if kind else ''}B - A, {_format_percent(compared['level'])} interval, paired bootstrap over "
    shown = sorted((item for item in compared["per_class"].items() if is_shown(item[1][metric])), key=sort_key)
    rows = [(name, _comparison_row(compared[name], compared["images"])) for name in overall]
    rows += [
        (_get_name(int(key), categories) if categories else key, _comparison_row(result[metric], result["images"]))
        for key, result in shown[:classes]
    ]
    table = build_table(title + _count_images(compared["images"]), "", rows, left=("B is",), no_wrap=True)
    table.rows[len(overall) - 1].end_section = True
    return table


def describe_comparison(compared: Mapping[str, Any], metric: str = "PQ") -> str:
    """Say in one sentence whether B is better than A.

    Args:
        compared: As `comparison_table` takes it.
        metric: The metric that decides.

    Returns:
        The sentence.
    """
    if compared["reason"]:
        return f"No interval: {compared['reason']}."
    value = compared[metric]
    if value["conclusion"] is None:
        return f"{metric} has no value in A or in B."
    interval = f"({_format_percent(compared['level'])} interval {format_interval(value)})"
    if value["conclusion"] in CLEAR_CONCLUSIONS:
        return f"B is {value['conclusion']} than A by {abs(value['difference']):.2f} points of {metric} {interval}."
    return f"No clear difference between A and B: {value['difference']:+.2f} points of {metric} {interval}."


def _comparison_row(result: Mapping[str, Any], images: int) -> dict[str, Any]:
    difference, conclusion = result["difference"], result["conclusion"]
    is_short = result["low"] is None and difference is not None
    return {
        "A": result["A"],
        "B": result["B"],
        "B - A": None if difference is None else f"{difference:+.2f}",
        "interval": f"of {_count_images(images)}" if is_short else format_interval(result),
        "B is": "unclear" if conclusion == UNCLEAR else conclusion,
    }


def _count_images(number: int) -> str:
    return "1 image" if number == 1 else f"{number} images"


def _format_percent(share: float) -> str:
    return f"{100 * share:.4g}%"


def _get_name(category_id: int | None, categories: CategorySet | None) -> str:
    if category_id is None:
        return NOTHING
    return categories[category_id].name if categories and category_id in categories else str(category_id)


def _format_error_type(error_type: str) -> str:
    return "mask quality of matches" if error_type == "mask_quality" else error_type.replace("_", " ")


def _summarize_errors(segments: Sequence[Mapping[str, Any]]) -> str:
    counts = Counter(_format_error_type(segment["error_type"]) for segment in segments)
    return ", ".join(f"{number} {name}" for name, number in counts.most_common())
