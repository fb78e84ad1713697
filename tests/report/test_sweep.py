"""The result of a sweep as table, text, config lines, page and figure; also with missing metrics."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from rich.console import Console

from segkit.formats import png
from segkit.report.sweep import (
    describe_best,
    draw_sweep,
    format_best_as_yaml,
    list_searched_options,
    sweep_table,
    write_sweep_page,
)

METRICS = ("PQ", "PQ_th", "PQ_st", "SQ", "RQ")


def same_values(pq: float | None) -> dict[str, Any]:
    return dict.fromkeys(METRICS, pq)


def setting(method: str, overlap: float, pq: float | None, pareto: bool = False, nms: str = "none") -> dict[str, Any]:
    options = {"overlap_threshold": overlap, "nms": nms, "class_score_thresholds": {}}
    changed = {key: value for key, value in options.items() if value not in (0.5, "none", {})}
    splits = {"all": same_values(pq), "tuning": same_values(pq), "held_out": same_values(pq)}
    return {
        "method": method,
        "options": options,
        "changed": changed,
        "default": not changed,
        "pareto": pareto,
        **splits,
    }


def step(
    base: dict[str, Any], low: float | None, high: float | None, gain: dict[str, Any] | None = None
) -> dict[str, Any]:
    held_out = {name: {"value": base["all"]["PQ"], "low": low, "high": high} for name in METRICS}
    values = {
        "options": base["options"],
        "changed": base["changed"],
        "tuning": same_values(50.0),
        "held_out": held_out,
    }
    return values if gain is None else {**values, "gain": {"PQ": gain, "reason": None}}


def gain(difference: float, low: float, high: float, conclusion: str) -> dict[str, Any]:
    return {"difference": difference, "low": low, "high": high, "conclusion": conclusion}


SETTINGS = [
    setting("[b]one", 0.5, 40.0),
    setting("[b]one", 0.6, 45.0, pareto=True, nms="mask"),
    setting("[b]one", 0.7, 45.0, pareto=True, nms="mask"),
    setting("two", 0.5, 30.0),
]
RESULT: dict[str, Any] = {
    "images": {"all": 9, "tuning": 4, "held_out": 5},
    "seed": 3,
    "best": {"method": "[b]one", "step": "tuned"},
    "methods": {
        "[b]one": {
            "per_class": None,
            "default": step(SETTINGS[0], 35.0, 44.0),
            "tuned": step(SETTINGS[1], 41.0, 48.0, gain(5.0, 1.25, 8.5, "better")),
        },
        "two": {
            "per_class": None,
            "default": step(SETTINGS[3], 28.0, 31.0),
            "tuned": step(SETTINGS[3], 28.0, 31.0, gain(0.0, 0.0, 0.0, "no clear difference")),
        },
    },
    "settings": SETTINGS,
}


def print_table(result: Any) -> str:
    console = Console(width=80)
    with console.capture() as captured:
        console.print(sweep_table(result))
    return captured.get()


def test_the_table_fits_a_terminal_and_shows_the_gain() -> None:
    text = print_table(RESULT)
    assert "Tuned on 4 images, measured on the 5 held-out images" in text
    assert all(part in text for part in ("+5.00", "+1.25 to +8.50", "better", "unclear"))
    assert "[b]one, tuned: overlap_threshold 0.6, nms mask" in text
    assert "two, default: defaults" in text


def test_the_best_setting_is_printed_as_text_and_config() -> None:
    text = describe_best(RESULT)
    assert text.startswith("Best on the tuning split: [b]one, tuned (overlap_threshold 0.6, nms mask).")
    assert text.endswith("+5.00 points (95% interval +1.25 to +8.50), better than the defaults of [b]one.")
    assert yaml.safe_load(format_best_as_yaml(RESULT)) == {
        "MODEL": {"PANOPTIC": {"FUSION": {"NAME": "[b]one", "OPTIONS": {"overlap_threshold": 0.6, "nms": "mask"}}}}
    }
    assert format_best_as_yaml(RESULT).startswith("# Best on the tuning split")


def test_an_unconfirmed_gain_is_not_reported_as_a_gain() -> None:
    result = copy.deepcopy(RESULT)
    result["best"] = {"method": "two", "step": "tuned"}
    assert describe_best(result).endswith("not clearly different from the defaults of two.")


def test_thresholds_by_class_are_in_the_config() -> None:
    result = copy.deepcopy(RESULT)
    own = copy.deepcopy(result["methods"]["two"]["tuned"])
    own["options"]["class_score_thresholds"] = own["changed"]["class_score_thresholds"] = {"a: b": 0.3, "7": 0.5}
    result["methods"]["two"]["per_class"], result["best"] = own, {"method": "two", "step": "per_class"}
    read = yaml.safe_load(format_best_as_yaml(result))["MODEL"]["PANOPTIC"]["FUSION"]["OPTIONS"]
    assert read["class_score_thresholds"] == {"a: b": 0.3, "7": 0.5}  # names stay text: a config has no other keys
    assert "two, per class" in print_table(result)
    assert "{a: b: 0.3, 7: 0.5}" in describe_best(result)


def test_special_characters_in_class_names_are_escaped() -> None:
    """A line break would end the comment, a control character is no YAML, and $ begins a formula in matplotlib."""
    result = copy.deepcopy(RESULT)
    own, hostile = result["methods"]["two"]["tuned"], {"a\nMODEL: {b: 1}\x07\u2028c": 0.3, "$\\frac{$": 0.5}
    own["options"]["class_score_thresholds"] = own["changed"]["class_score_thresholds"] = hostile
    result["best"] = {"method": "two", "step": "tuned"}
    read = yaml.safe_load(format_best_as_yaml(result))["MODEL"]["PANOPTIC"]["FUSION"]["OPTIONS"]
    assert read["class_score_thresholds"] == hostile
    result["settings"] = copy.deepcopy(SETTINGS)
    result["settings"][1]["options"]["class_score_thresholds"] = hostile
    assert "class_score_thresholds" in list_searched_options(result)
    assert draw_sweep(result).any()


def without_numbers() -> dict[str, Any]:
    """A result without any value: no interval, no PQ, no things."""
    result = copy.deepcopy(RESULT)
    none = dict.fromkeys(("value", "low", "high", "difference", "conclusion"))
    for entry in result["settings"]:
        for name in ("all", "tuning", "held_out"):
            entry[name] = same_values(None)
    for method in result["methods"].values():
        for name in ("default", "tuned"):
            method[name]["tuning"] = same_values(None)
            method[name]["held_out"] = dict.fromkeys(METRICS, none)
        method["tuned"]["gain"] = {"PQ": none, "reason": "images with segments: 1"}
    return result


def test_missing_numbers_are_dashes(tmp_path: Path) -> None:
    result = without_numbers()
    assert "–" in print_table(result)
    assert describe_best(result).endswith("No interval: images with segments: 1.")
    write_sweep_page(tmp_path / "sweep.html", result, draw_sweep(result))
    result["methods"]["[b]one"]["tuned"]["gain"]["reason"] = None
    assert describe_best(result).endswith("PQ has no value on the held-out split.")


def test_the_page_is_whole_and_escaped(tmp_path: Path) -> None:
    result = copy.deepcopy(RESULT)
    result["settings"][3]["changed"] = {"nms": "<script>"}
    write_sweep_page(tmp_path / "sweep.html", result, draw_sweep(result))
    page = (tmp_path / "sweep.html").read_text()
    assert all(text in page for text in ("[b]one, tuned", "+5.00", "★ [b]one", "data:image/", "Seed of the splits: 3"))
    assert "<script>" not in page
    assert "http" not in page.replace('xmlns="http', "")


def test_equal_settings_share_a_row_on_the_pareto_front(tmp_path: Path) -> None:
    """0.6 and 0.7 give the same numbers: one row (with one equal setting) on the front, two rows among all settings."""
    write_sweep_page(tmp_path / "sweep.html", RESULT, np.zeros((4, 4, 3), dtype=np.uint8))
    page = (tmp_path / "sweep.html").read_text()
    assert page.count("★ [b]one: overlap_threshold 0.6") == 2
    assert page.count("★ [b]one: overlap_threshold 0.7") == 1


def test_the_figure_is_drawn_and_written_without_loss(tmp_path: Path) -> None:
    image = draw_sweep(RESULT)
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 10  # something is drawn
    png.write(tmp_path / "sweep.png", image)
    assert np.array_equal(cv2.imread(str(tmp_path / "sweep.png"))[..., ::-1], image)
    again = draw_sweep(RESULT)
    assert np.array_equal(image, again)


def test_values_are_drawn_as_printable_text_and_no_formula() -> None:
    drawings = [
        draw_sweep(json.loads(json.dumps(RESULT).replace('"mask"', json.dumps(name)))) for name in ("$x\x1b", r"$x\x1b")
    ]
    assert np.array_equal(*drawings)
    assert not np.array_equal(drawings[0], draw_sweep(RESULT))


def test_each_option_with_several_values_has_a_panel() -> None:
    assert list_searched_options(RESULT) == ["overlap_threshold", "nms"]
    assert list_searched_options({**RESULT, "settings": SETTINGS[:1]}) == []
    alone = {**RESULT, "settings": SETTINGS[:2], "methods": {"[b]one": RESULT["methods"]["[b]one"]}}
    assert draw_sweep(alone).shape != draw_sweep({**alone, "settings": SETTINGS[:1]}).shape
