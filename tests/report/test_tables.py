from __future__ import annotations

import io
import re

import numpy as np
import pytest
from rich.console import Console, Group

from segkit.report import metrics_table
from segkit.report.tables import as_number, format_value, per_class_tables, read_group
from segkit.structures import Category, CategorySet


def printed(metrics: dict) -> list[list[str]]:
    return lines(metrics_table(metrics))


def lines(tables: Group) -> list[list[str]]:
    """The cells of every line that has cells."""
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
    """Categories have their names, other rows their keys in the result; missing columns are empty."""
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


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (float("-inf"), "–"),
        (np.float32("nan"), "–"),
        (41.26, "41.3"),
        (np.float32(0), "0.0"),
        (np.float64(100), "100.0"),
        (7, "7"),
        (np.int64(7), "7"),
        (True, "True"),
        ("best", "best"),
    ],
)
def test_values_as_text(value, text):
    assert format_value(value) == text


def test_bools_and_text_are_not_numbers():
    assert [as_number(value) for value in (True, "3", None, float("nan"), 3, np.float32(2))] == [None] * 4 + [3.0, 2.0]


def test_the_first_column_determines_the_headline():
    group = read_group("segm_boundary", {"AP50": 50.0, "AP": 30, "AR1": 12.0})
    # AP is a measure, not a count: a whole one is 30.0
    assert dict(group.headline) == {"AP": 30.0, "AP50": 50.0, "AP75": None, "APs": None, "APm": None, "APl": None}
    assert format_value(group.headline["AP"]) == "30.0"
    assert dict(group.values) == {"AP50": 50.0, "AP": 30.0, "AR1": 12.0}


def test_an_unknown_task_leads_with_its_first_six_values():
    group = read_group("errors", {letter: number for number, letter in enumerate("abcdefgh")})
    assert dict(group.headline) == dict(zip("abcdef", range(6), strict=True))


def test_rows_per_class_come_from_mappings_and_from_flat_keys():
    group = read_group(
        "sem_seg",
        {
            "mIoU": 1.0,
            "IoU-sky": 2.0,
            "ACC-sky": 3.0,
            "BoundaryIoU-sky": 4.0,
            "min(IoU, B-Iou)-sky": 5.0,
            "IoU-a-b": 6.0,
        },
    )
    sky = {"IoU": 2.0, "ACC": 3.0, "BoundaryIoU": 4.0, "min(IoU, B-Iou)": 5.0}
    assert group.tables == {"per_class": {"sky": sky, "a-b": {"IoU": 6.0}}}
    assert dict(group.values) == {"mIoU": 1.0}
    assert read_group("x", {"PQ": 1.0, "per_class": {7: 3.0}}).tables == {"per_class": {"7": {"PQ": 3.0}}}
    assert read_group("x", {"per_class": {7: {"PQ": 3.0}}}).tables == {"per_class": {"7": {"PQ": 3.0}}}


def test_an_empty_result_is_an_empty_group():
    group = read_group("x", {})
    assert (dict(group.headline), dict(group.values), group.tables) == ({}, {}, {})


def test_a_number_instead_of_a_result_is_rejected():
    with pytest.raises(ValueError, match="metrics must map every task to a mapping, got float for 'PQ'"):
        read_group("PQ", 3.0)


def test_dice_of_volumes_has_one_headline_metric_and_a_row_per_class():
    row = {"Dice": 80.0, "Dice_std": 5.0, "lowest": 70.0, "lowest_volume": "v 3", "volumes": 9}
    group = read_group("volumes", {"mDice": 80.0, "Dice-liver": 80.0, "per_class": {"liver": row}})
    assert dict(group.headline) == {"mDice": 80.0}
    assert group.tables == {"per_class": {"liver": row}}
