"""Cityscapes' AP by hand; tests/scoring/test_cityscapes_instances.py compares it with cityscapesscripts."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from segkit.metrics.cityscapes_ap import CityscapesAP, MaskPrediction
from segkit.structures import Category, CategorySet
from segkit.utils.errors import DatasetError

CATEGORIES = CategorySet(
    [
        Category(7, "road", False, (0, 0, 0)),
        Category(24, "person", True, (0, 0, 0)),
        Category(26, "car", True, (0, 0, 0)),
    ]
)
ROAD, CAR = 7, 26
Box = tuple[int, int, int, int]  # top, left, height, width


def ground_truth(*boxes: tuple[int, Box]) -> NDArray[np.int32]:
    """A 20 x 40 map of road with boxes of ids; later boxes occlude earlier ones."""
    ids = np.full((20, 40), ROAD, dtype=np.int32)
    for instance_id, (top, left, height, width) in boxes:
        ids[top : top + height, left : left + width] = instance_id
    return ids


def predicted(score: float, box: Box, category_id: int = CAR) -> MaskPrediction:
    top, left, height, width = box
    return MaskPrediction(category_id, score, np.ones((height, width), dtype=np.bool_), (left, top))


def compute_ap(ids: NDArray[Any], *predictions: MaskPrediction) -> tuple[float | None, float | None]:
    """AP and AP50 of cars."""
    metric = CityscapesAP(CATEGORIES)
    metric.update("image", ids, iter(predictions))
    results = metric.compute()
    assert results["AP-person"] is None
    assert (results["AP"], results["AP50"]) == (results["AP-car"], results["AP50-car"])
    return results["AP"], results["AP50"]


MATCHED = (0, 0, 10, 10)  # of 100 pixels, the least that counts
APART = (10, 30, 10, 10)


def test_the_ground_truth_scores_100() -> None:
    assert compute_ap(ground_truth((26000, MATCHED)), predicted(0.4, MATCHED)) == (100, 100)


def test_an_iou_must_be_above_the_threshold() -> None:
    # 50 of 100 pixels: 0.5 is no match, the prediction is false. 60 of 100: above 0.5 and 0.55; 0.6 is not above
    # numpy's 0.6000000000000001. 2 of 10 thresholds.
    assert compute_ap(ground_truth((26000, MATCHED)), predicted(0.9, (0, 0, 10, 5))) == (0, 0)
    assert compute_ap(ground_truth((26000, MATCHED)), predicted(0.9, (0, 0, 10, 6))) == (20, 100)


def test_a_better_false_prediction_costs_precision() -> None:
    # At score 0.3: precision 1/2, recall 1; at 0.9: 0, 0; then 1, 0. Half of the steps around each point:
    # (1 - 0) / 2 * 1/2 + (1 - 0) / 2 * 0 + 0 = 0.25.
    assert compute_ap(ground_truth((26000, MATCHED)), predicted(0.3, MATCHED), predicted(0.9, APART)) == (25, 25)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_the_better_of_two_matches_counts_and_the_other_is_a_false_positive(order: tuple[int, ...]) -> None:
    # A is found with 0.9 and 0.7, B with 0.5. By score: 0.5 true, 0.7 false, 0.9 true.
    # (precision, recall): (2/3, 1), (1/2, 1/2), (1, 1/2), (1, 0); each step is 1/4: (2/3 + 1/2 + 1 + 1) / 4 = 19/24.
    ids = ground_truth((26000, MATCHED), (26001, APART))
    images = [predicted(0.9, MATCHED), predicted(0.7, MATCHED), predicted(0.5, APART)]
    assert compute_ap(ids, *(images[i] for i in order)) == (pytest.approx(100 * 19 / 24), pytest.approx(100 * 19 / 24))


@pytest.mark.parametrize("void_id", [0, 3, 10, 18, 29, 30])
def test_a_prediction_on_void_is_left_out_up_to_its_share(void_id: int) -> None:
    # 60 of 100 pixels on void: more than the thresholds 0.5 and 0.55, not more than numpy's 0.6 and above, where it is
    # the better false prediction: (2 * 1 + 8 * 0.25) / 10.
    ids = ground_truth((26000, MATCHED), (void_id, (10, 30, 6, 10)))
    assert compute_ap(ids, predicted(0.3, MATCHED), predicted(0.9, APART)) == (pytest.approx(40), 100)


def test_half_on_void_is_not_enough() -> None:
    ids = ground_truth((26000, MATCHED), (0, (10, 30, 5, 10)))
    assert compute_ap(ids, predicted(0.3, MATCHED), predicted(0.9, APART)) == (25, 25)


@pytest.mark.parametrize("instance_id", [29000, 30001, 24, 7000])
def test_single_caravans_groups_of_others_and_stuff_are_not_void(instance_id: int) -> None:
    ids = ground_truth((26000, MATCHED), (instance_id, APART))
    metric = CityscapesAP(CATEGORIES)
    metric.update(1, ids, [predicted(0.3, MATCHED), predicted(0.9, APART)])
    assert metric.compute()["AP-car"] == 25


def test_a_group_is_never_missed_and_ignores_predictions_of_its_label() -> None:
    ids = ground_truth((26000, MATCHED), (26, APART))
    assert compute_ap(ids, predicted(0.3, MATCHED), predicted(0.9, APART)) == (100, 100)
    assert compute_ap(ground_truth((26, APART)), predicted(0.9, APART)) == (None, None)


def test_an_instance_below_100_pixels_is_treated_as_a_group() -> None:
    small = (10, 29, 9, 11)
    ids = ground_truth((26000, MATCHED), (26001, small))
    assert compute_ap(ids, predicted(0.3, MATCHED), predicted(0.9, small)) == (100, 100)
    assert compute_ap(ground_truth((26001, small)), predicted(0.9, small)) == (None, None)


def test_a_small_group_counts_twice() -> None:
    # 30 of 100 pixels on a group of 30 pixels: a share of 0.6, as in the test of void above.
    ids = ground_truth((26000, MATCHED), (26, (10, 30, 3, 10)))
    assert compute_ap(ids, predicted(0.3, MATCHED), predicted(0.9, APART)) == (pytest.approx(40), 100)


def test_no_predictions_are_0_and_no_ground_truth_is_none() -> None:
    empty = MaskPrediction(CAR, 0.9, np.zeros((4, 4), dtype=np.bool_), (3, 3))
    nothing = MaskPrediction(CAR, 0.9, np.zeros((0, 0), dtype=np.bool_), (0, 0))
    assert compute_ap(ground_truth((26000, MATCHED))) == (0, 0)
    assert compute_ap(ground_truth((26000, MATCHED)), empty, nothing) == (0, 0)
    assert compute_ap(ground_truth((26000, MATCHED)), predicted(0.3, MATCHED), empty) == (
        100,
        100,
    )  # which is no false prediction
    assert compute_ap(ground_truth(), predicted(0.9, MATCHED)) == (None, None)
    assert compute_ap(np.zeros((0, 5), dtype=np.int32)) == (None, None)
    assert set(CityscapesAP(CATEGORIES).compute().values()) == {None}


def test_only_left_out_predictions_give_0() -> None:
    """The reference implementation raises an IndexError here."""
    assert compute_ap(ground_truth((26000, MATCHED), (0, APART)), predicted(0.9, APART)) == (0, 0)


def test_predictions_match_their_own_label_only() -> None:
    metric = CityscapesAP(CATEGORIES)
    metric.update(
        1, ground_truth((26000, MATCHED), (24000, APART)), [predicted(0.9, MATCHED), predicted(0.9, MATCHED, 24)]
    )
    results = metric.compute()
    assert (results["AP-car"], results["AP-person"], results["AP"]) == (100, 0, 50)


def test_a_mask_is_counted_where_its_crop_is() -> None:
    crop = np.zeros((20, 15), dtype=np.bool_)
    crop[10:, 5:] = True
    assert compute_ap(ground_truth((26000, APART)), MaskPrediction(CAR, 0.5, crop, (25, 0))) == (100, 100)
    assert compute_ap(ground_truth((26000, APART)).astype(np.uint16), MaskPrediction(CAR, 0.5, crop, (25, 0))) == (
        100,
        100,
    )


IDS = [0, 7, 24, 29, 26, 24000, 24001, 26000, 26001, 29000]
boxes = st.tuples(*(st.integers(0, 9) for _ in range(4)))
scores = st.sampled_from([0.1, 0.5, 0.5000001, 0.9, -1.0, 0.0])
images = st.tuples(
    st.lists(st.tuples(st.sampled_from(IDS), boxes), max_size=6),
    st.lists(st.tuples(scores, boxes, st.sampled_from([24, 26])), max_size=6),
)


def scored(parts: Iterable[tuple[int, Any]]) -> CityscapesAP:
    metric = CityscapesAP(CATEGORIES)
    for image_id, (ids, predictions) in parts:
        enlarged = np.kron(ground_truth(*ids)[:18, :18], np.ones((4, 4), dtype=np.int32))
        masks = [predicted(score, tuple(4 * i for i in box), label) for score, box, label in predictions]  # type: ignore[arg-type]
        metric.update(image_id, enlarged, masks)
    return metric


@settings(deadline=None, max_examples=40)
@given(st.lists(images, max_size=4), st.randoms())
def test_order_and_sharding_change_no_bit(images: list[Any], random: Any) -> None:
    expected = scored(enumerate(images)).compute()
    shuffled = [
        (number, (ids, random.sample(predictions, len(predictions))))
        for number, (ids, predictions) in enumerate(images)
    ]
    random.shuffle(shuffled)
    merged = scored(shuffled[1::2])
    merged.merge(pickle.loads(pickle.dumps(scored(shuffled[::2]))))
    assert merged.compute() == expected
    assert len(merged) == len(images)


@settings(deadline=None, max_examples=20)
@given(st.lists(images, max_size=3))
def test_the_state_survives_files(images: list[Any]) -> None:
    header, arrays = scored(enumerate(images)).state()
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    file.seek(0)
    read = CityscapesAP.from_state(json.loads(json.dumps(header)), np.load(file, allow_pickle=False))
    assert read.compute() == scored(enumerate(images)).compute()
    if images:
        with pytest.raises(DatasetError, match="got 0 in both"):
            read.merge(scored([(0, ([], []))]))


def spoiled(name: str, value: Any, row: int = 0) -> tuple[Any, Any]:
    metric = CityscapesAP(CATEGORIES)
    metric.update(1, ground_truth((26000, MATCHED)), [predicted(0.9, MATCHED)])
    header, arrays = metric.state()
    if name in header:
        header[name] = value
    elif "." in name:
        table, column = name.split(".")
        arrays[table][column][row] = value
    else:
        arrays[name] = value
    return header, arrays


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("categories", []),
        ("image_ids", []),
        ("image_ids", [1, 2]),
        ("ground_truth", np.zeros(1)),
        ("ground_truth", None),
        ("shared_per_image", np.array([2])),
        ("shared_per_image", np.array([1.0])),
        ("shared.ground_truth", 1),
        ("shared.prediction", -1),
        ("shared.pixels", 0),
        ("ground_truth.instance_id", 24000),
        ("ground_truth.instance_id", 7),
        ("prediction.category_id", 7),
        ("prediction.score", np.nan),
        ("prediction.pixels", 0),
    ],
)
def test_another_state_is_rejected(name: str, value: Any) -> None:
    with pytest.raises(DatasetError):
        CityscapesAP.from_state(*spoiled(name, value))


def test_a_state_without_a_table_is_rejected() -> None:
    header, arrays = spoiled("image_ids", [1])
    with pytest.raises(DatasetError, match="saved counts of Cityscapes' AP"):
        CityscapesAP.from_state(header, {name: array for name, array in arrays.items() if name != "shared"})


@pytest.mark.parametrize(
    ("ids", "prediction", "error", "message"),
    [
        (
            ground_truth((34000, MATCHED)),
            predicted(1, MATCHED),
            DatasetError,
            r"image 'x', ground truth: expected ids of labels.*34000",
        ),
        (ground_truth((34, MATCHED)), predicted(1, MATCHED), DatasetError, r"got 34$"),
        (ground_truth((-1, MATCHED)), predicted(1, MATCHED), DatasetError, r"got -1$"),
        (
            ground_truth(),
            predicted(float("nan"), MATCHED),
            DatasetError,
            "image 'x', prediction 0: expected a finite score",
        ),
        (ground_truth(), predicted(1, MATCHED, ROAD), ValueError, r"one of \[24, 26\], got 7"),
        (ground_truth(), predicted(1, (11, 0, 10, 10)), ValueError, "leaves the 20 x 40 image"),
        (ground_truth(), predicted(1, (0, -1, 10, 10)), ValueError, "leaves the 20 x 40 image"),
        (ground_truth(), MaskPrediction(CAR, 1, np.ones((2, 2), np.uint8), (0, 0)), ValueError, "bool"),  # type: ignore[arg-type]
        (ground_truth(), MaskPrediction(CAR, 1, np.ones(4, np.bool_), (0, 0)), ValueError, r"\(h, w\)"),
        (ground_truth().astype(float), predicted(1, MATCHED), ValueError, "integer"),
        (ground_truth()[None], predicted(1, MATCHED), ValueError, r"\(H, W\)"),
    ],
)
def test_bad_input_is_rejected_and_not_counted(
    ids: NDArray[Any], prediction: MaskPrediction, error: type[Exception], message: str
) -> None:
    metric = CityscapesAP(CATEGORIES)
    with pytest.raises(error, match=message):
        metric.update("x", ids, [prediction])
    assert len(metric) == 0
    metric.update("x", ground_truth(), [])
    with pytest.raises(DatasetError, match="second time"):
        metric.update("x", ground_truth(), [])


def test_constructor_and_merge_rules() -> None:
    with pytest.raises(ValueError, match=r"\[29\]"):
        CityscapesAP(CategorySet([Category(29, "caravan", True, (0, 0, 0))]))
    with pytest.raises(DatasetError, match=r"\['car'\] twice"):
        CityscapesAP(CategorySet([Category(i, "car", True, (0, 0, 0)) for i in (26, 27)]))
    with pytest.raises(ValueError, match="categories"):
        CityscapesAP(CATEGORIES).merge(CityscapesAP(CategorySet(CATEGORIES.things)))
