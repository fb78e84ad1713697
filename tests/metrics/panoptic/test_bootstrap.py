"""Confidence intervals of panoptic quality, for one model and for two models on the same images."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segkit.metrics import comparison
from segkit.metrics.panoptic.bootstrap import compare, confidence_intervals
from segkit.utils.errors import DatasetError
from tests.helpers.drawn_overlaps import CAR, CATEGORIES, DOG, SKY, build_metric, build_table, row, scored_images

FEW = {"samples": 60}
GROUND_TRUTH = row((CAR, 1, 10), (SKY, 2, 10))
GOOD = row((CAR, 5, 9), (0, 0, 1), (SKY, 6, 10))
POOR = row((CAR, 5, 6), (0, 0, 4), (SKY, 6, 10))
NO_CAR = row((0, 0, 10), (SKY, 6, 10))


@pytest.fixture(autouse=True)
def few_objects_suffice(request, monkeypatch):
    """The tests count by hand on few segments, but for those of the number that an interval needs."""
    if "objects" not in request.node.name:
        monkeypatch.setattr(comparison, "MIN_OBJECTS", 0)


def test_fewer_than_ten_objects_have_no_interval():
    """Nine images have a car each, and ten a sky; B finds all, A misses the cars of all but one image."""
    better = dict.fromkeys(range(9), (GROUND_TRUTH, GOOD)) | {9: (row((SKY, 2, 10)), row((SKY, 6, 10)))}
    worse = {n: (truth, NO_CAR if 0 < n < 9 else pred) for n, (truth, pred) in better.items()}
    result = compare(build_table(worse), build_table(better), CATEGORIES, **FEW)
    car, sky = result["per_class"]["1"], result["per_class"]["90"]
    assert (car["objects"], car["images"], car["PQ"]["conclusion"], car["PQ"]["low"]) == (9, 9, "too few objects", None)
    assert (sky["objects"], sky["PQ"]["conclusion"], sky["PQ"]["low"]) == (10, "no clear difference", 0.0)
    assert (result["PQ"]["conclusion"], result["reason"]) == ("better", None)
    few = {n: images for n, images in better.items() if n < 4}
    assert compare(build_table(few), build_table(few), CATEGORIES, **FEW)["reason"] == (
        "ground truth segments: 8; an interval needs at least 10"
    )


def test_two_images_by_hand():
    # car: a match of 0.9 in one image, a miss in the other: PQ 0.9 / 1.5 = 0.6. A resample is twice the first (a
    # quarter of them: 0.9), both (a half: 0.6) or twice the second (0): the ends of 95 % are the extremes.
    result = confidence_intervals(build_table({1: (GROUND_TRUTH, GOOD), 2: (GROUND_TRUTH, NO_CAR)}), CATEGORIES)
    car = {"value": pytest.approx(60), "low": 0.0, "high": pytest.approx(90)}
    assert result["per_class"]["1"]["PQ"] == car
    assert result["per_class"]["1"]["images"] == 2
    assert result["PQ_th"] == car
    assert result["PQ_st"] == {"value": 100.0, "low": 100.0, "high": 100.0}
    assert result["PQ"] == {"value": pytest.approx(80), "low": 50.0, "high": pytest.approx(95)}
    assert result["per_class"]["17"] == {
        **{name: {"value": None, "low": None, "high": None} for name in ("PQ", "SQ", "RQ")},
        "images": 0,
        "objects": 0,
    }
    assert [result[name] for name in ("level", "samples", "seed", "images", "reason")] == [0.95, 1000, 0, 2, None]
    # At 40 % the ends are the 30th and the 70th percent of the resamples, within the half that holds both images.
    inner = confidence_intervals(
        build_table({1: (GROUND_TRUTH, GOOD), 2: (GROUND_TRUTH, NO_CAR)}), CATEGORIES, level=0.4
    )
    assert (inner["PQ_th"]["low"], inner["PQ_th"]["high"]) == (pytest.approx(60), pytest.approx(60))


def test_classes_absent_from_a_resample_are_left_out_of_its_mean():
    # The dog is in one image of two, and missed: resamples without it have PQ 100, those with it (100 + 100 + 0) / 3
    # and, of nothing but it, 0.
    images = {1: (GROUND_TRUTH, GROUND_TRUTH), 2: (row((DOG, 1, 4)), row((0, 0, 4)))}
    result = confidence_intervals(build_table(images), CATEGORIES)
    assert result["PQ"] == {"value": pytest.approx(200 / 3), "low": 0.0, "high": 100.0}
    # One image gives no spread of a class.
    assert result["per_class"]["17"]["PQ"] == {"value": 0.0, "low": None, "high": None}
    assert result["per_class"]["17"]["images"] == 1
    assert result["PQ_st"] == {"value": 100.0, "low": None, "high": None}


@pytest.mark.parametrize(
    "images", [{}, {1: (GROUND_TRUTH, GOOD)}, {1: (GROUND_TRUTH, GOOD), 2: (row((0, 0, 4)), row((0, 0, 4)))}]
)
def test_fewer_than_two_images_have_values_and_no_interval(images):
    table = build_table(images)
    value = pytest.approx(95) if images else None
    result = confidence_intervals(table, CATEGORIES, **FEW)
    assert result["PQ"] == {"value": value, "low": None, "high": None}
    assert result["reason"] == f"images with segments: {min(len(images), 1)}; an interval over images needs at least 2"
    both = compare(table, table, CATEGORIES, **FEW)
    nothing = dict.fromkeys(("low", "high", "share_better")) | {"conclusion": "too few images" if images else None}
    assert both["PQ"] == {"A": value, "B": value, "difference": 0.0 if images else None, **nothing}
    assert both["reason"] == result["reason"]


def test_better_in_every_image_is_better():
    a = build_table(dict.fromkeys(range(5), (GROUND_TRUTH, POOR)))
    b = build_table(dict.fromkeys(range(5), (GROUND_TRUTH, GOOD)))
    # car 0.6 -> 0.9, sky 1 in both.
    result = compare(a, b, CATEGORIES, **FEW)
    thirty = pytest.approx(30)
    assert result["PQ_th"] == result["per_class"]["1"]["PQ"]
    assert result["PQ_th"] == {
        "A": pytest.approx(60),
        "B": pytest.approx(90),
        "difference": thirty,
        "low": thirty,
        "high": thirty,
        "share_better": 1.0,
        "conclusion": "better",
    }
    assert result["PQ"]["difference"] == pytest.approx(15)
    assert (result["PQ_st"]["difference"], result["PQ_st"]["conclusion"]) == (0.0, "no clear difference")
    back = compare(b, a, CATEGORIES, **FEW)["PQ"]
    assert (back["conclusion"], back["share_better"], back["difference"]) == ("worse", 0.0, pytest.approx(-15))


def test_better_in_one_image_and_worse_in_another_is_no_clear_difference():
    a = build_table({1: (GROUND_TRUTH, POOR), 2: (GROUND_TRUTH, GOOD), 3: (GROUND_TRUTH, GOOD)})
    b = build_table({1: (GROUND_TRUTH, GOOD), 2: (GROUND_TRUTH, POOR), 3: (GROUND_TRUTH, GOOD)})
    result = compare(a, b, CATEGORIES)["PQ_th"]
    assert (result["difference"], result["conclusion"]) == (0.0, "no clear difference")
    assert result["low"] < 0 < result["high"]
    assert 0.2 < result["share_better"] < 0.5  # by symmetry as often better as worse, else equal


def test_pairing_is_narrower_than_two_intervals():
    rng = np.random.default_rng(5)
    shared = {i: int(rng.integers(5, 11)) for i in range(40)}
    models = [
        build_table(
            {i: (row((CAR, 1, 12)), row((CAR, 5, px + more), (0, 0, 12 - px - more))) for i, px in shared.items()}
        )
        for more in (0, 1)
    ]
    alone = confidence_intervals(models[0], CATEGORIES)["SQ"]
    result = compare(*models, CATEGORIES)["SQ"]
    assert result["high"] - result["low"] < alone["high"] - alone["low"]
    assert result["conclusion"] == "better"


def test_other_images_are_rejected():
    a = build_table({1: (GROUND_TRUTH, GOOD), "x": (GROUND_TRUTH, GOOD)})
    with pytest.raises(DatasetError, match="same images in A and B, B lacks 'x'; score both on the same"):
        compare(a, build_table({1: (GROUND_TRUTH, GOOD)}), CATEGORIES)
    with pytest.raises(DatasetError, match=r"A lacks 2, 3, 4, 5, 6 and 3 more"):
        compare(
            build_table({1: (GROUND_TRUTH, GOOD)}),
            build_table(dict.fromkeys(range(1, 10), (GROUND_TRUTH, GOOD))),
            CATEGORIES,
        )


@pytest.mark.parametrize(
    "other",
    [row((CAR, 1, 10), (DOG, 2, 10)), row((CAR, 1, 9), (SKY, 2, 11)), row((CAR, 1, 10), (0, 0, 10)), row((0, 0, 20))],
)
def test_another_ground_truth_is_rejected(other):
    a = build_table({1: (GROUND_TRUTH, GOOD), 7: (GROUND_TRUTH, GOOD), 9: (GROUND_TRUTH, GOOD)})
    for pair in ((GROUND_TRUTH, GOOD), (other, GOOD)):
        b = build_table({9: (GROUND_TRUTH, GOOD), 7: pair, 1: (GROUND_TRUTH, GOOD)})
        if pair[0] is GROUND_TRUTH:
            assert compare(a, b, CATEGORIES, **FEW)["PQ"]["difference"] == 0.0
        else:
            with pytest.raises(DatasetError, match="image 7: expected the same ground truth segments"):
                compare(a, b, CATEGORIES, **FEW)
            with pytest.raises(DatasetError, match="image 7: expected the same ground truth segments"):
                compare(b, a, CATEGORIES, **FEW)


def test_arguments_out_of_range_are_rejected():
    table = build_table({1: (GROUND_TRUTH, GOOD)})
    with pytest.raises(ValueError, match="samples must be at least 1"):
        confidence_intervals(table, CATEGORIES, samples=0)
    with pytest.raises(ValueError, match="level must be in"):
        compare(table, table, CATEGORIES, level=95)


@settings(max_examples=60, deadline=None)
@given(scored_images(), scored_images(), st.randoms(use_true_random=False))
def test_values_are_the_metrics_and_no_order_of_images_changes_anything(images, others, random):
    metric = build_metric(images)
    result = confidence_intervals(metric.table(), CATEGORIES, **FEW)
    results = metric.compute()
    for name in ("PQ", "SQ", "RQ", "PQ_th", "SQ_th", "RQ_th", "PQ_st", "SQ_st", "RQ_st"):
        assert result[name]["value"] == results[name]
    for category_id, numbers in results["per_class"].items():
        assert {name: result["per_class"][category_id][name]["value"] for name in ("PQ", "SQ", "RQ")} == {
            name: numbers[name] for name in ("PQ", "SQ", "RQ")
        }
    assert json.loads(json.dumps(result)) == result
    order = random.sample(sorted(images), len(images))
    again = confidence_intervals(metric.table(order), CATEGORIES, **FEW)
    assert rounded(again) == rounded(result)
    rival = {i: (ground_truth, others.get(i, (None, ground_truth))[1]) for i, (ground_truth, _) in images.items()}
    a, b = metric.table(), build_metric(rival)
    both = compare(a, b.table(), CATEGORIES, **FEW)
    assert rounded(compare(metric.table(order), b.table(order[::-1]), CATEGORIES, **FEW)) == rounded(both)
    assert json.loads(json.dumps(both)) == both
    same = compare(a, a, CATEGORIES, **FEW)
    assert {same[name]["conclusion"] for name in ("PQ", "PQ_th", "PQ_st")} <= {
        "no clear difference",
        "too few images",
        None,
    }


def rounded(result):
    """The reference mode adds IoUs in the order of the images, which changes the value's last bits."""
    if isinstance(result, dict):
        return {name: rounded(row) for name, row in result.items()}
    return round(result, 9) + 0.0 if isinstance(result, float) else result
