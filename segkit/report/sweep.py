"""The result of a fusion sweep: a table for the terminal, a figure, an HTML page, and config lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Group
from rich.text import Text

from segkit.report.page import write_page
from segkit.report.rendering import render_figure
from segkit.report.tables import MISSING, Rows, as_number, build_table, format_interval, format_value
from segkit.utils.text import make_printable

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
METRICS = ("PQ", "PQ_th", "PQ_st", "SQ", "RQ")
SHOWN_SETTINGS = 200  # rows on the page; sweep.json has all settings
UNDECIDED = "no clear difference"


def sweep_table(result: Mapping[str, Any]) -> Group:
    """Build a table with a row for each step of each method, measured on the held-out split.

    Args:
        result: Result of `segkit.scoring.fusion.tuning.search`.

    Returns:
        The table and the options of each step, for `rich.console.Console().print`.
    """
    images, steps = result["images"], _list_steps(result)
    title = f"Tuned on {images[TUNING]} images, measured on the {images[HELD_OUT]} held-out images"
    columns = {"PQ": "PQ", "things": "PQ_th", "stuff": "PQ_st", "gain": "gain"}
    columns |= {"95% interval": "interval of the gain", "it is": "it is"}
    rows = []
    for name, step in steps:
        values = _build_step_row(step)
        rows.append((name, {column: values[key] for column, key in columns.items()}))
    table = build_table(title, "method", rows, left=("it is",), no_wrap=True)
    return Group(table, *(Text(f"{name}: {format_options(step['changed'])}") for name, step in steps))


def describe_best(result: Mapping[str, Any]) -> str:
    """Say which method and options are best, and whether the held-out split confirms the gain.

    Args:
        result: Result of `segkit.scoring.fusion.tuning.search`.

    Returns:
        One to two sentences.
    """
    method, step_name, step = _get_best(result)
    pq, gain = step[HELD_OUT]["PQ"], step["gain"]
    text = f"Best on the tuning split: {method}, {STEP_NAMES[step_name]} ({format_options(step['changed'])})."
    if gain["reason"]:
        return f"{text} No interval: {gain['reason']}."
    gain = gain["PQ"]
    if gain["difference"] is None:
        return f"{text} PQ has no value on the held-out split."
    undecided = gain["conclusion"] == UNDECIDED
    comparison = "not clearly different from" if undecided else f"{gain['conclusion']} than"
    return (
        f"{text} On the {result['images'][HELD_OUT]} held-out images PQ is {format_value(pq['value'])}: "
        f"{gain['difference']:+.2f} points (95% interval {format_interval(gain)}), "
        f"{comparison} the defaults of {method}."
    )


def format_best_as_yaml(result: Mapping[str, Any]) -> str:
    """Write the best method and its options as config lines, with `describe_best` as a comment.

    Args:
        result: Result of `segkit.scoring.fusion.tuning.search`.

    Returns:
        YAML with the keys MODEL.PANOPTIC.FUSION.NAME and OPTIONS.
    """
    method, _, step = _get_best(result)
    options = {name: value for name, value in step["options"].items() if value != {}}
    content = {"MODEL": {"PANOPTIC": {"FUSION": {"NAME": method, "OPTIONS": options}}}}
    # Class names may hold line breaks, which would end the comment.
    comment = "".join(letter if letter.isprintable() else " " for letter in describe_best(result))
    return f"# {comment}\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True)}"


def write_sweep_page(path: str | Path, result: Mapping[str, Any], figure: NDArray[np.uint8]) -> None:
    """Write a self-contained HTML page.

    Args:
        path: File to write.
        result: Result of `segkit.scoring.fusion.tuning.search`.
        figure: (H, W, 3) uint8 RGB, as `draw_sweep` draws it.

    Raises:
        OSError: The file cannot be written.
    """
    notes = [
        describe_best(result),
        "All settings fuse the same saved head outputs. Each method's best setting is the one with the highest PQ on "
        "the tuning split. Its value is measured on the held-out split, which had no part in the choice. Intervals "
        "come from a bootstrap over images; for the gain, it is paired.",
        f"Seed of the splits: {result['seed']}. ★ marks the Pareto front: no other setting is as good for things and "
        "for stuff and better for one of the two.",
    ]
    steps, settings = _list_steps(result), result["settings"]
    metrics: dict[str, dict[str, Any]] = {
        "Held-out split": {
            "step": {name: _build_step_row(step) for name, step in steps},
            "options": {name: {"changed": format_options(step["changed"])} for name, step in steps},
        },
        "Pareto front, all images": {"setting": _build_setting_rows([s for s in settings if s["pareto"]], merge=True)},
        "Settings, all images": {"setting": _build_setting_rows(settings, merge=False)},
    }
    write_page(path, "segkit fuse sweep", metrics, [("The search", figure)], notes=notes)


def format_options(options: Mapping[str, Any]) -> str:
    """Write options as `overlap_threshold 0.6, nms mask`; "defaults" for none."""
    return ", ".join(f"{option} {_format_option(value)}" for option, value in options.items()) or "defaults"


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


def _format_option(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_format_option(item)}" for name, item in value.items()) + "}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _get_best(result: Mapping[str, Any]) -> tuple[str, str, Mapping[str, Any]]:
    """The best method, the name of its best step, and that step."""
    method, step_name = result["best"]["method"], result["best"]["step"]
    return method, step_name, result["methods"][method][step_name]


def _list_steps(result: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """(`heuristic, tuned`, step) of every step of every method."""
    return [
        (f"{method}, {STEP_NAMES[name]}", steps[name])
        for method, steps in result["methods"].items()
        for name in STEP_NAMES
        if steps.get(name)
    ]


def _build_step_row(step: Mapping[str, Any]) -> dict[str, str]:
    """Metrics on the held-out split, and the gain over the method's default: gains are small and need two decimals."""
    metrics, gain = step[HELD_OUT], step["gain"]["PQ"] if "gain" in step else {}
    difference, conclusion = gain.get("difference"), gain.get("conclusion") or MISSING
    return {
        "PQ when tuned": format_value(step[TUNING]["PQ"]),
        "PQ": format_value(metrics["PQ"]["value"]),
        "interval": format_interval(metrics["PQ"], ".1f"),
        **{name: format_value(metrics[name]["value"]) for name in ("SQ", "RQ", "PQ_th", "PQ_st")},
        "gain": MISSING if difference is None else f"{difference:+.2f}",
        "interval of the gain": format_interval(gain),
        "it is": "unclear" if conclusion == UNDECIDED else conclusion,
    }


def _build_setting_rows(settings: Sequence[Mapping[str, Any]], merge: bool) -> Rows:
    """Settings by PQ, highest first; merge: settings with equal metrics share a row, which counts them."""
    rows: dict[str, dict[str, Any]] = {}
    row_of_metrics: dict[tuple[Any, ...], dict[str, Any]] = {}
    for setting in sorted(settings, key=lambda setting: -(setting["all"]["PQ"] or 0.0)):
        metrics = {name: setting["all"][name] for name in METRICS}
        key = tuple(metrics.values())
        if merge and key in row_of_metrics:
            row_of_metrics[key]["equal settings"] += 1
            continue
        name = f"{'★ ' if setting['pareto'] else ''}{setting['method']}: {format_options(setting['changed'])}"
        rows[name] = row_of_metrics[key] = metrics | ({"equal settings": 0} if merge else {})
        if len(rows) == SHOWN_SETTINGS:
            break
    return rows


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
    axes.set_yticks(range(len(labels)), labels, fontsize=8, parse_math=False)
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
        labels = [shorten(make_printable(value), MAX_LABEL_LETTERS, placeholder="...") for value in values]
        axes.set_xticks(range(len(values)), labels, parse_math=False)  # a class may be named $x
    axes.grid(alpha=0.25)


def _differ_only_in(option: str, options: Mapping[str, Any], tuned: Mapping[str, Any]) -> bool:
    return all(options[name] == value for name, value in tuned.items() if name != option)


def _get_points(settings: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
    """PQ_th and PQ_st of the settings; a missing value is 0."""
    pairs = [(as_number(setting["all"]["PQ_th"]), as_number(setting["all"]["PQ_st"])) for setting in settings]
    return [x or 0.0 for x, _ in pairs], [y or 0.0 for _, y in pairs]
