"""AP of resampled images, and whether one set of results is better than another."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segkit.metrics import AveragePrecision, average_precision_comparison
from segkit.metrics.average_precision_comparison import NAMES, compare_average_precision
from segkit.metrics.comparison import resample_images
from segkit.structures import Category, CategorySet, mask_to_rle
from segkit.utils.errors import DatasetError
from tests.helpers.coco_columns import update

CAR, DOG, SKY = 3, 17, 90
CATEGORIES = CategorySet(Category(i, str(i), i != SKY, (0, 0, 0)) for i in (CAR, DOG, SKY))
SIZE_HW = (200, 200)


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
            w, h = rng.integers(*((5, 30), (34, 90), (97, 130))[rng.integers(3)], 2).tolist()
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


def evaluate_with_pycocotools(scenes, times, iou_type):
    """AP, AP50, AP75, APs, APm, APl of scenes that occur so many times, every time under an image id of its own."""
    images, annotations, results = [], [], []
    for number, (ground_truth, found) in zip(times, (scenes[image_id] for image_id in sorted(scenes)), strict=True):
        for _ in range(number):
            image_id = len(images) + 1
            images.append({"id": image_id, "height": SIZE_HW[0], "width": SIZE_HW[1]})
            annotations += [
                e | {"id": len(annotations) + i, "image_id": image_id} for i, e in enumerate(ground_truth, 1)
            ]
            results += [e | {"image_id": image_id} for e in found]
    if iou_type == "segm":  # loadRes would size them by their boxes
        results = [{key: value for key, value in result.items() if key != "bbox"} for result in results]
    categories = [{"id": i, "name": str(i)} for i in (CAR, DOG)]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {"images": images, "annotations": annotations, "categories": categories}
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return 100 * evaluation.stats[:6]


@pytest.mark.parametrize("seed", range(3))
def test_a_resampled_difference_is_that_of_pycocotools_on_the_resampled_images(seed):
    """Of one resample, both ends of the interval are its difference."""
    scenes = build_scenes(seed, images=30)
    fewer = drop_results(scenes, 0.4, seed)
    compared = compare_average_precision(count(fewer), count(scenes), samples=1, seed=seed)
    times = resample_images(len(scenes), lambda weights: weights, samples=1, seed=seed)[0].astype(int).tolist()
    assert max(times) >= 3, "images that are drawn several times"
    for iou_type in ("bbox", "segm"):
        a, b = (evaluate_with_pycocotools(each, times, iou_type) for each in (fewer, scenes))
        assert [compared[iou_type][name]["low"] for name in NAMES] == pytest.approx((b - a).tolist(), abs=1e-9)
        assert np.abs(b - a).min() > 0.1


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
