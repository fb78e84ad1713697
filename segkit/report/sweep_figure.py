"""The figure of a fusion sweep: things against stuff, the held-out split, and each option alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import shorten
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from segkit.report.rendering import render_figure
from segkit.report.tables import as_number

# Okabe and Ito's colours, which colour-blind people can tell apart; more methods repeat them with other markers.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D")
GREY = "#444444"
TUNING, HELD_OUT = "tuning", "held_out"  # keys of the splits in the result
STEP_NAMES = {"default": "default", "tuned": "tuned", "per_class": "per class"}
PANELS_PER_ROW = 4
WIDTH_INCHES, ROW_INCHES, DPI = 13.0, 4.0, 110
MAX_OPTIONS = 8
MAX_LABEL_LETTERS = 30  # of a value on an axis


def draw_sweep(result: Mapping[str, Any]) -> NDArray[np.uint8]:
    """Draw the result of a sweep.

    The panels are:
    - PQ of things against PQ of stuff of every setting, with the Pareto front, the defaults and the tuned settings;
    - PQ of each step of each method on the held-out split, with intervals;
    - for each option with several values: PQ on the tuning split of the tuned settings with this option alone changed.

    Args:
        result: Result of `segkit.scoring.fusion.tuning.search`.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    options = list_searched_options(result)[:MAX_OPTIONS]
    rows = 1 + -(-len(options) // PANELS_PER_ROW)
    figure = Figure(figsize=(WIDTH_INCHES, ROW_INCHES * rows), dpi=DPI, layout="constrained")
    bands = figure.subfigures(rows, 1, squeeze=False)[:, 0]  # each band has its own number of columns
    left, right = bands[0].subplots(1, 2)
    _draw_things_against_stuff(left, result)
    _draw_held_out_split(right, result)
    for row, band in enumerate(bands[1:]):
        shown = options[PANELS_PER_ROW * row : PANELS_PER_ROW * (row + 1)]
        for axes, option in zip(band.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            _draw_option(axes, result, option)
    return render_figure(figure)


def list_searched_options(result: Mapping[str, Any]) -> list[str]:
    """List the options of which some method has several values, in the order of the settings."""
    values: dict[tuple[str, str], set[str]] = {}
    for setting in result["settings"]:
        for option, value in setting["options"].items():
            values.setdefault((setting["method"], option), set()).add(repr(value))
    return list(dict.fromkeys(option for (_, option), distinct in values.items() if len(distinct) > 1))


def _get_style(result: Mapping[str, Any], method: str) -> dict[str, Any]:
    index = list(result["methods"]).index(method)
    return {"color": COLORS[index % len(COLORS)], "marker": MARKERS[index // len(COLORS) % len(MARKERS)]}


def _draw_things_against_stuff(axes: Axes, result: Mapping[str, Any]) -> None:
    axes.set(title="All images: things against stuff", xlabel="PQ of things", ylabel="PQ of stuff")
    outlined: dict[str, dict[str, Any]] = {"default": {"marker": "o", "s": 90}, "tuned": {"marker": "*", "s": 220}}
    for method, steps in result["methods"].items():
        style = _get_style(result, method)
        settings = [setting for setting in result["settings"] if setting["method"] == method]
        axes.scatter(*_get_points(settings), s=14, alpha=0.35, linewidths=0, label=method, **style)
        for step, outline in outlined.items():
            same = [setting for setting in settings if setting["options"] == steps[step]["options"]]
            axes.scatter(*_get_points(same), **outline, facecolors="none", edgecolors=style["color"], linewidths=1.6)
    front = sorted({*zip(*_get_points([s for s in result["settings"] if s["pareto"]]), strict=True)})
    axes.plot([x for x, _ in front], [y for _, y in front], "-", color=GREY, linewidth=1, label="Pareto front")
    for step, outline in outlined.items():
        axes.scatter([], [], **{**outline, "s": outline["s"] / 2}, facecolors="none", edgecolors=GREY, label=step)
    axes.legend(fontsize=8, framealpha=0.8)
    axes.grid(alpha=0.25)


def _draw_held_out_split(axes: Axes, result: Mapping[str, Any]) -> None:
    axes.set(title=f"The {result['images'][HELD_OUT]} held-out images, 95 % intervals", xlabel="PQ")
    labels: list[str] = []
    for method, steps in result["methods"].items():
        style = _get_style(result, method)
        for step, step_name in STEP_NAMES.items():
            pq = steps[step][HELD_OUT]["PQ"] if steps.get(step) else {}
            value, low, high = (as_number(pq.get(key)) for key in ("value", "low", "high"))
            if value is None:
                continue
            if low is not None and high is not None:
                axes.plot([low, high], [len(labels)] * 2, "-", color=style["color"])
            fill = "white" if step == "default" else style["color"]
            axes.plot([value], [len(labels)], linestyle="none", **style, markerfacecolor=fill)
            labels.append(f"{method}, {step_name}")
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.set_ylim(max(len(labels), 1) - 0.5, -0.5)
    axes.grid(alpha=0.25, axis="x")


def _draw_option(axes: Axes, result: Mapping[str, Any], option: str) -> None:
    axes.set(xlabel=option, ylabel="PQ, tuning split")
    curves: dict[str, list[tuple[Any, float]]] = {}
    for method, steps in result["methods"].items():
        tuned = steps["tuned"]["options"]
        if option in tuned:
            pairs = [
                (setting["options"][option], as_number(setting[TUNING]["PQ"]))
                for setting in result["settings"]
                if setting["method"] == method and _differ_only_in(option, setting["options"], tuned)
            ]
            curves[method] = [(value, pq) for value, pq in pairs if pq is not None]
    values: list[Any] = []  # distinct values of all methods; lists and mappings are not hashable
    for curve in curves.values():
        values += [value for value, _ in curve if value not in values]
    is_numeric = all(as_number(value) is not None for value in values)
    for method, curve in curves.items():
        points = sorted((value if is_numeric else values.index(value), pq) for value, pq in curve)
        xs, ys = [x for x, _ in points], [y for _, y in points]
        axes.plot(xs, ys, linewidth=1.3, markersize=5, label=method, **_get_style(result, method))
    if not is_numeric:
        labels = [shorten(str(value), MAX_LABEL_LETTERS, placeholder="...") for value in values]
        axes.set_xticks(range(len(values)), labels, parse_math=False)  # a class may be named $x
    axes.grid(alpha=0.25)


def _differ_only_in(option: str, options: Mapping[str, Any], tuned: Mapping[str, Any]) -> bool:
    return all(options[name] == value for name, value in tuned.items() if name != option)


def _get_points(settings: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
    """PQ_th and PQ_st of the settings; a missing value is 0."""
    pairs = [(as_number(setting["all"]["PQ_th"]), as_number(setting["all"]["PQ_st"])) for setting in settings]
    return [x or 0.0 for x, _ in pairs], [y or 0.0 for _, y in pairs]
