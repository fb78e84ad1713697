from __future__ import annotations

import numpy as np
import pytest

from segkit.report.metric_values import as_number, format_value, read_group


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
