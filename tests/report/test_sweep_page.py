"""The search as table, text, config lines, page and picture; also where numbers are missing."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from rich.console import Console

from segkit.formats import png
from segkit.report.sweep_figure import draw_sweep, list_searched_options
from segkit.report.sweep_page import describe_best, format_best_as_yaml, sweep_table, write_sweep_page

NUMBERS = ("PQ", "PQ_th", "PQ_st", "SQ", "RQ")


def numbers(pq: float | None) -> dict[str, Any]:
    return dict.fromkeys(NUMBERS, pq)


def setting(method: str, overlap: float, pq: float | None, pareto: bool = False, nms: str = "none") -> dict[str, Any]:
    options = {"overlap_threshold": overlap, "nms": nms, "class_score_thresholds": {}}
    changed = {key: value for key, value in options.items() if value not in (0.5, "none", {})}
    halves = {"all": numbers(pq), "tuning": numbers(pq), "held_out": numbers(pq)}
    return {
        "method": method,
        "options": options,
        "changed": changed,
        "default": not changed,
        "pareto": pareto,
        **halves,
    }


def step(
    one: dict[str, Any], low: float | None, high: float | None, gain: dict[str, Any] | None = None
) -> dict[str, Any]:
    confirming = {name: {"value": one["all"]["PQ"], "low": low, "high": high} for name in NUMBERS}
    made = {"options": one["options"], "changed": one["changed"], "tuning": numbers(50.0), "held_out": confirming}
    return made if gain is None else {**made, "gain": {"PQ": gain, "reason": None}}


def gain(difference: float, low: float, high: float, verdict: str) -> dict[str, Any]:
    return {"difference": difference, "low": low, "high": high, "conclusion": verdict}


SETTINGS = [
    setting("[b]one", 0.5, 40.0),
    setting("[b]one", 0.6, 45.0, pareto=True, nms="mask"),
    setting("[b]one", 0.7, 45.0, pareto=True, nms="mask"),
    setting("two", 0.5, 30.0),
]
FOUND: dict[str, Any] = {
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


def text_of(found: Any) -> str:
    console = Console(width=80)
    with console.capture() as captured:
        console.print(sweep_table(found))
    return captured.get()


def test_the_table_fits_a_terminal_and_says_what_was_gained() -> None:
    text = text_of(FOUND)
    assert "Tuned on 4 images, measured on the 5 held-out images" in text
    assert all(part in text for part in ("+5.00", "+1.25 to +8.50", "better", "unclear"))
    assert "[b]one, tuned: overlap_threshold 0.6, nms mask" in text
    assert "two, default: defaults" in text


def test_the_best_in_words_and_as_config() -> None:
    text = describe_best(FOUND)
    assert text.startswith("Best on the tuning split: [b]one, tuned (overlap_threshold 0.6, nms mask).")
    assert text.endswith("+5.00 points (95% interval +1.25 to +8.50), better than the defaults of [b]one.")
    assert yaml.safe_load(format_best_as_yaml(FOUND)) == {
        "MODEL": {"PANOPTIC": {"FUSION": {"NAME": "[b]one", "OPTIONS": {"overlap_threshold": 0.6, "nms": "mask"}}}}
    }
    assert format_best_as_yaml(FOUND).startswith("# Best on the tuning split")


def test_a_gain_that_was_not_confirmed_is_not_called_one() -> None:
    found = copy.deepcopy(FOUND)
    found["best"] = {"method": "two", "step": "tuned"}
    assert describe_best(found).endswith("not clearly different from the defaults of two.")


def test_thresholds_by_class_are_in_the_config() -> None:
    found = copy.deepcopy(FOUND)
    own = copy.deepcopy(found["methods"]["two"]["tuned"])
    own["options"]["class_score_thresholds"] = own["changed"]["class_score_thresholds"] = {"a: b": 0.3, "7": 0.5}
    found["methods"]["two"]["per_class"], found["best"] = own, {"method": "two", "step": "per_class"}
    read = yaml.safe_load(format_best_as_yaml(found))["MODEL"]["PANOPTIC"]["FUSION"]["OPTIONS"]
    assert read["class_score_thresholds"] == {"a: b": 0.3, "7": 0.5}  # names stay text: a config has no other keys
    assert "two, per class" in text_of(found)
    assert "{a: b: 0.3, 7: 0.5}" in describe_best(found)


def test_no_class_name_breaks_the_config_or_the_picture() -> None:
    """A line break would end the comment, a control character is no YAML, and $ begins a formula in matplotlib."""
    found = copy.deepcopy(FOUND)
    own, hostile = found["methods"]["two"]["tuned"], {"a\nMODEL: {b: 1}\x07\u2028c": 0.3, "$\\frac{$": 0.5}
    own["options"]["class_score_thresholds"] = own["changed"]["class_score_thresholds"] = hostile
    found["best"] = {"method": "two", "step": "tuned"}
    read = yaml.safe_load(format_best_as_yaml(found))["MODEL"]["PANOPTIC"]["FUSION"]["OPTIONS"]
    assert read["class_score_thresholds"] == hostile
    found["settings"] = copy.deepcopy(SETTINGS)
    found["settings"][1]["options"]["class_score_thresholds"] = hostile
    assert "class_score_thresholds" in list_searched_options(found)
    assert draw_sweep(found).any()


def without_numbers() -> dict[str, Any]:
    """One method of which nothing is known: no interval, no PQ, no things."""
    found = copy.deepcopy(FOUND)
    none = dict.fromkeys(("value", "low", "high", "difference", "conclusion"))
    for one in found["settings"]:
        for name in ("all", "tuning", "held_out"):
            one[name] = numbers(None)
    for method in found["methods"].values():
        for name in ("default", "tuned"):
            method[name]["tuning"] = numbers(None)
            method[name]["held_out"] = dict.fromkeys(NUMBERS, none)
        method["tuned"]["gain"] = {"PQ": none, "reason": "images with segments: 1"}
    return found


def test_missing_numbers_are_dashes(tmp_path: Path) -> None:
    found = without_numbers()
    assert "–" in text_of(found)
    assert describe_best(found).endswith("No interval: images with segments: 1.")
    write_sweep_page(tmp_path / "sweep.html", found, draw_sweep(found))
    found["methods"]["[b]one"]["tuned"]["gain"]["reason"] = None
    assert describe_best(found).endswith("PQ has no value on the held-out split.")


def test_the_page_is_whole_and_escaped(tmp_path: Path) -> None:
    found = copy.deepcopy(FOUND)
    found["settings"][3]["changed"] = {"nms": "<script>"}
    write_sweep_page(tmp_path / "sweep.html", found, draw_sweep(found))
    page = (tmp_path / "sweep.html").read_text()
    assert all(text in page for text in ("[b]one, tuned", "+5.00", "★ [b]one", "data:image/", "Seed of the splits: 3"))
    assert "<script>" not in page
    assert "http" not in page.replace('xmlns="http', "")


def test_on_the_front_equal_settings_are_one_row(tmp_path: Path) -> None:
    """0.6 and 0.7 give the same numbers: one row with one alike on the front, two rows among all settings."""
    write_sweep_page(tmp_path / "sweep.html", FOUND, np.zeros((4, 4, 3), dtype=np.uint8))
    page = (tmp_path / "sweep.html").read_text()
    assert page.count("★ [b]one: overlap_threshold 0.6") == 2
    assert page.count("★ [b]one: overlap_threshold 0.7") == 1


def test_the_picture_is_written_as_it_is(tmp_path: Path) -> None:
    picture = draw_sweep(FOUND)
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10  # something is drawn
    png.write(tmp_path / "sweep.png", picture)
    assert np.array_equal(cv2.imread(str(tmp_path / "sweep.png"))[..., ::-1], picture)
    again = draw_sweep(FOUND)
    assert np.array_equal(picture, again)


def test_a_panel_for_each_option_with_several_values() -> None:
    assert list_searched_options(FOUND) == ["overlap_threshold", "nms"]
    assert list_searched_options({**FOUND, "settings": SETTINGS[:1]}) == []
    alone = {**FOUND, "settings": SETTINGS[:2], "methods": {"[b]one": FOUND["methods"]["[b]one"]}}
    assert draw_sweep(alone).shape != draw_sweep({**alone, "settings": SETTINGS[:1]}).shape
