"""The counts of a dataset, as tables for the terminal and as a figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Group
from rich.text import Text

from segkit.report.rendering import render_figure
from segkit.report.tables import MISSING, build_table
from segkit.structures import CategorySet
from segkit.utils.text import make_printable

SHOWN_SIZES = 5
MAX_CLASSES = 60  # in the figure
WIDTH_INCHES, ROW_INCHES, MIN_INCHES, DPI = 13.0, 0.22, 3.0, 110
MAX_NAME_LETTERS = 24  # on an axis
PANELS = {"segments": "segments", "share": "% of the pixels", "area_px": "area of a segment (px)"}


def stats_tables(stats: Mapping[str, Any]) -> Group:
    """Summarize a dataset in a few lines and a table with a row per class.

    Args:
        stats: Result of `segkit.curation.stats.count_dataset`.

    Returns:
        Lines and table, for `rich.console.Console().print`.
    """
    sizes = [f"{size} ({images})" for size, images in [*stats["sizes"].items()][:SHOWN_SIZES]]
    more = f" and {len(stats['sizes']) - SHOWN_SIZES} other sizes" if len(stats["sizes"]) > SHOWN_SIZES else ""
    lines = [
        f"{stats['images']} images: {', '.join(sizes)}{more}",
        f"{_format_percent(stats['void_share'])} of the pixels are void",
        f"segments per image: {_format_range(stats['segments_per_image'])}",
        f"instances per image: {_format_range(stats['instances_per_image'])}",
    ]
    crowds = sum(counts["crowds"] for counts in stats["classes"].values())
    if crowds and not any(counts["segments"] for counts in stats["classes"].values()):
        lines.append(f"all {crowds} labels are crowds (iscrowd 1), on which no object is trained or scored")
    rows = [(name, _build_class_row(counts)) for name, counts in stats["classes"].items()]
    return Group(*(Text(line) for line in lines), build_table("Classes", "class", rows, left=("kind",)))


def draw_dataset_stats(stats: Mapping[str, Any], categories: CategorySet) -> NDArray[np.uint8]:
    """Draw three panels: segments, share of the pixels, and areas by class, the most frequent class first.

    Args:
        stats: Result of `segkit.curation.stats.count_dataset`.
        categories: The colours of the classes.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    classes = sorted(stats["classes"].items(), key=lambda item: (-item[1]["segments"], item[0]))[:MAX_CLASSES]
    colors = {c.name: np.array(c.color) / 255 for c in categories.categories}
    height = max(MIN_INCHES, ROW_INCHES * len(classes) + 1)
    figure = Figure(figsize=(WIDTH_INCHES, height), dpi=DPI, layout="constrained")
    names = [make_printable(name) for name, _ in classes]
    labels = [n if len(n) <= MAX_NAME_LETTERS else f"{n[: MAX_NAME_LETTERS - 3]}..." for n in names]
    for number, (key, title) in enumerate(PANELS.items(), 1):
        axes = figure.add_subplot(1, 3, number)
        if key == "area_px":
            for row, (name, counts) in enumerate(classes):
                if counts["area_px"] is not None:
                    low, left, middle, right, high = (max(value, 1) for value in counts["area_px"].values())
                    axes.plot([low, high], [row, row], color="0.7", linewidth=1)
                    axes.plot([left, right], [row, row], color=colors[name], linewidth=5)
                    axes.plot(middle, row, "|", color="black", markersize=9)
            axes.set_xscale("log")
        else:
            values = [100 * (counts[key] or 0) if key == "share" else counts[key] for _, counts in classes]
            axes.barh(range(len(classes)), values, color=[colors[name] for name, _ in classes])
        axes.set_yticks(range(len(classes)), labels if number == 1 else [""] * len(classes), parse_math=False)
        axes.set_ylim(len(classes) - 0.5, -0.5)
        axes.set_title(title)
        axes.grid(alpha=0.25, axis="x")
    return render_figure(figure)


def _build_class_row(counts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "kind": "thing" if counts["isthing"] else "stuff",
        **{key: counts[key] for key in ("images", "segments", "crowds")},
        "pixels": _format_percent(counts["share"]),
        "median area": None if counts["area_px"] is None else f"{counts['area_px']['median']:.0f}",
    }


def _format_percent(share: float | None) -> str:
    return MISSING if share is None else f"{100 * share:.1f} %"


def _format_range(quartiles: Mapping[str, float] | None) -> str:
    if quartiles is None:
        return MISSING
    return f"{quartiles['least']:.0f} to {quartiles['most']:.0f}, median {quartiles['median']:.0f}"
