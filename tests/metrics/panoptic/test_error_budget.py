"""The cost of each error type, computed by hand, and properties of every error budget."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segkit.metrics.panoptic.error_budget import REPAIRS, error_budget, repair
from segkit.metrics.panoptic.error_types import classify_errors
from segkit.structures import PanopticSegmentation
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

APPROX = {"rel": 1e-12, "abs": 1e-12}


def budget(ground_truth, prediction, mode="reference"):
    return error_budget(build_table((ground_truth, prediction), mode), CATEGORIES, mode)


def costs(result):
    """The error types with a cost above 0."""
    return {kind: entry["cost"] for kind, entry in result["error_types"].items() if entry["cost"]}


def approx(values):
    return pytest.approx(values, **APPROX)


def test_wrong_class_repaired_is_a_match_and_one_false_prediction_less():
    ground_truth, prediction = row((CAR, 1, 4), (DOG, 2, 6)), row((DOG, 5, 3), (0, 0, 1), (DOG, 6, 6))
    result = budget(ground_truth, prediction)
    # car: 0 -> 0.75 of one match. dog: 1 / (1 + 0.5) = 2 / 3 -> 1. PQ: 1 / 3 -> 0.875.
    assert result["PQ"] == approx(100 / 3)
    assert costs(result) == approx({"wrong_class": 87.5 - 100 / 3})
    entry = result["error_types"]["wrong_class"]
    assert (entry["segments"], entry["gt_segments"], entry["pred_segments"]) == (2, 1, 1)
    assert entry["per_class"] == {"1": approx(75.0), "17": approx(100 / 3), "90": None, "200": None}
    assert (entry["cost_th"], entry["cost_st"]) == (approx(87.5 - 100 / 3), None)
    assert result["all"] == {"cost": approx(200 / 3), "cost_th": approx(200 / 3), "cost_st": None}


def test_a_poor_mask_repaired_is_a_perfect_match():
    # 4 of 10 pixels: 0 -> 1.
    assert costs(budget(row((CAR, 1, 10)), row((CAR, 5, 4), (0, 0, 6)))) == {"poor_mask": 100.0}


def test_a_poor_mask_of_a_matched_segment_is_removed():
    ground_truth, prediction = row((CAR, 1, 10), (SKY, 2, 12)), row((CAR, 5, 6), (CAR, 6, 8), (SKY, 7, 8))
    # car: 0.6 / (1 + 0.5) = 0.4 -> 0.6. Masks: 1 / 1.5, and sky 8 / 12 -> 1; over two classes.
    result = costs(budget(ground_truth, prediction))
    assert result == approx({"poor_mask": 10.0, "mask_quality": (100 / 1.5 - 40 + 100 - 100 * 8 / 12) / 2})


def test_merged_segments_are_cut_along_ground_truth():
    ground_truth = row((CAR, 1, 4), (CAR, 2, 4), (CAR, 3, 4))
    prediction = row((CAR, 5, 7), (0, 0, 1), (CAR, 5, 3), (0, 0, 1))
    # 0 -> (1 + 0.75 + 0.75) / 3.
    assert costs(budget(ground_truth, prediction)) == approx({"merged": 250 / 3})


def test_the_match_that_covers_a_segment_is_cut_too():
    # 0.8 / (1 + 0.5) -> two matches of 1. Masks: 1 / 1.5.
    result = costs(budget(row((CAR, 1, 8), (CAR, 2, 2)), row((CAR, 5, 10))))
    assert result == approx({"merged": 100 - 80 / 1.5, "mask_quality": 20 / 1.5})


def test_split_parts_become_one_segment():
    # 0 -> 0.8.
    assert costs(budget(row((CAR, 1, 10)), row((CAR, 5, 4), (CAR, 6, 4), (0, 0, 2)))) == approx({"split": 80.0})
    # 0.6 / 1.5 = 0.4 -> 0.8 with the surplus part joined. Masks: 1 / 1.5.
    result = budget(row((CAR, 1, 10)), row((CAR, 5, 6), (CAR, 6, 2), (0, 0, 2)))
    assert costs(result) == approx({"split": 40.0, "mask_quality": 40 / 1.5})
    assert result["error_types"]["split"]["segments"] == 1
    assert result["error_types"]["mask_quality"]["segments"] == 1


def test_missed_and_lost_segments_are_added_and_false_positives_removed():
    ground_truth = row((CAR, 1, 6), (CAR, 2, 6), (SKY, 3, 12))
    prediction = row((0, 0, 6), (SKY, 5, 6), (SKY, 5, 8), (DOG, 6, 4))
    # sky: 8 / (14 + 12 - 8) = 4 / 9 is poor: a miss and a false one. car: 1 is lost to void, 2 is missed. dog: false.
    # Three classes, all 0. lost, missed: car 1 / (1 + 0.5) -> 2 / 3 / 3. false_positive: dog leaves, 0 / 2. poor: 1 /
    # 3.
    result = budget(ground_truth, prediction)
    assert costs(result) == approx({"lost_to_void": 200 / 9, "missed": 200 / 9, "poor_mask": 100 / 3})
    assert {kind: entry["segments"] for kind, entry in result["error_types"].items() if entry["segments"]} == {
        "lost_to_void": 1,
        "missed": 1,
        "false_positive": 1,
        "poor_mask": 2,
    }


def test_a_class_of_false_predictions_only_is_left_out_of_the_mean():
    ground_truth, prediction = row((CAR, 1, 10), (SKY, 2, 10)), row((CAR, 5, 10), (SKY, 6, 9), (SEA, 7, 1))
    # PQ: (1 + 0.9 + 0) / 3 -> (1 + 0.9) / 2; of stuff 0.9 / 2 -> 0.9. The sea itself has no true segment to gain by.
    entry = budget(ground_truth, prediction)["error_types"]["false_positive"]
    assert (entry["cost"], entry["cost_th"], entry["cost_st"]) == (approx(95 - 190 / 3), 0.0, approx(45.0))
    assert entry["per_class"] == {"1": 0.0, "17": None, "90": 0.0, "200": None}


def test_without_ground_truth_segments_nothing_has_a_cost():
    ground_truth = row((CAR, 1, 4), (SKY, 2, 4), crowds=[1, 2])
    result = budget(ground_truth, row((DOG, 5, 4), (SEA, 6, 4)))
    assert (result["PQ"], result["all"]["cost"]) == (0.0, None)
    assert {entry["cost"] for entry in result["error_types"].values()} == {None}
    assert result["error_types"]["wrong_class"]["segments"] == 2
    empty = error_budget(build_table({}), CATEGORIES)
    assert (empty["PQ"], empty["all"]["cost"]) == (None, None)


def test_areas_are_those_of_the_maps_whatever_was_declared():
    ground_truth, prediction = row((CAR, 1, 10)), row((CAR, 5, 4), (0, 0, 6))
    table = build_table((ground_truth, prediction))
    table.ground_truth["area_px"] = 1  # what areas="trust" lets in: 4 / (4 + 1 - 4) = 4
    result = error_budget(table, CATEGORIES)
    assert (result["PQ"], costs(result), result["all"]["cost"]) == (0.0, {"poor_mask": 100.0}, 100.0)
    assert table.ground_truth["area_px"].tolist() == [1.0]


@settings(max_examples=200, deadline=None)
@given(scored_images(), st.sampled_from(["reference", "corrected"]))
def test_no_repair_lowers_pq_and_all_of_them_make_it_100(images, mode):
    metric = build_metric(images, mode)
    result = error_budget(metric.table(), CATEGORIES, mode)
    results = metric.compute()
    assert {name: result[name] for name in ("PQ", "PQ_th", "PQ_st")} == {
        name: results[name] for name in ("PQ", "PQ_th", "PQ_st")
    }
    for entry in result["error_types"].values():
        numbers = [entry["cost"], entry["cost_th"], entry["cost_st"], *entry["per_class"].values()]
        assert all(number is None or 0 <= number <= 100 for number in numbers)
        if not entry["segments"]:
            assert not any(numbers)
    for suffix in ("", "_th", "_st"):
        cost = result["all"][f"cost{suffix}"]
        assert cost is None or result[f"PQ{suffix}"] + cost == approx(100.0)
    perfect = repair(classify_errors(metric.table(), mode), CATEGORIES, REPAIRS)
    assert np.nanmin(np.append(perfect.quality()[0], 1.0)) == 1.0
    assert (perfect.tp == [entry["tp"] + entry["fn"] for entry in results["per_class"].values()]).all()
    assert json.loads(json.dumps(result)) == result


@settings(max_examples=100, deadline=None)
@given(scored_images(least=2), st.randoms(use_true_random=False))
def test_costs_do_not_depend_on_the_order_of_images_or_the_ids_of_categories(images, random):
    result = error_budget(build_table(images, "corrected"), CATEGORIES, "corrected")
    shuffled = dict(random.sample(sorted(images.items(), key=lambda item: item[0]), len(images)))
    assert error_budget(build_table(shuffled, "corrected"), CATEGORIES, "corrected") == result
    swapped = {CAR: DOG, DOG: CAR, SKY: SEA, SEA: SKY}
    renamed = {i: tuple(recategorised(entry, swapped) for entry in pair) for i, pair in images.items()}
    again = error_budget(build_table(renamed, "corrected"), CATEGORIES, "corrected")
    for kind, entry in result["error_types"].items():
        assert again["error_types"][kind]["cost"] == entry["cost"]
        assert again["error_types"][kind]["segments"] == entry["segments"]
        expected = {str(swapped[int(category_id)]): cost for category_id, cost in entry["per_class"].items()}
        assert again["error_types"][kind]["per_class"] == expected


def recategorised(segmentation, new_of):
    segments = tuple(replace(s, category_id=new_of[s.category_id]) for s in segmentation.segments)
    return PanopticSegmentation(segmentation.segment_ids, segments)
