from __future__ import annotations

import io
import re

from rich.console import Console

from segkit.report import metrics_table


def printed(metrics: dict) -> list[list[str]]:
    """The cells of every line that has some."""
    out = io.StringIO()
    Console(file=out, width=120).print(metrics_table(metrics))
    lines = [re.split(r"\s*[│┃|]\s*", line)[1:-1] for line in out.getvalue().splitlines()]
    return [line for line in lines if line]


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


def test_brackets_in_names_are_no_markup():
    assert printed({"x[red]y": {"[bold]": "[/]"}}) == [["task", "[bold]"], ["x[red]y", "[/]"]]


def test_nothing_is_printed_for_nothing():
    assert printed({}) == []
    assert printed({"panoptic_seg": {}}) == []
