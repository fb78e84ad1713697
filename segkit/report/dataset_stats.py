"""What a dataset holds, as tables for the terminal and as plots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Group
from rich.table import Table
from rich.text import Text

from segkit.report.pixels import render_figure
from segkit.structures import CategorySet

SHOWN_SIZES = 5
MOST_CLASSES = 60  # in the plots
WIDTH_INCHES, ROW_INCHES, LEAST_INCHES, DPI = 13.0, 0.22, 3.0, 110
LONGEST = 24  # letters of a name on an axis
PLOTS = {"segments": "segments", "share": "% of the pixels", "area_px": "area of a segment (px)"}


def stats_tables(found: Mapping[str, Any]) -> Group:
    """found: of segkit.curation.stats.count. The dataset in a few lines, and a row for each class."""
    sizes = [f"{size} ({images})" for size, images in [*found["sizes"].items()][:SHOWN_SIZES]]
    more = f" and {len(found['sizes']) - SHOWN_SIZES} other sizes" if len(found["sizes"]) > SHOWN_SIZES else ""
    lines = [
        f"{found['images']} images: {', '.join(sizes)}{more}",
        f"{_percent(found['void_share'])} of the pixels are void",
        f"segments per image: {_range(found['segments_per_image'])}",
        f"instances per image: {_range(found['instances_per_image'])}",
    ]
    table = Table("class", "kind", title="Classes")
    for column in ("images", "segments", "crowds", "pixels", "median area"):
        table.add_column(column, justify="right")
    for name, one in found["classes"].items():
        area = "–" if one["area_px"] is None else f"{one['area_px']['median']:.0f}"
        kind = "thing" if one["isthing"] else "stuff"
        numbers = [str(one[key]) for key in ("images", "segments", "crowds")]
        table.add_row(Text(name), kind, *numbers, _percent(one["share"]), area)
    return Group(*(Text(line) for line in lines), table)


def draw_dataset_stats(found: Mapping[str, Any], categories: CategorySet) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB: segments, share of the pixels and areas by class, the most frequent first."""
    rows = sorted(found["classes"].items(), key=lambda row: (-row[1]["segments"], row[0]))[:MOST_CLASSES]
    colors = {c.name: np.array(c.color) / 255 for c in categories.categories}
    height = max(LEAST_INCHES, ROW_INCHES * len(rows) + 1)
    figure = Figure(figsize=(WIDTH_INCHES, height), dpi=DPI, layout="constrained")
    names = [name if len(name) <= LONGEST else f"{name[: LONGEST - 3]}..." for name, _ in rows]
    places = np.arange(len(rows))
    for number, (key, title) in enumerate(PLOTS.items(), 1):
        axes = figure.add_subplot(1, 3, number)
        if key == "area_px":
            for place, (name, one) in enumerate(rows):
                if one["area_px"] is not None:
                    low, left, middle, right, high = (max(value, 1) for value in one["area_px"].values())
                    axes.plot([low, high], [place, place], color="0.7", linewidth=1)
                    axes.plot([left, right], [place, place], color=colors[name], linewidth=5)
                    axes.plot(middle, place, "|", color="black", markersize=9)
            axes.set_xscale("log")
        else:
            values = [100 * (one[key] or 0) if key == "share" else one[key] for _, one in rows]
            axes.barh(places, values, color=[colors[name] for name, _ in rows])
        axes.set_yticks(places, names if number == 1 else [""] * len(rows), parse_math=False)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_title(title)
        axes.grid(alpha=0.25, axis="x")
    return render_figure(figure)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _range(quartiles: Mapping[str, float] | None) -> str:
    if quartiles is None:
        return "–"
    return f"{quartiles['least']:.0f} to {quartiles['most']:.0f}, median {quartiles['median']:.0f}"
