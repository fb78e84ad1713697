"""Why a fusion dropped or shrunk segments: tables for the terminal, and rows for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from segkit.fusion import REASONS
from segkit.report.page import write_page
from segkit.structures import CategorySet

SHOWN, PAGE_ROWS = 20, 200  # of the costliest, in the terminal and on the page
TAKERS = 3  # of the pixels of one segment
NOBODY = "nobody"
COLUMNS = ("class", "score", "reason", "pixels", "lost", "to")
Told = Sequence[Mapping[str, Any]]


def count_rejections(images: Told) -> dict[str, dict[str, Any]]:
    """Reason -> {dropped, shrunk: segments, lost pixels}, the most segments first; images: dropped_segments.json.

    Empty where nothing was lost.
    """
    rows = {reason: {"dropped": 0, "shrunk": 0, "lost pixels": 0} for reason in REASONS}
    for image in images:
        for fate in image["dropped_segments"]:
            row = rows[fate["reason"]]
            row["shrunk" if fate["segment_id"] else "dropped"] += 1
            row["lost pixels"] += _lost_px(fate)
    kept = [(reason, row) for reason, row in rows.items() if row["dropped"] + row["shrunk"]]
    return dict(sorted(kept, key=lambda item: -(item[1]["dropped"] + item[1]["shrunk"])))


def list_costliest_segments(images: Told, limit: int = SHOWN) -> dict[str, dict[str, Any]]:
    """`139, instance 5` -> COLUMNS of the `limit` segments with the greatest cost, of equal cost the earlier ones.

    Cost: lost pixels times the score, 1 for stuff, so that what nobody believed in does not come first. Stuff that is
    still there is left out: it lies below things.
    """
    told = [(image["image_id"], fate) for image in images for fate in image["dropped_segments"] if _is_loss(fate)]
    told.sort(key=lambda item: -_cost(item[1]))
    return {_place(image_id, fate): _row(fate) for image_id, fate in told[:limit]}


def dropped_segments_tables(images: Told, limit: int = SHOWN) -> Group:
    """Both for `rich.console.Console().print`; a sentence where nothing was lost."""
    reasons, costliest = count_rejections(images), list_costliest_segments(images, limit)
    if not reasons:
        return Group(Text("Every segment kept all of its pixels."))
    tables = [_table("Segments that were dropped or lost pixels", "reason", reasons)]
    return (
        Group(*tables, _table("The costliest: pixels times score", "image", costliest)) if costliest else Group(*tables)
    )


def write_dropped_segments_page(
    path: Path,
    title: str,
    metrics: Mapping[str, Mapping[str, Any]],
    images: Told,
    categories: CategorySet | None = None,
) -> None:
    """`write_page` with both tables behind the metrics; OSError where it cannot be written."""
    dropped_segments = {
        "reason": count_rejections(images),
        "costliest (pixels times score)": list_costliest_segments(images, PAGE_ROWS),
    }
    told = {name: rows for name, rows in dropped_segments.items() if rows}
    shown = {**metrics, "Why segments were dropped or shrunk": told} if told else metrics
    notes = [] if told else ["Every segment kept all of its pixels."]
    write_page(path, title, shown, categories=categories, notes=notes)


def _row(fate: Mapping[str, Any]) -> dict[str, Any]:
    reason = fate["reason"]
    if fate["value"] is not None:
        reason = f"{reason} {fate['value']:.4g}, limit {fate['limit']:.4g}"
    takers: dict[str, int] = {}
    for taker in fate["overlapped_by"]:
        name = taker["category"] or NOBODY
        takers[name] = takers.get(name, 0) + taker["pixels"]
    most_first = sorted(takers.items(), key=lambda item: -item[1])
    shown = [f"{name} {pixels}" for name, pixels in most_first[:TAKERS]] + ["..."] * (len(most_first) > TAKERS)
    score = "" if fate["score"] is None else f"{fate['score']:.2f}"
    values = (
        fate["category"],
        score,
        reason,
        fate["area_px"],
        _lost_px(fate),
        ", ".join(shown),
    )
    return dict(zip(COLUMNS, values, strict=True))


def _place(image_id: int | str, fate: Mapping[str, Any]) -> str:
    """What tells the segment from all others: stuff is there once in an image."""
    return (
        f"{image_id}, stuff {fate['category_id']}"
        if fate["instance_id"] is None
        else f"{image_id}, instance {fate['instance_id']}"
    )


def _is_loss(fate: Mapping[str, Any]) -> bool:
    return _lost_px(fate) > 0 and (fate["isthing"] or not fate["segment_id"])


def _lost_px(fate: Mapping[str, Any]) -> int:
    return int(fate["area_px"] - fate["kept_px"])


def _cost(fate: Mapping[str, Any]) -> float:
    return float(_lost_px(fate) * (1.0 if fate["score"] is None else fate["score"]))


def _table(title: str, first: str, rows: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(first, title=title)
    columns = list(next(iter(rows.values())))
    for column in columns:
        table.add_column(Text(column), justify="left" if column in ("class", "reason", "to") else "right")
    for name, row in rows.items():
        table.add_row(Text(name), *(Text(str(row[column])) for column in columns))
    return table
