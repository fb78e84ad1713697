"""The search for the best fusion as a page, as a table for the terminal, and as lines for a config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from rich.console import Group
from rich.table import Table
from rich.text import Text

from segkit.report.metric_values import MISSING, format_value
from segkit.report.page import write_page
from segkit.report.sweep_figure import STEP_NAMES

NUMBERS = ("PQ", "PQ_th", "PQ_st", "SQ", "RQ")
SHOWN_SETTINGS = 200  # on the page: the best of each method; sweep.json has all
GAIN = ("gain", "interval of the gain", "it is")
UNDECIDED = "no clear difference"


def sweep_table(found: Mapping[str, Any]) -> Group:
    """A row for each step of each method, on the images that did not choose; and the options of each."""
    images = found["images"]
    title = f"Chosen on {images['choosing']} images, confirmed on the other {images['confirming']}"
    table = Table("method", title=title)
    for column in ("PQ", "things", "stuff", "gain", "95% interval"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("it is", no_wrap=True)
    told = []
    for name, one in _steps(found):
        row = _confirmed_row(one)
        table.add_row(Text(name), *(row[column] for column in ("PQ", "PQ_th", "PQ_st", *GAIN)))
        told.append(Text(f"{name}: {options_text(one['changed'])}"))
    return Group(table, *told)


def describe_best(found: Mapping[str, Any]) -> str:
    """What was found, in sentences: a gain that the confirming half does not bear out is called so."""
    method, step = found["best"]["method"], found["best"]["step"]
    one = found["methods"][method][step]
    pq, gain = one["confirming"]["PQ"], one["gain"]
    told = f"Best on the choosing half: {method}, {STEP_NAMES[step]} ({options_text(one['changed'])})."
    if gain["reason"]:
        return f"{told} No interval: {gain['reason']}."
    if gain["PQ"]["difference"] is None:
        return f"{told} PQ has no value on the confirming half."
    told += f" On the {found['images']['confirming']} images that did not choose PQ is {format_value(pq['value'])}:"
    verdict = gain["PQ"]["conclusion"]
    compared = "not clearly different from" if verdict == UNDECIDED else f"{verdict} than"
    certain = f"95% interval {gain['PQ']['low']:+.2f} to {gain['PQ']['high']:+.2f}"
    return f"{told} {gain['PQ']['difference']:+.2f} points ({certain}), {compared} the defaults of {method}."


def format_best_as_yaml(found: Mapping[str, Any]) -> str:
    """The choice as config keys, with what it is worth in a comment."""
    method, step = found["best"]["method"], found["best"]["step"]
    options = {name: value for name, value in found["methods"][method][step]["options"].items() if value != {}}
    content = {"MODEL": {"PANOPTIC": {"FUSION": {"NAME": method, "OPTIONS": options}}}}
    told = "".join(letter if letter.isprintable() else " " for letter in describe_best(found))  # a comment is one line
    return f"# {told}\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True)}"


def write_sweep_page(path: Path, found: Mapping[str, Any], picture: NDArray[np.uint8]) -> None:
    """One self-contained HTML page; picture: of `sweep_figure`. OSError where it cannot be written."""
    notes = [
        describe_best(found),
        "Each setting was fused from the same saved head outputs. A setting was chosen by its PQ on one half of the "
        "images; what it is worth is said on the other half, which had no part in the choice. Intervals: bootstrap "
        "over images, for the gain paired.",
        f"Seed of the halves: {found['seed']}. ★ marks the Pareto front: no other setting is as good for things and "
        "for stuff, and better for one of them.",
    ]
    steps = _steps(found)
    metrics = {
        "Confirmed": {
            "step": {name: _confirmed_row(one) for name, one in steps},
            "options": {name: {"changed": options_text(one["changed"])} for name, one in steps},
        },
        "Pareto front, all images": {"setting": _setting_rows([s for s in found["settings"] if s["pareto"]], True)},
        "Settings, all images": {"setting": _setting_rows(found["settings"], False)},
    }
    write_page(path, "segkit fuse sweep", metrics, [("The search", picture)], notes=notes)


def options_text(options: Mapping[str, Any]) -> str:
    """`overlap_threshold 0.6, nms mask`; "defaults" for none."""
    return ", ".join(f"{option} {_value(value)}" for option, value in options.items()) or "defaults"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_value(one)}" for name, one in value.items()) + "}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _steps(found: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """(`heuristic, tuned`, what is told of it)."""
    steps = [
        (f"{method}, {STEP_NAMES[step]}", one.get(step))
        for method, one in found["methods"].items()
        for step in STEP_NAMES
    ]
    return [(name, one) for name, one in steps if one]


def _confirmed_row(one: Mapping[str, Any]) -> dict[str, str]:
    """The confirming half's numbers, and the gain over the method's default: those are small, with two decimals."""
    confirmed, gain = one["confirming"], one["gain"]["PQ"] if "gain" in one else {}
    difference, verdict = gain.get("difference"), gain.get("conclusion") or MISSING
    cells = [MISSING if difference is None else f"{difference:+.2f}", _interval(gain, "+.2f")]
    return {
        "PQ when chosen": format_value(one["choosing"]["PQ"]),
        "PQ": format_value(confirmed["PQ"]["value"]),
        "interval": _interval(confirmed["PQ"], ".1f"),
        **{name: format_value(confirmed[name]["value"]) for name in ("SQ", "RQ", "PQ_th", "PQ_st")},
        **dict(zip(GAIN, [*cells, "unclear" if verdict == UNDECIDED else verdict], strict=True)),
    }


def _interval(one: Mapping[str, Any], style: str) -> str:
    return MISSING if one.get("low") is None else f"{one['low']:{style}} to {one['high']:{style}}"


def _setting_rows(settings: Sequence[Mapping[str, Any]], front: bool) -> dict[str, dict[str, Any]]:
    """The best PQ first; on the front settings of equal numbers are one row."""
    rows: dict[str, dict[str, Any]] = {}
    seen: dict[tuple[Any, ...], str] = {}
    for one in sorted(settings, key=lambda setting: -(setting["all"]["PQ"] or 0.0)):
        key = tuple(one["all"][name] for name in NUMBERS)
        if front and key in seen:
            rows[seen[key]]["settings alike"] += 1
            continue
        name = f"{'★ ' if one['pareto'] else ''}{one['method']}: {options_text(one['changed'])}"
        seen[key] = name
        rows[name] = {number: one["all"][number] for number in NUMBERS} | ({"settings alike": 0} if front else {})
        if len(rows) == SHOWN_SETTINGS:
            break
    return rows
