"""Semantic IoU on drawn maps, and comparison with a slow version of Detectron2's definitions."""

import json
import math
import pickle

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segkit.metrics import SemanticIoU
from segkit.metrics.boundary import boundary_dilation_px
from segkit.utils.errors import DatasetError

NAMES = ("road", "sky", "car")


def score(ground_truth, prediction, names=NAMES, **kwargs):
    metric = SemanticIoU(names, **kwargs)
    metric.update(np.array(ground_truth), np.array(prediction))
    return metric.compute()


def test_drawn_scene():
    results = score(
        [[0, 0, 0, 0], [0, 0, 1, 1], [1, 1, 255, 255]],
        [[0, 0, 0, 1], [0, 0, 1, 1], [1, 2, 2, 0]],
    )
    # 10 pixels count, 2 are ignored.
    # road: 5 right, 6 true, 5 predicted: 5 / 6. sky: 3 right, 4 true, 4 predicted: 3 / 5.
    # car: never true: None and in no mean, though predicted (it costs sky a pixel).
    assert results == {
        "mIoU": pytest.approx(100 * (5 / 6 + 3 / 5) / 2),
        "fwIoU": pytest.approx(100 * (0.6 * 5 / 6 + 0.4 * 3 / 5)),
        "IoU-road": pytest.approx(100 * 5 / 6),
        "IoU-sky": pytest.approx(60),
        "IoU-car": None,
        "mACC": pytest.approx(100 * (5 / 6 + 3 / 4) / 2),
        "pACC": pytest.approx(80),
        "ACC-road": pytest.approx(100 * 5 / 6),
        "ACC-sky": pytest.approx(75),
        "ACC-car": None,
        # road: 2 * 5 / (6 + 5), sky: 2 * 3 / (4 + 4).
        "mDice": pytest.approx(100 * (10 / 11 + 6 / 8) / 2),
        "Dice-road": pytest.approx(100 * 10 / 11),
        "Dice-sky": pytest.approx(75),
        "Dice-car": None,
    }


@pytest.mark.parametrize("ground_truth", [np.full((2, 2), 255), np.zeros((0, 3), int)])
def test_nothing_labelled_gives_none(ground_truth):
    for boundary, numbers in ((False, 14), (True, 21)):
        results = score(ground_truth, np.zeros_like(ground_truth), boundary=boundary)
        assert len(results) == numbers
        assert set(results.values()) == {None}


def test_uint8_labels_do_not_wrap():
    names = [str(i) for i in range(200)]
    ground_truth, prediction = np.full((1, 2), 199, np.uint8), np.full((1, 2), 198, np.uint8)
    metric = SemanticIoU(names)
    metric.update(ground_truth, prediction)
    assert metric.confusion[198, 199] == 2
    assert metric.confusion.sum() == 2


def test_invalid_labels_are_named_and_not_counted():
    metric = SemanticIoU(NAMES, ignore_label=-1)
    right = np.array([[0, 1, -1]])
    for label in (3, 255, -2):
        with pytest.raises(DatasetError, match=f"expected ground truth labels 0..2 or -1 \\(ignored\\), got {label};"):
            metric.update(np.array([[0, 1, label]]), np.array([[0, 1, 1]]))
    for label in (3, -1):
        with pytest.raises(ValueError, match=f"prediction must hold labels 0..2, got {label}"):
            metric.update(right, np.array([[0, 1, label]]))
    with pytest.raises(DatasetError, match="one size, got 1 x 3 and 1 x 2"):
        metric.update(right, np.array([[0, 1]]))
    with pytest.raises(ValueError, match="integer"):
        metric.update(right, np.array([[0.0, 1.0, 2.0]]))
    assert metric.confusion.sum() == 0


def test_constructor_rules():
    with pytest.raises(ValueError, match="at least one class"):
        SemanticIoU([])
    with pytest.raises(ValueError, match=r"ignore_label must not be a class, 0\.\.2, got 2"):
        SemanticIoU(NAMES, ignore_label=2)
    with pytest.raises(ValueError, match="boundary_ratio must be positive and finite, got 0"):
        SemanticIoU(NAMES, boundary=True, boundary_ratio=0)
    with pytest.raises(DatasetError, match="distinct names of classes, got \\['car'\\]"):
        SemanticIoU(["car", "car"])


def test_medical_masks_of_two_classes():
    ground_truth = np.zeros((8, 8), np.uint8)
    ground_truth[2:6, 2:6] = 1
    prediction = np.zeros((8, 8), np.uint8)
    prediction[3:7, 2:6] = 1
    results = score(ground_truth, prediction, ("background", "tumour"))
    # tumour: 12 of 16 shared: Dice 24 / 32; background: 44 of 48: 88 / 96.
    assert results["Dice-tumour"] == 75
    assert results["Dice-background"] == pytest.approx(100 * 88 / 96)
    missed = score(ground_truth, np.zeros_like(ground_truth), ("background", "tumour"))
    assert missed["Dice-tumour"] == 0
    healthy = score(np.zeros_like(ground_truth), prediction, ("background", "tumour"))
    assert (healthy["Dice-tumour"], healthy["mDice"]) == (None, pytest.approx(100 * 96 / 112))


def find_boundary(mask, dilation_px):
    """boundary_iou/utils/boundary_utils.py, mask_to_boundary."""
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    return mask & ~cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=dilation_px)[1:-1, 1:-1].astype(bool)


def boundary_ious(images, classes, ignore_label, ratio):
    """Boundary IoU by one erosion per mask: intersection and union added up over images; None without ground truth."""
    shared, either, true = [0] * classes, [0] * classes, [0] * classes
    for ground_truth, prediction in images:
        dilation_px = boundary_dilation_px(ground_truth.shape, ratio)
        for c in range(classes):
            scored = ground_truth != ignore_label
            masks = (ground_truth == c) & scored, (prediction == c) & scored
            if min(ground_truth.shape):
                gt, pred = (find_boundary(mask, dilation_px) for mask in masks)
                shared[c] += (gt & pred).sum()
                either[c] += (gt | pred).sum()
            true[c] += masks[0].sum()
    return [100 * (s / e) if t else None for s, e, t in zip(shared, either, true, strict=True)]


def test_boundary_of_a_moved_square():
    ground_truth = np.zeros((40, 50), np.int32)
    ground_truth[10:30, 10:30] = 1
    prediction = np.roll(ground_truth, 1, axis=1)
    results = score(ground_truth, prediction, ("background", "square"), boundary=True)
    # Diagonal 64, so boundaries are 1 wide: 76 pixels of the square's frame; of a frame moved by one pixel, the
    # 19 + 19 of the top and bottom rows are shared, the columns are not: 38 / (2 * 76 - 38).
    assert results["BoundaryIoU-square"] == pytest.approx(100 * 38 / 114)
    assert results["IoU-square"] == pytest.approx(100 * 380 / 420)
    assert results["min(IoU, B-Iou)-square"] == results["BoundaryIoU-square"]
    both = results["BoundaryIoU-square"], results["BoundaryIoU-background"]
    assert results["mBoundaryIoU"] == pytest.approx(sum(both) / 2)


def test_a_prediction_over_ignored_pixels_keeps_its_boundary():
    ground_truth = np.full((40, 40), 255, np.uint8)
    ground_truth[:, :20] = 0
    results = score(ground_truth, np.zeros((40, 40), np.uint8), ("road", "sky"), boundary=True)
    assert results["BoundaryIoU-road"] == 100


@settings(deadline=None, max_examples=60)
@given(st.data(), st.lists(hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=12), max_size=3))
def test_boundary_equals_one_erosion_per_mask(data, shapes):
    classes, ratio = 4, data.draw(st.sampled_from([0.02, 0.1, 0.3]))
    ignore_label = data.draw(st.sampled_from([255, -1]))
    images = []
    for shape in shapes:
        rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
        ground_truth, prediction = (np.kron(rng.integers(0, classes, shape), np.ones((2, 5), int)) for _ in range(2))
        ground_truth[rng.random(ground_truth.shape) < data.draw(st.sampled_from([0, 0.05, 1]))] = ignore_label
        images.append((ground_truth.astype(np.int16), prediction.astype(np.uint8)))
    names = [str(c) for c in range(classes)]
    metric = SemanticIoU(names, ignore_label, boundary=True, boundary_ratio=ratio)
    for ground_truth, prediction in images:
        metric.update(ground_truth, prediction)
    results = metric.compute()
    assert [results[f"BoundaryIoU-{c}"] for c in range(classes)] == boundary_ious(images, classes, ignore_label, ratio)


def test_counts_can_be_added_directly():
    ground_truth, prediction = np.array([[0, 1, 1, 255]]), np.array([[0, 1, 2, 2]])
    for boundary in (False, True):
        counted, added = SemanticIoU(NAMES, boundary=boundary), SemanticIoU(NAMES, boundary=boundary)
        counted.update(ground_truth, prediction)
        added.add_confusion(counted.confusion.astype(np.uint64), counted.boundary_px if boundary else None)
        assert added.compute() == counted.compute()
    matrix = np.zeros((3, 3), int)
    for wrong in (np.zeros((2, 3), int), np.zeros((3, 3)), matrix.tolist()):
        with pytest.raises(ValueError, match=r"confusion must be a numpy array of \(3, 3\) integers, got"):
            SemanticIoU(NAMES).add_confusion(wrong)
    with pytest.raises(ValueError, match="confusion must hold numbers of pixels, 0 or more, got -1"):
        SemanticIoU(NAMES).add_confusion(matrix - 1)
    with pytest.raises(ValueError, match="boundary_px must be given if boundaries are counted, and only then"):
        SemanticIoU(NAMES).add_confusion(matrix, np.zeros((2, 3), int))
    with pytest.raises(ValueError, match="boundary_px must be given"):
        SemanticIoU(NAMES, boundary=True).add_confusion(matrix)


@pytest.mark.parametrize("boundary", [False, True])
def test_saved_counts_are_read_back(boundary):
    metric = SemanticIoU(NAMES, ignore_label=-1, boundary=boundary, boundary_ratio=0.1)
    metric.update(np.array([[0, 1, 1, -1]]), np.array([[0, 1, 2, 2]]))
    header, arrays = metric.state()
    again = SemanticIoU.from_state(json.loads(json.dumps(header)), arrays)
    assert again.compute() == metric.compute()
    again.merge(metric)
    np.testing.assert_array_equal(again.confusion, 2 * metric.confusion)
    assert metric.confusion.sum() == 3  # what was saved is no view of what goes on counting


@pytest.mark.parametrize(
    "change",
    [
        lambda header, arrays: header.pop("names"),
        lambda header, arrays: header.update(names=["a", "b"]),
        lambda header, arrays: header.update(names=3),
        lambda header, arrays: header.update(options={"mode": "things"}),
        lambda header, arrays: arrays.pop("confusion"),
        lambda header, arrays: arrays.update(confusion=np.zeros((3, 3))),
        lambda header, arrays: arrays.update(confusion=np.full((3, 3), -1)),
        lambda header, arrays: arrays.update(boundary_px=np.zeros((3, 3), int)),
        lambda header, arrays: header.pop("image_ids"),
        lambda header, arrays: header.update(image_ids=["a", "a"]),
        lambda header, arrays: header.update(image_ids=["a"]),
        lambda header, arrays: header.update(image_ids=["a", None]),
        lambda header, arrays: arrays.update(classes_per_image=np.array([2, 2])),
        lambda header, arrays: arrays.update(classes_per_image=np.array([4, -1])),
        lambda header, arrays: arrays.update(classes=np.zeros(3)),
        lambda header, arrays: arrays["classes"]["label"].__setitem__(0, 3),
        lambda header, arrays: arrays["classes"]["label"].__setitem__(0, -1),
        lambda header, arrays: arrays["classes"]["correct_px"].__setitem__(0, -1),
        lambda header, arrays: arrays["classes"]["correct_px"].__setitem__(0, 9),
    ],
)
def test_other_saved_counts_are_rejected(change):
    metric = SemanticIoU(NAMES)
    metric.update(np.array([[0, 1]]), np.array([[0, 0]]), image_id="a")
    metric.update(np.array([[2]]), np.array([[2]]), image_id=5)
    header, arrays = metric.state()
    assert len(arrays["classes"]) == 3
    change(header, arrays)
    with pytest.raises(DatasetError, match="expected saved counts of semantic IoU, got others"):
        SemanticIoU.from_state(header, arrays)


def by_pixel(pairs, classes, ignore_label):
    """SemSegEvaluator.process and evaluate, and Dice, pixel by pixel and class by class; NaN where it gives NaN."""
    pixels = [
        (t, p)
        for ground_truth, prediction in pairs
        for t, p in zip(ground_truth.ravel().tolist(), prediction.ravel().tolist(), strict=True)
        if t != ignore_label
    ]
    ious, accs, dice, weighted = {}, {}, {}, 0.0
    for c in range(classes):
        right = sum(t == p == c for t, p in pixels)
        true, predicted = sum(t == c for t, _ in pixels), sum(p == c for _, p in pixels)
        if true:
            ious[c], accs[c] = right / (true + predicted - right), right / true
            dice[c] = 2 * right / (true + predicted)
            weighted += ious[c] * true / len(pixels)
    results = {"mIoU": math.nan, "fwIoU": math.nan, "mACC": math.nan, "pACC": math.nan, "mDice": math.nan}
    if pixels:
        results["mIoU"], results["mACC"] = sum(ious.values()) / len(ious), sum(accs.values()) / len(accs)
        results["mDice"] = sum(dice.values()) / len(dice)
        results["fwIoU"], results["pACC"] = weighted, sum(t == p for t, p in pixels) / len(pixels)
    for c in range(classes):
        results |= {
            f"IoU-{c}": ious.get(c, math.nan),
            f"ACC-{c}": accs.get(c, math.nan),
            f"Dice-{c}": dice.get(c, math.nan),
        }
    return {
        name: None if math.isnan(value) else pytest.approx(100 * value, abs=1e-9) for name, value in results.items()
    }


@st.composite
def labelled_images(draw, classes=5):
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=6))
    seen = draw(st.lists(st.integers(0, classes - 1), min_size=1, unique=True))
    ground_truth = draw(hnp.arrays(np.uint8, shape, elements=st.sampled_from([*seen, 255])))
    prediction = draw(hnp.arrays(np.int64, shape, elements=st.integers(0, classes - 1)))
    return ground_truth, prediction


def test_pixels_of_each_class_are_kept_of_images_with_an_id():
    ground_truth, prediction = np.array([[0, 0, 1, 255]], np.uint8), np.array([[0, 2, 1, 2]], np.uint8)
    counted, added = SemanticIoU(NAMES), SemanticIoU(NAMES)
    counted.update(ground_truth, prediction, image_id="x")
    added.add_confusion(counted.confusion, image_id="x")
    counted.update(ground_truth, prediction)
    for metric in (counted, added):
        [(image_id, table)] = metric.images.in_order()
        # label, correct, ground truth, predicted: road 1 of 2, sky 1 of 1, car predicted once and once on void.
        assert (image_id, table.tolist()) == ("x", [(0, 1, 2, 1), (1, 1, 1, 1), (2, 0, 0, 1)])
    assert counted.confusion.sum() == 6


def test_an_image_is_counted_once():
    metric = SemanticIoU(NAMES)
    for _ in range(2):
        metric.update(np.array([[0]]), np.array([[0]]))  # without an id nothing is known
    metric.update(np.array([[0]]), np.array([[0]]), image_id=7)
    other = pickle.loads(pickle.dumps(metric))
    with pytest.raises(DatasetError, match="image 7: expected every image once"):
        metric.update(np.array([[0]]), np.array([[0]]), image_id=7)
    with pytest.raises(DatasetError, match="image 7: expected every image once"):
        metric.add_confusion(np.eye(3, dtype=int), image_id=7)
    with pytest.raises(DatasetError, match="expected shards without common images, got 7 in both"):
        metric.merge(other)
    assert metric.confusion.sum() == 3


@settings(deadline=None)
@given(st.lists(labelled_images(), max_size=4), st.integers(0, 4))
def test_shards_keep_the_images_of_one_pass(images, cut):
    whole, left, right = (SemanticIoU([str(c) for c in range(5)]) for _ in range(3))
    for index, pair in enumerate(images):
        whole.update(*pair, image_id=index)
        (left if index < cut else right).update(*pair, image_id=index)
    right.merge(SemanticIoU.from_state(*left.state()))
    (header, arrays), (merged_header, merged_arrays) = whole.state(), right.state()
    assert json.loads(json.dumps(merged_header)) == header
    assert arrays.keys() == merged_arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(merged_arrays[name], array)
    tables = dict(whole.images.in_order())
    for index, (ground_truth, prediction) in enumerate(images):
        alone = SemanticIoU(whole.names)
        alone.update(ground_truth, prediction)
        columns = alone.confusion.diagonal(), alone.confusion.sum(axis=0), alone.confusion.sum(axis=1)
        rows = [(label, *pixels) for label, pixels in enumerate(np.stack(columns, axis=1).tolist()) if any(pixels)]
        assert [tuple(row) for row in tables[index].tolist()] == rows


@settings(deadline=None)
@given(st.lists(labelled_images(), max_size=4), st.integers(0, 4))
def test_equals_the_definitions_and_merges(images, cut):
    names = [str(c) for c in range(5)]
    whole, left, right = (SemanticIoU(names, boundary=True) for _ in range(3))
    for index, (ground_truth, prediction) in enumerate(images):
        whole.update(ground_truth, prediction)
        (left if index < cut else right).update(ground_truth, prediction)
    results = whole.compute()
    assert {k: v for k, v in results.items() if "B-Iou" not in k and "Boundary" not in k} == by_pixel(images, 5, 255)
    right.merge(pickle.loads(pickle.dumps(left)))
    assert right.compute() == whole.compute()


def test_other_classes_are_not_merged():
    with pytest.raises(ValueError, match="same names, ignore_label and boundaries"):
        SemanticIoU(NAMES).merge(SemanticIoU(NAMES, ignore_label=-1))
    with pytest.raises(ValueError, match="same names, ignore_label and boundaries"):
        SemanticIoU(NAMES).merge(SemanticIoU(NAMES, boundary=True))
