"""The analysis of panoptic quality as tables for the terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from segkit.report import panoptic_analysis as tables
from segkit.structures import Category, CategorySet

CATEGORIES = CategorySet([Category(1, "[red]car", True, (0, 0, 0)), Category(9, "sky", False, (0, 0, 1))])
NOTHING = {"value": None, "low": None, "high": None}


def printed(table, width=80):
    out = io.StringIO()
    Console(file=out, width=width).print(table)
    return out.getvalue()


def cells(table, width=80):
    """The cells of every line of the table's body."""
    return [
        [cell.strip() for cell in line.split("│")[1:-1]] for line in printed(table, width).splitlines() if "│" in line
    ]


def intervals(reason=None, **numbers):
    names = [f"{name}{suffix}" for suffix in ("", "_th", "_st") for name in ("PQ", "SQ", "RQ")]
    return {"level": 0.9, "images": 7, "reason": reason, **dict.fromkeys(names, NOTHING), **numbers}


def budget(**error_types):
    """error_type=(cost, segments); the whole cost is that of stuff."""
    return {
        "error_types": {
            error_type: {"cost": cost, "cost_th": None, "cost_st": cost, "segments": segments}
            for error_type, (cost, segments) in error_types.items()
        }
    }


def difference(a, b, low=None, high=None, conclusion=None):
    missing = a is None or b is None
    values = {
        "A": a,
        "B": b,
        "difference": None if missing else b - a,
        "low": low,
        "high": high,
        "conclusion": conclusion,
    }
    return {**values, "share_better": None}


def compared(per_class=(), reason=None, level=0.95, images=30, **numbers):
    names = [f"{name}{suffix}" for suffix in ("", "_th", "_st") for name in ("PQ", "SQ", "RQ")]
    classes = {category_id: {"PQ": pq, "images": number} for category_id, pq, number in per_class}
    overall = dict.fromkeys(names, difference(None, None))
    return {"level": level, "images": images, "reason": reason, **overall, **numbers, "per_class": classes}


def analysis(**parts):
    empty = {"intervals": intervals(), "error_budget": budget(missed=(0.0, 0)), "confusion": {"top": []}}
    return {**empty, "worst_images": [], **parts}


def test_intervals():
    table = tables.intervals_table(intervals(PQ={"value": 41, "low": 40.26, "high": 42.0}))
    assert cells(table) == [["from", "40.3", "–", "–", "–", "–"], ["to", "42.0", "–", "–", "–", "–"]]
    assert "90% intervals, bootstrap over 7 images" in " ".join(printed(table).split())


def test_the_most_expensive_error_is_first():
    budget_cells = cells(tables.budget_table(budget(missed=(0.5, 3), wrong_class=(2.0, 1), split=(None, 0))))
    assert budget_cells == [
        ["wrong class", "2.0", "–", "2.0", "1"],
        ["missed", "0.5", "–", "0.5", "3"],
        ["split", "–", "–", "–", "0"],
    ]


def test_brackets_in_class_names_are_not_markup():
    top = [
        {"ground_truth": 1, "prediction": 9, "segments": 3, "share": 30.0},
        {"ground_truth": 9, "prediction": 5, "segments": 1, "share": None},
    ]
    assert cells(tables.confusion_table({"top": top}, CATEGORIES)) == [
        ["[red]car → sky", "3", "30.0"],
        ["sky → 5", "1", "–"],
    ]
    assert cells(tables.confusion_table({"top": top}, None, limit=1)) == [["1 → 9", "3", "30.0"]]


def test_worst_images():
    segments = [{"error_type": kind} for kind in ("missed", "poor_mask", "poor_mask")]
    worst = [
        {"image_id": "[bold]x", "cost": 1.005, "PQ": 0.0, "segments": segments},
        {"image_id": 3, "cost": None, "PQ": None, "segments": []},
    ]
    assert cells(tables.worst_images_table(worst)) == [
        ["[bold]x", "1.00", "0.00", "2 poor mask, 1 missed"],
        ["3", "–", "–", ""],
    ]
    assert len(cells(tables.worst_images_table(worst, limit=1))) == 1


def test_the_report_leaves_out_what_is_empty():
    out = printed(tables.analysis_tables({"PQ": 1.0}, analysis(intervals=intervals("one [image]")), None))
    assert out == "No intervals: one [image].\n"
    out = printed(tables.analysis_tables({"PQ": 1.0}, analysis(error_budget=budget(missed=(0.5, 3))), None))
    assert "intervals, bootstrap" in out
    assert "Where PQ is lost" in out
    assert "confusions" not in out
    assert "cost most" not in out


def test_the_report_says_when_the_modes_differ():
    other = {"mode": "corrected", "PQ": None, "reasons": ["1 image has ('[red]') x", "2 images have (1, 2) y"]}
    out = printed(tables.analysis_tables({"PQ": 41.26, "other_mode": other}, analysis(), None), 200)
    assert "By the corrected rules, PQ is – instead of 41.3: 1 image has ('[red]') x; 2 images have (1, 2) y.\n" in out


def test_comparison():
    """Classes with an interval come first, by difference; classes without a difference are listed only on request."""
    content = compared(
        [
            ("1", difference(50.0, 50.5, -1.0, 2.0, "no clear difference"), 12),
            ("9", difference(90.0, 10.0, -99.999, -60.0, "worse"), 2),
            ("4", difference(0.0, 30.0), 1),
            ("5", difference(3.0, 3.0, 0.0, 0.0, "no clear difference"), 9),
            ("6", difference(None, 3.0), 4),
            ("7", difference(None, None), 0),
        ],
        PQ=difference(40.0, 41.0, 0.5, 1.5, "better"),
    )
    overall = [["PQ", "40.0", "41.0", "+1.00", "+0.50 to +1.50", "better"]]
    overall += [[name, "–", "–", "–", "–", "–"] for name in ("SQ", "RQ", "PQ_th", "PQ_st")]
    differing = [
        ["sky", "90.0", "10.0", "-80.00", "-100.00 to -60.00", "worse"],
        ["[red]car", "50.0", "50.5", "+0.50", "-1.00 to +2.00", "unclear"],
        ["4", "0.0", "30.0", "+30.00", "of 1 image", "–"],
    ]
    assert cells(tables.comparison_table(content, CATEGORIES)) == overall + differing
    assert cells(tables.comparison_table(content, CATEGORIES, classes=1)) == overall + differing[:1]
    same, missing = ["5", "3.0", "3.0", "+0.00", "+0.00 to +0.00", "unclear"], ["6", "–", "3.0", "–", "–", "–"]
    every = [*differing[:2], same, differing[2], missing]
    assert cells(tables.comparison_table(content, CATEGORIES, None)) == overall + every
    assert "B - A, 95% interval, paired bootstrap over 30 images" in printed(tables.comparison_table(content, None))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            compared(PQ=difference(40.0, 41.0, 0.5, 1.5, "better")),
            "B is better than A by 1.00 points of PQ (95% interval +0.50 to +1.50).",
        ),
        (
            compared(level=0.999, PQ=difference(41.0, 40.5, -1.5, -0.25, "worse")),
            "B is worse than A by 0.50 points of PQ (99.9% interval -1.50 to -0.25).",
        ),
        (
            compared(PQ=difference(40.0, 39.0, -2, 1, "no clear difference")),
            "No clear difference between A and B: -1.00 points of PQ (95% interval -2.00 to +1.00).",
        ),
        (compared(reason="too few"), "No interval: too few."),
        (compared(), "PQ has no value in A or in B."),
    ],
)
def test_comparison_in_a_sentence(content, sentence):
    assert tables.describe_comparison(content) == sentence


def test_long_names_fit_80_columns_without_breaking_a_number():
    long = CategorySet([Category(1, "building-other-merged and more of it", False, (0, 0, 0))])
    content = compared([("1", difference(0.0, 100.0, 100.0, 100.0, "better"), 3)])
    table = tables.comparison_table(content, long)
    assert max(map(len, printed(table).splitlines())) <= 80
    assert "│ +100.00 to +100.00 │ better │" in printed(table)
