"""Tables about fusion: options of a method, occlusion priors, and why segments were dropped or shrunk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from segkit.fusion import REASONS, FusionMethod
from segkit.fusion.occlusion_priors import OcclusionPriors
from segkit.report.page import write_page
from segkit.report.tables import Rows, build_table
from segkit.structures import CategorySet

MAX_PAIRS = 20
TERMINAL_ROWS, PAGE_ROWS = 20, 200  # of the costliest segments
SHOWN_OVERLAPS = 3  # classes that took the pixels of one segment
NO_SEGMENT = "void"
NOTHING_LOST = "Every segment kept all of its pixels."
Images = Sequence[Mapping[str, Any]]


def method_table(name: str, method: type[FusionMethod], defaults: Mapping[str, Any]) -> tuple[Table, Text]:
    """List the options of a fusion method, and say what the method does and needs.

    Args:
        name: Name of the method, as in `FUSION_METHODS`.
        method: Class of the method.
        defaults: Option -> default value.

    Returns:
        The table of options, and a sentence to print below it.
    """
    summary = " ".join((method.__doc__ or "").split("\n\n")[0].split())
    needs = ", ".join(sorted(method.needs)) or "crops and the best semantic channel of each pixel"
    rows = []
    for field in fields(method):  # type: ignore[arg-type]
        type_name = field.type if isinstance(field.type, str) else field.type.__name__
        rows.append((field.name, {"type": type_name, "default": repr(defaults[field.name])}))
    return build_table(name, "option", rows, left=("type", "default")), Text(f"{summary} Needs {needs}.")


def priors_table(priors: OcclusionPriors) -> Table | str:
    """List the `MAX_PAIRS` pairs of classes with the highest probability that the first occludes the second.

    Args:
        priors: The counted occlusions.

    Returns:
        A table, sorted by probability, then by the number of occlusions; a sentence if no objects overlap.
    """
    names = dict(priors.things)
    pairs = [(priors.occlusion_probability(*pair), times, pair) for pair, times in priors.counts.items() if times]
    if not pairs:
        return "No two objects of different classes overlap: there is nothing to learn."
    rows = []
    for probability, times, (front, behind) in sorted(pairs, key=lambda row: (-row[0], -row[1], row[2]))[:MAX_PAIRS]:
        reverse = priors.counts.get((behind, front), 0)
        row = {"behind": names[behind], "times": times, "the other way": reverse, "probability": probability}
        rows.append((names[front], row))
    return build_table("The clearest pairs", "in front", rows, decimals=2, left=("behind",))


def dropped_segments_tables(images: Images, limit: int = TERMINAL_ROWS) -> Group:
    """Build the tables of the reasons and of the costliest segments.

    Args:
        images: Content of dropped_segments.json.
        limit: Rows of the second table.

    Returns:
        The tables, for `rich.console.Console().print`; a sentence instead if no segment lost a pixel.
    """
    reasons, costliest = count_rejections(images), list_costliest_segments(images, limit)
    if not reasons:
        return Group(Text(NOTHING_LOST))
    table = build_table("Segments that were dropped or lost pixels", "reason", reasons.items())
    if not costliest:
        return Group(table)
    left = ("class", "reason", "to")
    return Group(table, build_table("The costliest: pixels times score", "image", costliest.items(), left=left))


def write_dropped_segments_page(
    path: str | Path,
    title: str,
    metrics: Mapping[str, Mapping[str, Any]],
    images: Images,
    categories: CategorySet | None = None,
) -> None:
    """Write an HTML page with the metrics and, below them, the tables of dropped segments.

    Args:
        path: File to write.
        title: Title of the page.
        metrics: Task -> result of its evaluator, as `write_page` takes it.
        images: Content of dropped_segments.json.
        categories: Names and colours of the classes.

    Raises:
        OSError: The file cannot be written.
    """
    costliest = list_costliest_segments(images, PAGE_ROWS)
    tables = {"reason": count_rejections(images), "costliest (pixels times score)": costliest}
    tables = {name: rows for name, rows in tables.items() if rows}
    section = {"Why segments were dropped or shrunk": tables} if tables else {}
    write_page(path, title, {**metrics, **section}, categories=categories, notes=[] if tables else [NOTHING_LOST])


def count_rejections(images: Images) -> Rows:
    """Count the dropped and shrunk segments of each reason, the most frequent reason first.

    Args:
        images: Content of dropped_segments.json.

    Returns:
        Reason -> {dropped, shrunk: segments, lost pixels}; empty if nothing was lost.
    """
    rows = {reason: {"dropped": 0, "shrunk": 0, "lost pixels": 0} for reason in REASONS}
    for image in images:
        for segment in image["dropped_segments"]:
            row = rows[segment["reason"]]
            row["shrunk" if segment["segment_id"] else "dropped"] += 1
            row["lost pixels"] += _count_lost_px(segment)
    by_number = sorted(rows.items(), key=lambda item: -(item[1]["dropped"] + item[1]["shrunk"]))
    return {reason: row for reason, row in by_number if row["dropped"] + row["shrunk"]}


def list_costliest_segments(images: Images, limit: int = TERMINAL_ROWS) -> Rows:
    """List the segments with the greatest cost; equal costs keep their order.

    The cost is the lost pixels times the score (1 for stuff), so that segments with a low score do not come first.
    Stuff that is still in the map is left out: things lie above it as a rule.

    Args:
        images: Content of dropped_segments.json.
        limit: Most rows.

    Returns:
        `139, instance 5` -> {class, score, reason, pixels, lost, to}.
    """
    losses = [
        (image["image_id"], segment)
        for image in images
        for segment in image["dropped_segments"]
        if _count_lost_px(segment) > 0 and (segment["isthing"] or not segment["segment_id"])
    ]
    losses.sort(key=lambda item: -_count_lost_px(item[1]) * (1.0 if item[1]["score"] is None else item[1]["score"]))
    rows = {}
    for image_id, segment in losses[:limit]:
        is_stuff = segment["instance_id"] is None  # an image has one segment per stuff class
        name = f"stuff {segment['category_id']}" if is_stuff else f"instance {segment['instance_id']}"
        rows[f"{image_id}, {name}"] = _build_row(segment)
    return rows


def _build_row(segment: Mapping[str, Any]) -> dict[str, Any]:
    reason = segment["reason"]
    if segment["value"] is not None:
        reason = f"{reason} {segment['value']:.4g}, limit {segment['limit']:.4g}"
    pixels = Counter[str]()
    for overlap in segment["overlapped_by"]:
        pixels[overlap["category"] or NO_SEGMENT] += overlap["pixels"]
    overlaps = [f"{name} {number}" for name, number in pixels.most_common(SHOWN_OVERLAPS)]
    return {
        "class": segment["category"],
        "score": "" if segment["score"] is None else f"{segment['score']:.2f}",
        "reason": reason,
        "pixels": segment["area_px"],
        "lost": _count_lost_px(segment),
        "to": ", ".join(overlaps + ["..."] * (len(pixels) > SHOWN_OVERLAPS)),
    }


def _count_lost_px(segment: Mapping[str, Any]) -> int:
    return int(segment["area_px"] - segment["kept_px"])
