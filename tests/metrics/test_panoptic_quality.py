"""Panoptic quality on hand-drawn maps: rules, invalid input, saved counts."""

import json
import pickle
import random
from dataclasses import replace

import numpy as np
import pytest

from segkit.metrics import PanopticQuality
from segkit.structures import CategorySet, PanopticSegmentation
from segkit.utils.errors import DatasetError
from tests.helpers.panoptic_scenes import (
    CAR,
    CATEGORIES,
    DOG,
    GROUND_TRUTH,
    ONE,
    PREDICTION,
    SEA,
    SKY,
    blobs,
    computed,
    counts,
    panoptic,
    score,
)


def test_drawn_scene():
    results = score(GROUND_TRUTH, PREDICTION)
    # car: 5 on 1: 4 / (6 + 4 - 4 - 2 on void) = 1; 6 on 2: 3 / (3 + 4 - 3) = 0.75; 9 meets 2 in 1 of 5 pixels: fp.
    # PQ = 1.75 / (2 + 0.5) = 0.7, SQ = 1.75 / 2, RQ = 2 / 2.5.
    car = {"PQ": pytest.approx(70), "SQ": pytest.approx(87.5), "RQ": pytest.approx(80), "tp": 2, "fp": 1, "fn": 0}
    # sky: 8 on 3: 5 / (5 + 6 - 5) = 5 / 6, and no other segment.
    sky = {"PQ": pytest.approx(500 / 6), "SQ": pytest.approx(500 / 6), "RQ": pytest.approx(100)}
    nothing = {"PQ": None, "SQ": None, "RQ": None, "tp": 0, "fp": 0, "fn": 0}
    by_size = results.pop("by_size")
    assert by_size["small"] == {name: results[name] for name in by_size["small"]}  # all are below 32 x 32 pixels
    assert {*by_size["medium"].values(), *by_size["large"].values()} == {None}
    assert [results.pop(f"PQ{size}") for size in "sml"] == [results["PQ"], None, None]
    assert results == {
        "PQ": pytest.approx((70 + 500 / 6) / 2),
        "SQ": pytest.approx((87.5 + 500 / 6) / 2),
        "RQ": pytest.approx(90),
        "PQ_th": pytest.approx(70),
        "SQ_th": pytest.approx(87.5),
        "RQ_th": pytest.approx(80),
        "PQ_st": pytest.approx(500 / 6),
        "SQ_st": pytest.approx(500 / 6),
        "RQ_st": pytest.approx(100),
        "per_class": {"1": car, "17": nothing, "90": {**sky, "tp": 1, "fp": 0, "fn": 0}, "200": nothing},
    }


def test_an_iou_of_exactly_one_half_is_no_match():
    ground_truth = panoptic([[1, 1, 1, 1]], s1=CAR)
    # 2 of 4 pixels: 2 / (2 + 4 - 2) = 0.5. 3 of 4: 0.75.
    assert counts(score(ground_truth, panoptic([[2, 2, 0, 0]], s2=CAR)), CAR) == (0, 1, 1)
    assert counts(score(ground_truth, panoptic([[2, 2, 2, 0]], s2=CAR)), CAR) == (1, 0, 0)


def test_the_union_leaves_out_predicted_pixels_on_void():
    ground_truth = panoptic([[1, 1, 0, 0, 0]], s1=CAR)
    # 2 / (5 + 2 - 2) = 0.4 with void, 2 / (5 + 2 - 2 - 3) = 1 without.
    results = score(ground_truth, panoptic([[2, 2, 2, 2, 2]], s2=CAR))
    assert counts(results, CAR) == (1, 0, 0)
    assert results["SQ"] == 100.0


def test_another_category_never_matches():
    results = score(panoptic([[1, 1]], s1=CAR), panoptic([[2, 2]], s2=DOG))
    assert (counts(results, CAR), counts(results, DOG)) == ((0, 0, 1), (0, 1, 0))
    assert (results["PQ"], results["SQ"], results["RQ"]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(("void_px", "fp"), [(2, 1), (3, 0)])
def test_an_unmatched_prediction_is_ignored_with_more_than_half_on_void(void_px, fp):
    # 4 predicted pixels: 2 on void are half (counted), 3 are more (dropped).
    ground_truth = panoptic([[0] * void_px + [1] * (4 - void_px)], s1=DOG)
    assert counts(score(ground_truth, panoptic([[2, 2, 2, 2]], s2=CAR)), CAR) == (0, fp, 0)


def test_a_crowd_never_matches_and_ignores_predictions_of_its_category_only():
    ground_truth = panoptic([[1, 1, 1, 1, 2, 2, 2, 2]], crowds=[1], s1=CAR, s2=SKY)
    results = score(ground_truth, panoptic([[3, 3, 4, 4, 4, 5, 5, 5]], s3=CAR, s4=DOG, s5=SKY))
    # 3 is a car on a crowd of cars: dropped. 4 is a dog, 2 of 3 pixels on that crowd: fp. 5: 3 / (3 + 4 - 3), a match.
    # The crowd itself is not missed.
    assert [counts(results, c) for c in (CAR, DOG, SKY)] == [(0, 0, 0), (0, 1, 0), (1, 0, 0)]


def test_void_and_crowd_add_up():
    ground_truth = panoptic([[0, 1, 2, 2]], crowds=[1], s1=CAR, s2=SKY)
    # One of 3 on void and one on the crowd: 2 / 3 > 0.5, dropped; either alone is not enough.
    assert counts(score(ground_truth, panoptic([[3, 3, 3, 0]], s3=CAR)), CAR) == (0, 0, 0)


@pytest.mark.parametrize(("order", "fp"), [("s1 s2", 1), ("s2 s1", 0)])
def test_the_last_of_two_crowds_in_order_counts(order, fp):
    category_ids = dict.fromkeys(order.split(), CAR)
    ground_truth = panoptic([[1, 1, 2, 2]], crowds=[1, 2], **category_ids)
    assert counts(score(ground_truth, panoptic([[3, 3, 0, 0]], s3=CAR)), CAR) == (0, fp, 0)


def test_ground_truth_areas_are_those_of_the_map():
    right = score(GROUND_TRUTH, PREDICTION)
    wrong = PanopticSegmentation(
        GROUND_TRUTH.segment_ids, tuple(replace(s, area_px=1, isthing=False) for s in GROUND_TRUTH.segments)
    )
    assert score(wrong, PREDICTION) == right


@pytest.mark.parametrize("rows", [[[0, 0], [0, 0]], np.zeros((0, 4)), np.zeros((3, 0))])
def test_all_void_and_empty_maps_give_none(rows):
    results = score(panoptic(rows), panoptic(rows))
    single = {name: value for name, value in results.items() if not isinstance(value, dict)}
    assert set(single) == {n + s for n in ("PQ", "SQ", "RQ") for s in ("", "_th", "_st")} | {"PQs", "PQm", "PQl"}
    assert set(single.values()) == {None}


def test_no_images_give_none():
    assert PanopticQuality(CATEGORIES).compute()["PQ"] is None
    assert PanopticQuality(CATEGORIES).compute([])["PQ"] is None


def test_a_dataset_without_stuff_has_none_for_stuff():
    things = CategorySet([CATEGORIES[CAR]])
    results = score(panoptic([[1]], s1=CAR), panoptic([[1]], s1=CAR), things)
    assert (results["PQ"], results["PQ_th"], results["PQ_st"]) == (100.0, 100.0, None)


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        (panoptic([[1], [1]], s1=CAR), "image 'x': expected .* one size, got 1 x 2 and 2 x 1"),
        (panoptic([[1, 2]], s1=CAR), "{role}, segment 2: expected a segment for every id of the map, got 1 pixels"),
        (panoptic([[1, -3]], s1=CAR), "{role}, segment -3: expected a segment for every id"),
        (panoptic([[1, 1]], s1=CAR, s2=CAR), "{role}, segment 2: expected pixels with this id in the map, got none"),
        (panoptic([[1, 0]], s1=CAR, s0=CAR), "{role}, segment 0: expected a segment id in \\[1, 16777215\\]"),
        (panoptic([[2**24, 1]], s16777216=CAR, s1=CAR), "{role}, segment 16777216: expected a segment id"),
        (panoptic([[1, 1]], s1=7), "{role}, segment 1: expected a category_id out of \\[1, 17, 90, 200\\], got 7"),
        (replace(ONE, segments=ONE.segments * 2), "{role}, segment 1: expected every segment once"),
    ],
)
def test_inconsistent_maps_are_rejected_and_not_counted(prediction, message):
    metric = PanopticQuality(CATEGORIES)
    with pytest.raises(DatasetError, match=message.format(role="image 'x', prediction")):
        metric.update("x", ONE, prediction)
    with pytest.raises(DatasetError, match=r"^image 'x'"):
        metric.update("x", prediction, ONE)
    metric.update("x", ONE, ONE)
    assert metric.compute()["PQ"] == 100.0


def test_the_same_image_twice_is_rejected():
    metric = PanopticQuality(CATEGORIES)
    metric.update(4, ONE, ONE)
    with pytest.raises(DatasetError, match=r"^image 4: expected every image once"):
        metric.update(4, ONE, ONE)
    other = PanopticQuality(CATEGORIES)
    other.update(4, ONE, ONE)
    with pytest.raises(DatasetError, match="got 4 in both"):
        metric.merge(other)
    assert counts(metric.compute(), CAR) == (1, 0, 0)


def test_other_categories_are_not_merged():
    with pytest.raises(ValueError, match="same categories"):
        PanopticQuality(CATEGORIES).merge(PanopticQuality(CategorySet([CATEGORIES[CAR]])))


def test_the_state_is_small_and_pickles():
    metric = PanopticQuality(CATEGORIES)
    for image_id in range(100):
        metric.update(image_id, GROUND_TRUTH, PREDICTION)
    pickled = pickle.dumps(metric)
    assert len(pickled) < 100 * 700  # bytes: seven segments and eight pairs per image
    assert pickle.loads(pickled).compute() == metric.compute()


# What is saved


OPTIONS = [
    {},
    {"mode": "corrected", "dagger": True},
    {"areas": "trust", "boundary": True, "boundary_ratio": 0.1},
]


def declared(ground_truth, factor):
    """The segmentation with areas of `factor` times the map's."""
    areas = {
        segment.segment_id: int((ground_truth.segment_ids == segment.segment_id).sum())
        for segment in ground_truth.segments
    }
    segments = (replace(segment, area_px=factor * areas[segment.segment_id]) for segment in ground_truth.segments)
    return PanopticSegmentation(ground_truth.segment_ids, tuple(segments))


@pytest.mark.parametrize("options", OPTIONS)
def test_saved_counts_give_the_same_numbers(tmp_path, options):
    pairs = {**dict(enumerate(blobs(seed=3, images=4))), "x": (panoptic([[0]]), panoptic([[0]]))}
    images = [
        (image_id, (declared(ground_truth, 1.25), prediction)) for image_id, (ground_truth, prediction) in pairs.items()
    ]
    random.Random(1).shuffle(images)
    metric = computed(images, **options)
    header, arrays = metric.state()
    np.savez(tmp_path / "counts.npz", **arrays)
    with np.load(tmp_path / "counts.npz", allow_pickle=False) as loaded:
        saved = PanopticQuality.from_state(json.loads(json.dumps(header)), loaded)
    assert saved.compute() == metric.compute()
    assert saved.per_image() == metric.per_image()
    order = [image_id for image_id, _ in images]
    assert saved.compute(order) == metric.compute(order)
    again = computed([("y", (ONE, ONE))], **options)
    again.merge(saved)
    assert len(again) == len(metric) + 1


def test_declared_areas_are_used_as_the_option_says():
    ground_truth = declared(ONE, 2)
    # The car has 2 pixels, 4 are declared: 2 / (2 + 4 - 2) = 0.5 is no match.
    assert counts(computed([(1, (ground_truth, ONE))], areas="trust").compute(), CAR) == (0, 1, 1)
    assert counts(computed([(1, (ground_truth, ONE))]).compute(), CAR) == (1, 0, 0)
    with pytest.raises(
        DatasetError, match="image 1, ground truth, segment 1: the declared area is 4, the map has 2 pixels"
    ):
        computed([(1, (ground_truth, ONE))], areas="check")


def test_the_order_of_the_categories_is_saved():
    listed = CategorySet([CATEGORIES[i] for i in (SKY, DOG, SEA, CAR)])
    header, arrays = PanopticQuality(listed).state()
    assert PanopticQuality.from_state(header, arrays).categories.ids_in_file_order == (SKY, DOG, SEA, CAR)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda header, arrays: header.pop("options"),
        lambda header, arrays: header["options"].update(unknown=1),
        lambda header, arrays: header["options"].update(mode="strict"),
        lambda header, arrays: header.update(categories=[{"name": "x"}]),
        lambda header, arrays: header["image_ids"].append(9),
        lambda header, arrays: header.update(image_ids=[1, 1]),
        lambda header, arrays: arrays.pop("pairs"),
        lambda header, arrays: arrays.update(ground_truth=np.zeros(3)),
        lambda header, arrays: arrays.update(ground_truth_per_image=np.array([1, 1])),
        lambda header, arrays: arrays.update(ground_truth=arrays["ground_truth"][:-1]),
    ],
)
def test_other_counts_are_rejected(spoil):
    header, arrays = computed([(1, (GROUND_TRUTH, PREDICTION)), (2, (ONE, ONE))]).state()
    spoil(header, arrays)
    with pytest.raises(DatasetError):
        PanopticQuality.from_state(header, arrays)


@pytest.mark.parametrize("options", [{"mode": "corrected"}, {"areas": "check"}, {"dagger": True}, {"boundary": True}])
def test_other_options_are_not_merged(options):
    with pytest.raises(ValueError, match="same categories and options"):
        PanopticQuality(CATEGORIES).merge(PanopticQuality(CATEGORIES, **options))


@pytest.mark.parametrize(
    "option", [{"mode": "strict"}, {"areas": "guess"}, {"boundary_ratio": 0}, {"boundary_ratio": 1}]
)
def test_invalid_options_are_rejected(option):
    (name,) = option
    with pytest.raises(ValueError, match=f"^{name} must be"):
        PanopticQuality(CATEGORIES, **option)
