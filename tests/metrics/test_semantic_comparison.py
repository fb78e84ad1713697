"""Semantic IoU of resampled images, and whether one set of label maps is better than another."""

import numpy as np
import pytest

from segkit.metrics import SemanticIoU
from segkit.metrics.comparison import resample_images
from segkit.metrics.semantic_comparison import NAMES, compare_semantic_iou
from segkit.utils.errors import DatasetError

CLASSES = ("road", "sky", "car")
CAR = 2


def build_maps(seed=0, images=30, wrong=0.3):
    """image_id -> (ground truth with ignored pixels and few cars, prediction with this share of wrong pixels)."""
    truth, errors = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    maps = {}
    for image_id in truth.permutation(100)[:images].tolist():
        labels = truth.choice([0, 1, CAR], size=(6, 8), p=(0.6, 0.4, 0) if image_id % 2 else (0.6, 0.3, 0.1))
        ground_truth = np.where(truth.random(labels.shape) < 0.1, 255, labels)
        maps[image_id] = ground_truth, np.where(errors.random(labels.shape) < wrong, (labels + 1) % 3, labels)
    return maps


def count(maps, names=CLASSES):
    metric = SemanticIoU(names)
    for image_id, pair in maps.items():
        metric.update(*pair, image_id=image_id)
    return metric


@pytest.mark.parametrize("seed", range(3))
def test_a_resampled_difference_is_that_of_the_resampled_images(seed):
    """Of one resample, both ends of the interval are its difference."""
    maps, better = build_maps(seed), build_maps(seed, wrong=0.1)
    compared = compare_semantic_iou(count(maps), count(better), samples=1, seed=seed)
    times = resample_images(len(maps), lambda weights: weights, samples=1, seed=seed)[0].astype(int).tolist()
    assert max(times) >= 3, "images that are drawn several times"
    results = []
    for each in (maps, better):
        metric = SemanticIoU(CLASSES)
        for image_id, number in zip(sorted(each), times, strict=True):
            for _ in range(number):
                metric.update(*each[image_id])
        results.append(metric.compute())
    rows = {name: compared[name] for name in NAMES}
    rows |= {f"IoU-{name}": compared["per_class"][name]["IoU"] for name in CLASSES}
    for name, row in rows.items():
        assert row["low"] == row["high"] == pytest.approx(results[1][name] - results[0][name], abs=1e-9)
        assert row["low"] > 1, name


def test_fewer_wrong_pixels_are_better():
    maps, better = build_maps(), build_maps(wrong=0.1)
    a, b = count(maps), count(better)
    result = compare_semantic_iou(a, b, samples=100)
    assert (result["images"], result["samples"], result["reason"]) == (30, 100, None)
    for name in NAMES:
        row = result[name]
        assert (row["A"], row["B"]) == (a.compute()[name], b.compute()[name])
        assert (row["conclusion"], row["share_better"]) == ("better", 1.0)
        assert 0 < row["low"] <= row["difference"] <= row["high"]
    car = result["per_class"]["car"]
    assert car["images"] == sum((ground_truth == CAR).any() for ground_truth, _ in maps.values())
    assert car["IoU"]["A"] == a.compute()["IoU-car"]
    assert compare_semantic_iou(b, a, samples=100)["mIoU"]["conclusion"] == "worse"
    shuffled = count({image_id: better[image_id] for image_id in sorted(better)})
    assert compare_semantic_iou(a, shuffled, samples=100) == result, "the order of images plays no part"
    same = compare_semantic_iou(a, a, samples=20)["mIoU"]
    assert (same["difference"], same["low"], same["conclusion"]) == (0, 0, "no clear difference")


def test_a_class_in_few_images_has_no_interval():
    maps = dict.fromkeys(range(12), (np.array([[0, 1]]), np.array([[0, 0]])))
    maps |= dict.fromkeys(range(12, 21), (np.array([[CAR]]), np.array([[CAR]])))
    result = compare_semantic_iou(count(maps), count(maps), samples=5)
    car = result["per_class"]["car"]
    assert (car["images"], car["IoU"]["conclusion"], car["IoU"]["low"]) == (9, "too few images", None)
    assert result["per_class"]["road"]["IoU"]["conclusion"] == "no clear difference"
    alone = compare_semantic_iou(count({0: maps[0]}), count({0: maps[0]}), samples=5)
    assert alone["reason"] == "images with regions of a class: 1; an interval over images needs at least 2"
    assert alone["per_class"]["car"]["IoU"]["conclusion"] is None
    few = {image_id: maps[image_id] for image_id in range(4)}  # of two classes each
    few_reason = compare_semantic_iou(count(few), count(few), samples=5)["reason"]
    assert few_reason == "ground truth regions of a class: 8; an interval needs at least 10"
    for nothing in ({}, {0: (np.array([[255]]), np.array([[0]]))}):
        assert compare_semantic_iou(count(nothing), count(nothing), samples=5)["mIoU"]["A"] is None


def test_other_images_or_another_ground_truth_raise_a_dataset_error():
    maps = build_maps()
    image_id, (ground_truth, prediction) = next(iter(maps.items()))
    fewer = {i: pair for i, pair in maps.items() if i != image_id}
    with pytest.raises(DatasetError, match=f"expected the same images in A and B, B lacks {image_id}"):
        compare_semantic_iou(count(maps), count(fewer))
    changed = maps | {image_id: (np.roll(ground_truth, 1) * 0, prediction)}
    with pytest.raises(DatasetError, match=f"image {image_id}: expected the same ground truth pixels in A and B"):
        compare_semantic_iou(count(maps), count(changed))
    with pytest.raises(ValueError, match="a and b must have the same classes"):
        compare_semantic_iou(count(maps), count(maps, ("road", "sky", "bus")))


def test_sums_over_images_cannot_be_compared():
    metric = count(build_maps())
    metric.update(np.array([[0]]), np.array([[1]]))
    with pytest.raises(DatasetError, match="B: expected the counts of each image, got sums over images; count every"):
        compare_semantic_iou(count(build_maps()), metric)
