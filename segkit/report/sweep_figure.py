"""The search for the best fusion as one picture: things against stuff, what was confirmed, each option alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import shorten
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from segkit.report.metric_values import as_number
from segkit.report.pixels import render_figure

# Okabe and Ito's colours, which nobody confuses; then once more, with other markers.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D")
STEP_NAMES = {"default": "default", "tuned": "tuned", "per_class": "per class"}
COLUMNS = 4  # of options in a row, at most
WIDTH_INCHES, ROW_INCHES, DPI = 13.0, 4.0, 110
MOST_OPTIONS = 8
LONGEST = 30  # letters of a value on an axis


def draw_sweep(found: Mapping[str, Any]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of what `segkit.scoring.fusion.tuning.search` found.

    Panels: PQ of things against PQ of stuff of every setting, the Pareto front joined, defaults and choices marked;
    PQ of each method's steps on the confirming half with intervals; and for each option that was searched, PQ on
    the choosing half of the method's choice with this option alone changed.
    """
    options = searched_options(found)[:MOST_OPTIONS]
    rows = 1 + -(-len(options) // COLUMNS)
    figure = Figure(figsize=(WIDTH_INCHES, ROW_INCHES * rows), dpi=DPI, layout="constrained")
    bands = figure.subfigures(rows, 1, squeeze=False)[:, 0]  # each with columns of its own
    left, right = bands[0].subplots(1, 2)
    _front(left, found)
    _confirmed(right, found)
    for row, band in enumerate(bands[1:]):
        shown = options[COLUMNS * row : COLUMNS * (row + 1)]
        for axes, option in zip(band.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            _option(axes, found, option)
    return render_figure(figure)


def searched_options(found: Mapping[str, Any]) -> list[str]:
    """The options of which some method was tried with several values, in the order of the settings."""
    values: dict[tuple[str, str], set[str]] = {}
    for setting in found["settings"]:
        for option, value in setting["options"].items():
            values.setdefault((setting["method"], option), set()).add(repr(value))
    return list(dict.fromkeys(option for (_, option), different in values.items() if len(different) > 1))


def _look(found: Mapping[str, Any], method: str) -> dict[str, Any]:
    place = list(found["methods"]).index(method)
    return {"color": COLORS[place % len(COLORS)], "marker": MARKERS[place // len(COLORS) % len(MARKERS)]}


def _front(axes: Axes, found: Mapping[str, Any]) -> None:
    axes.set(title="All images: things against stuff", xlabel="PQ of things", ylabel="PQ of stuff")
    for method, steps in found["methods"].items():
        points = [setting for setting in found["settings"] if setting["method"] == method]
        axes.scatter(*_points(points), s=14, alpha=0.35, linewidths=0, label=method, **_look(found, method))
        for step, marker, size in (("default", "o", 90), ("tuned", "*", 220)):
            same = [one for one in points if one["options"] == steps[step]["options"]]
            color = _look(found, method)["color"]
            axes.scatter(*_points(same), s=size, marker=marker, facecolors="none", edgecolors=color, linewidths=1.6)
    front = sorted({*zip(*_points([one for one in found["settings"] if one["pareto"]]), strict=True)})
    axes.plot([x for x, _ in front], [y for _, y in front], "-", color="#444444", linewidth=1, label="Pareto front")
    axes.scatter([], [], s=60, marker="o", facecolors="none", edgecolors="#444444", label="default")
    axes.scatter([], [], s=110, marker="*", facecolors="none", edgecolors="#444444", label="tuned")
    axes.legend(fontsize=8, framealpha=0.8)
    axes.grid(alpha=0.25)


def _confirmed(axes: Axes, found: Mapping[str, Any]) -> None:
    images = found["images"]["confirming"]
    axes.set(title=f"The {images} images that did not choose, 95 % intervals", xlabel="PQ")
    names: list[str] = []
    for method, steps in found["methods"].items():
        for step, shown in STEP_NAMES.items():
            pq = steps[step]["confirming"]["PQ"] if steps.get(step) else {}
            value, low, high = (as_number(pq.get(key)) for key in ("value", "low", "high"))
            if value is None:
                continue
            if low is not None and high is not None:
                axes.plot([low, high], [len(names)] * 2, "-", color=_look(found, method)["color"])
            fill = _look(found, method)["color"] if step != "default" else "white"
            axes.plot([value], [len(names)], linestyle="none", **{**_look(found, method), "markerfacecolor": fill})
            names.append(f"{method}, {shown}")
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    axes.grid(alpha=0.25, axis="x")


def _option(axes: Axes, found: Mapping[str, Any], option: str) -> None:
    axes.set(xlabel=option, ylabel="PQ, choosing half")
    values: list[Any] = []  # of all methods, in order: numbers at their place, others side by side
    curves: dict[str, list[tuple[Any, float]]] = {}
    for method, steps in found["methods"].items():
        chosen = steps["tuned"]["options"]
        if option not in chosen:
            continue
        alone = [
            one for one in found["settings"] if one["method"] == method and _differ(one["options"], chosen, option)
        ]
        known = [(one["options"][option], as_number(one["choosing"]["PQ"])) for one in alone]
        curves[method] = [(value, pq) for value, pq in known if pq is not None]
        values += [value for value, _ in curves[method] if value not in values]
    numeric = all(as_number(value) is not None for value in values)
    for method, curve in curves.items():
        xs = [value if numeric else values.index(value) for value, _ in curve]
        pairs = sorted(zip(xs, (pq for _, pq in curve), strict=True))
        axes.plot(
            [x for x, _ in pairs],
            [y for _, y in pairs],
            linewidth=1.3,
            markersize=5,
            label=method,
            **_look(found, method),
        )
    if not numeric:
        shown = [shorten(str(value), LONGEST, placeholder="...") for value in values]
        axes.set_xticks(range(len(values)), shown, parse_math=False)  # a class may be named $x
    axes.grid(alpha=0.25)


def _differ(options: Mapping[str, Any], chosen: Mapping[str, Any], option: str) -> bool:
    return all(options[name] == value for name, value in chosen.items() if name != option)


def _points(settings: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
    """PQ_th and PQ_st of those that have both; where no setting has one of the two, it is 0."""
    pairs = [(as_number(one["all"]["PQ_th"]), as_number(one["all"]["PQ_st"])) for one in settings]
    return [x or 0.0 for x, _ in pairs], [y or 0.0 for _, y in pairs]
