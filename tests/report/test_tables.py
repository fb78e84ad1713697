from __future__ import annotations

import io
import re

from rich.console import Console, Group

from segkit.report import metrics_table
from segkit.report.tables import per_class_tables
from segkit.structures import Category, CategorySet


def printed(metrics: dict) -> list[list[str]]:
    return lines(metrics_table(metrics))


def lines(tables: Group) -> list[list[str]]:
    """The cells of every line that has some."""
    out = io.StringIO()
    Console(file=out, width=120).print(tables)
    rows = [re.split(r"\s*[│┃|]\s*", line)[1:-1] for line in out.getvalue().splitlines()]
    return [row for row in rows if row]


def test_tasks_of_a_family_share_a_table():
    rows = printed(
        {
            "panoptic_seg": {"PQ": 41.26, "SQ": 78, "RQ": None, "PQ_th": float("nan"), "per_class": {"1": {"PQ": 3.0}}},
            "bbox": {"AP": 37.94, "AP-cat": 12.0},
            "sem_seg": {"mIoU": 40.0, "pACC": 70.0},
            "segm": {"AP": 34.9, "APl": 50.0},
        }
    )
    assert rows == [
        ["task", "PQ", "SQ", "RQ", "PQ_th", "PQ_st"],
        ["panoptic_seg", "41.3", "78.0", "–", "–", "–"],
        ["task", "AP", "AP50", "AP75", "APs", "APm", "APl"],
        ["bbox", "37.9", "–", "–", "–", "–", "–"],
        ["segm", "34.9", "–", "–", "–", "–", "50.0"],
        ["task", "mIoU", "fwIoU", "mACC", "pACC", "mDice"],
        ["sem_seg", "40.0", "–", "–", "70.0", "–"],
    ]


def test_brackets_in_names_are_not_markup():
    assert printed({"x[red]y": {"[bold]": "[/]"}}) == [["task", "[bold]"], ["x[red]y", "[/]"]]


def test_nothing_is_printed_without_metrics():
    assert printed({}) == []
    assert printed({"panoptic_seg": {}}) == []


def test_metrics_on_demand_are_shown_if_present():
    assert printed({"panoptic_seg": {"PQ": 1.0, "BoundaryPQ": 0.5, "PQ_dagger": None}, "x": {"PQ": 2.0}}) == [
        ["task", "PQ", "SQ", "RQ", "PQ_th", "PQ_st", "PQ_dagger", "BoundaryPQ"],
        ["panoptic_seg", "1.0", "–", "–", "–", "–", "–", "0.5"],
        ["task", "PQ", "SQ", "RQ", "PQ_th", "PQ_st"],
        ["x", "2.0", "–", "–", "–", "–"],
    ]


def test_per_class_tables():
    """Categories by name, others by what the result calls them; columns that a row lacks are empty."""
    categories = CategorySet([Category(7, "[red]road", False, (0, 0, 0))])
    metrics = {
        "panoptic_seg": {"PQ": 1.0, "per_class": {"7": {"PQ": 3.25, "tp": 2}, "8": {"PQ": None}}},
        "bbox": {"AP": 1.0},
        "sem_seg": {"mIoU": 2.0, "IoU-[/]": 4.0},
    }
    assert lines(per_class_tables(metrics, categories)) == [
        ["class", "PQ", "tp"],
        ["[red]road", "3.2", "2"],
        ["8", "–", "–"],
        ["class", "IoU"],
        ["[/]", "4.0"],
    ]
    assert lines(per_class_tables({"x": {"PQ": 1.0, "per_class": {"7": {"PQ": 3.0}}}}))[1] == ["7", "3.0"]
    assert lines(per_class_tables({})) == []
