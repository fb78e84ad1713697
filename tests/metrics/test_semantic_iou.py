"""Semantic IoU on drawn maps, and against Detectron2's definitions written out slowly."""

import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segkit.metrics import SemanticIoU
from segkit.structures import DatasetError

NAMES = ("road", "sky", "car")


def score(truth, prediction, names=NAMES, **kwargs):
    metric = SemanticIoU(names, **kwargs)
    metric.update(np.array(truth), np.array(prediction))
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
    }


@pytest.mark.parametrize("truth", [np.full((2, 2), 255), np.zeros((0, 3), int)])
def test_nothing_labelled_gives_none(truth):
    results = score(truth, np.zeros_like(truth))
    assert len(results) == 10
    assert set(results.values()) == {None}


def test_uint8_labels_do_not_wrap():
    names = [str(i) for i in range(200)]
    truth, prediction = np.full((1, 2), 199, np.uint8), np.full((1, 2), 198, np.uint8)
    metric = SemanticIoU(names)
    metric.update(truth, prediction)
    assert metric.confusion[198, 199] == 2
    assert metric.confusion.sum() == 2


def test_strange_labels_are_named_and_not_counted():
    metric = SemanticIoU(NAMES, ignore_label=-1)
    right = np.array([[0, 1, -1]])
    for label in (3, 255, -2):
        with pytest.raises(DatasetError, match=f"expected truth labels 0..2 or -1 \\(ignored\\), got {label};"):
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
    with pytest.raises(DatasetError, match="distinct class names, got \\['car'\\]"):
        SemanticIoU(["car", "car"])


def by_pixel(pairs, classes, ignore_label):
    """SemSegEvaluator.process and evaluate, pixel by pixel and class by class; NaN where it gives NaN."""
    pixels = [
        (t, p)
        for truth, prediction in pairs
        for t, p in zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True)
        if t != ignore_label
    ]
    ious, accs, weighted = {}, {}, 0.0
    for c in range(classes):
        right = sum(t == p == c for t, p in pixels)
        true, predicted = sum(t == c for t, _ in pixels), sum(p == c for _, p in pixels)
        if true:
            ious[c], accs[c] = right / (true + predicted - right), right / true
            weighted += ious[c] * true / len(pixels)
    results = {"mIoU": math.nan, "fwIoU": math.nan, "mACC": math.nan, "pACC": math.nan}
    if pixels:
        results["mIoU"], results["mACC"] = sum(ious.values()) / len(ious), sum(accs.values()) / len(accs)
        results["fwIoU"], results["pACC"] = weighted, sum(t == p for t, p in pixels) / len(pixels)
    for c in range(classes):
        results |= {f"IoU-{c}": ious.get(c, math.nan), f"ACC-{c}": accs.get(c, math.nan)}
    return {
        name: None if math.isnan(value) else pytest.approx(100 * value, abs=1e-9) for name, value in results.items()
    }


@st.composite
def labelled_images(draw, classes=5):
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=6))
    seen = draw(st.lists(st.integers(0, classes - 1), min_size=1, unique=True))
    truth = draw(hnp.arrays(np.uint8, shape, elements=st.sampled_from([*seen, 255])))
    prediction = draw(hnp.arrays(np.int64, shape, elements=st.integers(0, classes - 1)))
    return truth, prediction


@settings(deadline=None)
@given(st.lists(labelled_images(), max_size=4), st.integers(0, 4))
def test_equals_the_definitions_and_merges(images, cut):
    names = [str(c) for c in range(5)]
    whole, left, right = SemanticIoU(names), SemanticIoU(names), SemanticIoU(names)
    for index, (truth, prediction) in enumerate(images):
        whole.update(truth, prediction)
        (left if index < cut else right).update(truth, prediction)
    assert whole.compute() == by_pixel(images, 5, 255)
    right.merge(pickle.loads(pickle.dumps(left)))
    assert right.compute() == whole.compute()


def test_other_classes_are_not_merged():
    with pytest.raises(ValueError, match="same names and ignore_label"):
        SemanticIoU(NAMES).merge(SemanticIoU(NAMES, ignore_label=-1))
