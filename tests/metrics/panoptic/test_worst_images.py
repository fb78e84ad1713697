"""Images ranked by the PQ that their errors cost, and their wrong segments."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segkit.metrics.panoptic.worst_images import worst_images
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

RIGHT = row((CAR, 1, 10), (SKY, 2, 10))
IMAGES = {
    # car: 8 / 10. The sky 2 is missed, 13 of its 20 pixels being nowhere; the dog 6 in it has 5 / 20.
    "poor": (row((CAR, 1, 10), (SKY, 2, 20)), row((CAR, 5, 8), (0, 0, 2), (DOG, 6, 5), (0, 0, 13), (SEA, 7, 2))),
    "right": (RIGHT, RIGHT),
    # 9 / 10, and no other segment.
    "loose": (row((CAR, 1, 10), (0, 0, 1)), row((CAR, 1, 9), (0, 0, 2))),
}


def test_images_are_ranked_by_the_cost_of_their_errors():
    worst = worst_images(build_table(IMAGES), CATEGORIES)
    # car: 0.8 + 1 + 0.9 of 3 matches: 0.9. sky: 1 of 1.5. dog 0, sea 0: PQ = (0.9 + 2 / 3) / 4.
    # Without the errors of "poor": car 2.9 / 3, sky 1, no dog, no sea. Without those of "loose": car 2.8 / 3.
    before = (0.9 + 2 / 3) / 4
    assert [entry["image_id"] for entry in worst] == ["poor", "loose"]
    assert worst[0]["cost"] == pytest.approx(100 * ((2.9 / 3 + 1) / 2 - before))
    assert worst[0]["mask_quality_cost"] == pytest.approx(100 * (0.2 / 3) / 4)
    assert worst[1]["cost"] == worst[1]["mask_quality_cost"] == pytest.approx(100 * (0.1 / 3) / 4)
    assert (worst[0]["PQ"], worst[1]["PQ"]) == (pytest.approx(80 / 4), pytest.approx(90.0))
    assert [[entry["tp"], entry["fp"], entry["fn"]] for entry in worst] == [[1, 2, 1], [1, 0, 0]]
    assert json.loads(json.dumps(worst)) == worst


def test_the_segments_in_error_are_listed():
    names = ("segment_id", "category_id", "side", "error_type", "iou", "area_px", "other_segment_id")
    worst = worst_images(build_table(IMAGES), CATEGORIES)
    assert [tuple(entry) for entry in worst[0]["segments"]] == [names] * 3
    assert [tuple(entry.values()) for entry in worst[0]["segments"]] == [
        (2, SKY, "ground_truth", "lost_to_void", 5 / 20, 20, 6),
        (6, DOG, "prediction", "false_positive", 5 / 20, 5, 2),
        (7, SEA, "prediction", "false_positive", 2 / 20, 2, 2),
    ]
    assert worst[1]["segments"] == []
    alone = worst_images(build_table((row((CAR, 1, 4)), row((0, 0, 4)))), CATEGORIES)[0]["segments"]
    columns = [(entry["error_type"], entry["iou"], entry["other_segment_id"]) for entry in alone]
    assert columns == [("lost_to_void", None, None)]


def test_the_limit_is_applied_and_perfect_images_have_no_cost():
    assert len(worst_images(build_table(IMAGES), CATEGORIES, limit=1)) == 1
    assert worst_images(build_table(IMAGES), CATEGORIES, limit=0) == []
    assert worst_images(build_table({1: (RIGHT, RIGHT)}), CATEGORIES) == []
    assert worst_images(build_table({}), CATEGORIES) == []


def test_of_equal_costs_the_lesser_id_is_first():
    wrong = row((CAR, 1, 4)), row((DOG, 5, 4))
    worst = worst_images(build_table({"b": wrong, 10: wrong, "a": wrong, 9: wrong}), CATEGORIES)
    assert [entry["image_id"] for entry in worst] == [9, 10, "a", "b"]


def test_without_ground_truth_segments_no_cost_is_defined():
    nothing = row((CAR, 1, 4), crowds=[1])
    worst = worst_images(build_table({1: (nothing, nothing), 2: (nothing, row((DOG, 5, 4)))}), CATEGORIES)
    assert [(entry["image_id"], entry["cost"], entry["fp"]) for entry in worst] == [(2, None, 1)]


@settings(max_examples=100, deadline=None)
@given(scored_images(), st.randoms(use_true_random=False))
def test_a_cost_is_the_pq_of_the_dataset_with_the_image_predicted_perfectly(images, random):
    # Corrected: in the reference mode a perfect prediction of two crowds has a false one.
    worst = worst_images(build_table(images, "corrected"), CATEGORIES, "corrected")
    results = build_metric(images, "corrected").compute()
    for entry in worst:
        ground_truth = images[entry["image_id"]][0]
        perfect = build_metric({**images, entry["image_id"]: (ground_truth, ground_truth)}, "corrected").compute()["PQ"]
        if entry["cost"] is None:
            assert not any(numbers["tp"] + numbers["fn"] for numbers in results["per_class"].values())
        else:
            assert entry["cost"] == pytest.approx(perfect - results["PQ"], abs=1e-9)
            assert 0 <= entry["mask_quality_cost"] <= entry["cost"] + 1e-9
        assert len(entry["segments"]) == entry["fp"] + entry["fn"]
    costs = [-1 if entry["cost"] is None else entry["cost"] for entry in worst]
    assert costs == sorted(costs, reverse=True)
    listed = {entry["image_id"] for entry in worst}
    for image_id, numbers in build_metric(images, "corrected").per_image().items():
        assert (image_id in listed) == (numbers["PQ"] not in (100.0, None))
    shuffled = dict(random.sample(sorted(images.items(), key=lambda item: item[0]), len(images)))
    assert worst_images(build_table(shuffled, "corrected"), CATEGORIES, "corrected") == worst
