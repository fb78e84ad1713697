"""AP of resampled images, and whether one set of results is better than another."""

import numpy as np
import pytest

from segkit.metrics import AveragePrecision, average_precision_comparison
from segkit.metrics.average_precision_comparison import NAMES, compare_average_precision
from segkit.structures import Category, CategorySet, mask_to_rle
from segkit.utils.errors import DatasetError
from tests.helpers.coco_columns import update

CAR, DOG, SKY = 3, 17, 90
CATEGORIES = CategorySet(Category(i, str(i), i != SKY, (0, 0, 0)) for i in (CAR, DOG, SKY))
SIZE_HW = (120, 160)


def build_entry(rng, category_id, x, y, w, h, **fields):
    mask = np.zeros(SIZE_HW, dtype=bool)
    mask[y : y + h, x : x + w] = True
    entry = {"category_id": category_id, "bbox": [x, y, w, h], "segmentation": mask_to_rle(mask)} | fields
    return entry if "score" in fields else entry | {"area": w * h, "iscrowd": int(rng.random() < 0.15)}


def build_scenes(seed, images=12):
    """image_id -> (ground truth, results) with crowds, missed and false results, and all three sizes."""
    rng = np.random.default_rng(seed)
    scores = iter(rng.permutation(1000) / 1000)  # distinct: copies of an image with equal scores would alternate
    scenes = {}
    for image_id in rng.permutation(100)[:images].tolist():
        ground_truth, results = [], []
        for _ in range(rng.integers(0, 6)):
            category_id, x, y = int(rng.choice([CAR, DOG])), *rng.integers(0, 60, 2).tolist()
            w, h = rng.integers(5, rng.choice([15, 60, 99]), 2).clip(max=[100, 60]).tolist()
            ground_truth.append(build_entry(rng, category_id, x, y, w, h))
            for _ in range(rng.integers(0, 3)):
                shift_x, shift_y = rng.integers(0, 4, 2).tolist()
                score = float(next(scores))
                results.append(build_entry(rng, category_id, x + shift_x, y + shift_y, w - 3, h, score=score))
        scenes[image_id] = ground_truth, results
    return scenes


def count(scenes, iou_types=("bbox", "segm")):
    metric = AveragePrecision(CATEGORIES, iou_types)
    for image_id, (ground_truth, results) in scenes.items():
        update(metric, image_id, SIZE_HW, ground_truth, results)
    return metric


def drop_results(scenes, share, seed=0):
    rng = np.random.default_rng(seed)
    return {i: (truth, [r for r in results if rng.random() > share]) for i, (truth, results) in scenes.items()}


@pytest.mark.parametrize("seed", range(4))
def test_a_resample_equals_the_metric_of_its_images(seed):
    """An image that is drawn w times is added w times, under ids that follow each other."""
    scenes, rng = build_scenes(seed), np.random.default_rng(seed)
    metric = count(scenes)
    objects = average_precision_comparison._sort_objects(metric)
    weights = np.concatenate([np.ones((1, len(scenes))), rng.multinomial(len(scenes), np.full(12, 1 / 12), 3)])
    for iou_type in ("bbox", "segm"):
        classes = average_precision_comparison._split_classes(metric, iou_type, objects)
        drawn = average_precision_comparison._compute_resampled(weights, classes)
        for row, times in zip(drawn, weights.astype(int).tolist(), strict=True):
            order = zip(sorted(scenes), times, strict=True)
            copies = {100 * i + copy: scenes[i] for i, number in order for copy in range(number)}
            expected = count(copies, [iou_type]).compute()[iou_type]
            values = [expected[name] for name in [*NAMES, f"AP-{CAR}", f"AP-{DOG}"]]
            np.testing.assert_allclose(row, np.array(values, dtype=float), atol=1e-9)


def test_the_one_with_more_results_is_better():
    scenes = build_scenes(5, images=40)
    fewer, more = count(drop_results(scenes, 0.6)), count(scenes)
    result = compare_average_precision(fewer, more, samples=100)
    assert [*result] == ["bbox", "segm"]
    for kind, compared in result.items():
        ap, car = compared["AP"], compared["per_class"][str(CAR)]
        assert (ap["A"], ap["B"]) == (fewer.compute()[kind]["AP"], more.compute()[kind]["AP"])
        assert (ap["conclusion"], ap["share_better"], compared["reason"]) == ("better", 1.0, None)
        assert 0 < ap["low"] <= ap["difference"] <= ap["high"]
        assert car["objects"] == sum(
            e["category_id"] == CAR and not e["iscrowd"] for truth, _ in scenes.values() for e in truth
        )
        back = compare_average_precision(more, fewer, samples=100)[kind]["AP"]
        assert (back["conclusion"], back["low"], back["high"]) == (
            "worse",
            pytest.approx(-ap["high"]),
            pytest.approx(-ap["low"]),
        )
    same = compare_average_precision(more, more, samples=20)["segm"]["AP"]
    assert (same["difference"], same["conclusion"]) == (0.0, "no clear difference")


def test_few_objects_have_no_interval():
    scene = ([build_entry(np.random.default_rng(1), CAR, 0, 0, 9, 9) | {"iscrowd": 0}], [])
    result = compare_average_precision(count(dict.fromkeys(range(9), scene)), count(dict.fromkeys(range(9), scene)))
    assert result["bbox"]["AP"]["conclusion"] == "too few objects"
    assert result["bbox"]["reason"] == "ground truth objects: 9; an interval needs at least 10"
    assert result["bbox"]["per_class"][str(DOG)]["AP"]["conclusion"] is None
    assert compare_average_precision(count({}), count({}))["bbox"]["AP"]["A"] is None


def test_other_images_or_another_ground_truth_raise_a_dataset_error():
    scenes = build_scenes(6)
    image_id = next(i for i, (truth, _) in scenes.items() if any(not e["iscrowd"] for e in truth))
    with pytest.raises(DatasetError, match=f"expected the same images in A and B, B lacks {image_id}"):
        compare_average_precision(count(scenes), count({i: s for i, s in scenes.items() if i != image_id}))
    with pytest.raises(DatasetError, match=f"image {image_id}: expected the same ground truth objects in A and B"):
        compare_average_precision(count(scenes), count(scenes | {image_id: ([], [])}))


def test_only_kinds_that_both_have_are_compared():
    scenes = build_scenes(7)
    assert [*compare_average_precision(count(scenes, ["segm"]), count(scenes), samples=5)] == ["segm"]
    assert compare_average_precision(count(scenes, ["segm"]), count(scenes, ["bbox"]), samples=5) == {}
