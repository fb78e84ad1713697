"""The result of a fusion sweep: a table for the terminal, an HTML page, and config lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from rich.console import Group
from rich.text import Text

from segkit.report.page import write_page
from segkit.report.sweep_figure import HELD_OUT, STEP_NAMES, TUNING
from segkit.report.tables import MISSING, Rows, build_table, format_interval, format_value

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


def write_sweep_page(path: Path, result: Mapping[str, Any], figure: NDArray[np.uint8]) -> None:
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
