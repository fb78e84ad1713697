"""The confusion matrix of predicted and ground truth categories."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segkit.metrics.panoptic.confusion import segment_confusion
from tests.helpers.drawn_overlaps import (
    CAR,
    CATEGORIES,
    DOG,
    SEA,
    SKY,
    build_metric,
    build_table,
    row,
    scored_images,
)


def build_cells(ground_truth, prediction, **options):
    return segment_confusion(build_table((ground_truth, prediction)), CATEGORIES, **options)["cells"]


def test_a_drawn_matrix():
    # 5 matches 1, 6 is a dog in place of the car 2 (4 / 4), 3 has no prediction, 7 has no true segment.
    ground_truth = row((CAR, 1, 4), (CAR, 2, 4), (SKY, 3, 4), (SEA, 4, 6))
    prediction = row((CAR, 5, 4), (DOG, 6, 4), (0, 0, 4), (SEA, 8, 5), (SKY, 7, 1))
    result = segment_confusion(build_table((ground_truth, prediction)), CATEGORIES)
    assert result == {
        "category_ids": [CAR, DOG, SKY, SEA],
        "limit": 0.5,
        "cells": [[CAR, CAR, 1], [CAR, DOG, 1], [SKY, None, 1], [SEA, SEA, 1], [None, SKY, 1]],
        "top": [{"ground_truth": CAR, "prediction": DOG, "segments": 1, "share": 50.0}],
    }
    assert json.loads(json.dumps(result)) == result


def test_the_limit_is_excluded_and_a_lower_one_adds_poor_masks():
    ground_truth, prediction = row((CAR, 1, 10)), row((DOG, 5, 4), (CAR, 6, 3), (0, 0, 3))
    # IoUs 0.4 and 0.3: at 0.5 no prediction is assigned to 1; at 0.3 the dog is, and car 6 has no ground truth.
    assert build_cells(ground_truth, prediction) == [[CAR, None, 1], [None, CAR, 1], [None, DOG, 1]]
    assert build_cells(ground_truth, prediction, limit=0.3) == [[CAR, DOG, 1], [None, CAR, 1]]
    assert build_cells(ground_truth, prediction, limit=0.4) == [[CAR, None, 1], [None, CAR, 1], [None, DOG, 1]]


def test_a_match_counts_for_its_own_segment_only():
    # 5 matches 1 with 6 / 8; it has 2 / 8 with the dog 2, which has no other overlap.
    assert build_cells(row((CAR, 1, 6), (DOG, 2, 2)), row((CAR, 5, 8)), limit=0.1) == [[CAR, CAR, 1], [DOG, None, 1]]


def test_crowds_and_ignored_predictions_are_in_no_cell():
    ground_truth = row((CAR, 1, 6), (0, 0, 6), crowds=[1])
    assert build_cells(ground_truth, row((CAR, 5, 6), (SEA, 6, 6))) == []
    # Dropped, 6 of its 10 pixels being on void, yet in the place of 1: 4 / (10 + 4 - 4 - 6) = 1.
    assert build_cells(row((CAR, 1, 4), (0, 0, 6)), row((DOG, 5, 10))) == [[CAR, DOG, 1]]


def test_the_top_lists_the_most_frequent_pairs_of_categories():
    wrong = row((CAR, 1, 4), (SKY, 2, 4)), row((DOG, 5, 4), (SEA, 6, 4))
    images = {1: wrong, 2: wrong, 3: (row((SKY, 1, 4)), row((SEA, 6, 4))), 4: (row((SKY, 1, 4)), row((CAR, 5, 4)))}
    table = build_table(images)
    top = segment_confusion(table, CATEGORIES)["top"]
    # sky: 3 of 4 are sea; car: 2 of 2 are dogs.
    assert [list(row.values()) for row in top] == [[SKY, SEA, 3, 75.0], [CAR, DOG, 2, 100.0], [SKY, CAR, 1, 25.0]]
    assert segment_confusion(table, CATEGORIES, top=1)["top"] == top[:1]
    assert segment_confusion(table, CATEGORIES, top=0)["top"] == []


@pytest.mark.parametrize("limit", [-0.1, 1.0])
def test_a_limit_outside_0_to_1_is_rejected(limit):
    with pytest.raises(ValueError, match=r"limit must be in \[0, 1\)"):
        segment_confusion(build_table({}), CATEGORIES, limit=limit)


@settings(max_examples=100, deadline=None)
@given(scored_images(), st.sampled_from([0.0, 0.1, 0.5]))
def test_rows_hold_every_ground_truth_segment_and_at_one_half_the_diagonal_the_matches(images, limit):
    metric = build_metric(images)
    result = segment_confusion(metric.table(), CATEGORIES, limit=limit)
    per_class = metric.compute()["per_class"]
    cells = {(true, predicted): segments for true, predicted, segments in result["cells"]}
    for category_id in result["category_ids"]:
        row = per_class[str(category_id)]
        assert sum(n for (true, _), n in cells.items() if true == category_id) == row["tp"] + row["fn"]
        diagonal, idle = cells.get((category_id, category_id), 0), cells.get((None, category_id), 0)
        assert diagonal >= row["tp"]
        assert idle <= row["fp"]
        if limit == 0.5:
            assert diagonal == row["tp"]
            assert sum(n for (_, predicted), n in cells.items() if predicted == category_id) >= row["tp"] + row["fp"]
