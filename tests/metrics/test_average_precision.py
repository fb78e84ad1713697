"""AP on hand-made boxes and masks, and against pycocotools run on files."""

import contextlib
import io
import json
import pickle

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segkit.metrics import AveragePrecision, average_precision, coco_matching
from segkit.metrics.boundary import boundary_dilation_px
from segkit.structures import Category, CategorySet, mask_to_rle, segmentation_to_rle
from segkit.utils.errors import DatasetError
from tests.helpers.coco_columns import ScoredImage, update, update_images

CAR, DOG, SKY = 3, 17, 90
NAMES = {DOG: "dog", CAR: "car", SKY: "sky"}
CATEGORIES = CategorySet(Category(i, name, i != SKY, (0, 0, 0)) for i, name in NAMES.items())
STATS = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
SIZE = (120, 160)


def annotation(x, y, w, h, category_id=CAR, size_hw=SIZE, **fields):
    """A rectangle as a COCO annotation; with `score`, as a result."""
    mask = np.zeros(size_hw, dtype=bool)
    mask[y : y + h, x : x + w] = True
    entry = {"category_id": category_id, "bbox": [x, y, w, h], "segmentation": mask_to_rle(mask), **fields}
    return entry if "score" in fields else {"area": w * h, "iscrowd": 0, **entry}


def score(ground_truth, results, iou_types=("bbox", "segm"), categories=CATEGORIES):
    metric = AveragePrecision(categories, iou_types)
    update(metric, 1, SIZE, ground_truth, results)
    return metric.compute()


def test_one_matched_one_missed_one_false_positive():
    ground_truth = [annotation(0, 0, 10, 10), annotation(50, 50, 10, 10)]
    results = [annotation(0, 0, 10, 10, score=0.9), annotation(100, 0, 10, 10, score=0.8)]
    # At every IoU precision is 1 up to recall 0.5 and 0 beyond: 51 of COCO's 101 recalls, 0.00 to 0.50, have 1.
    # Recall is 0.5; one detection per image suffices. All ground truth is small (100 px < 32^2); there are no dogs.
    ap = pytest.approx(100 * 51 / 101)
    expected = dict.fromkeys(STATS)
    expected |= dict.fromkeys(["AP", "AP50", "AP75", "APs", "AP-car"], ap) | {"AP-dog": None}
    expected |= dict.fromkeys(["AR1", "AR10", "AR100", "ARs", "AR-car"], pytest.approx(50)) | {"AR-dog": None}
    assert score(ground_truth, results) == {"bbox": expected, "segm": expected}


def test_box_and_mask_are_scored_apart():
    ground_truth = [annotation(0, 0, 10, 10)]
    result = annotation(0, 0, 10, 7, score=0.5) | {"bbox": [0, 0, 10, 10]}
    results = score(ground_truth, [result])
    # The box is perfect; the mask has IoU 0.7: found at 0.50, 0.55, 0.60 and 0.65, and at 0.70 (not strictly above).
    assert results["bbox"]["AP"] == pytest.approx(100)
    assert results["segm"]["AP"] == pytest.approx(50)
    assert (results["segm"]["AP50"], results["segm"]["AP75"]) == (pytest.approx(100), 0.0)


def test_size_classes_of_mask_results_are_by_mask_not_box():
    # True: 40 x 40 = 1600 px, medium. The false result's box is medium, its mask is small: for masks, it does not
    # count against the medium objects, though its score is higher.
    ground_truth = [annotation(0, 0, 40, 40)]
    false = annotation(100, 50, 10, 10, score=0.9) | {"bbox": [100, 50, 40, 40]}
    results = score(ground_truth, [annotation(0, 0, 40, 40, score=0.5), false])
    assert results["segm"]["APm"] == pytest.approx(100)
    assert results["bbox"]["APm"] == pytest.approx(50)


def test_the_first_annotation_counts_as_matched():
    # pycocotools would take annotation id 0 for "unmatched"; ids must start at 1.
    assert score([annotation(0, 0, 10, 10)], [annotation(0, 0, 10, 10, score=1)])["bbox"]["AP"] == pytest.approx(100)


def test_a_crowd_takes_any_number_of_results_and_is_never_missed():
    ground_truth = [annotation(0, 0, 20, 20), annotation(50, 50, 60, 60, iscrowd=1)]
    inside = [annotation(50 + 5 * i, 60, 10, 10, score=0.9) for i in range(5)]
    assert score(ground_truth, [*inside, annotation(0, 0, 20, 20, score=0.1)])["segm"]["AP"] == pytest.approx(100)


def test_the_ignore_field_is_not_read():
    assert score([annotation(0, 0, 10, 10, ignore=1)], [])["bbox"]["AP"] == 0.0


@pytest.mark.parametrize(("false_cars", "ar100"), [(99, 100), (100, 0)])
def test_the_hundred_best_results_per_class_count(false_cars, ar100):
    box = {"category_id": CAR, "bbox": [50, 50, 5, 5], "score": 0.9}
    results = [box] * false_cars + [box | {"category_id": DOG}] * 50 + [annotation(0, 0, 10, 10, score=0.1)]
    assert score([annotation(0, 0, 10, 10)], results, ["bbox"])["bbox"]["AR100"] == pytest.approx(ar100)


def test_only_things_are_scored():
    sky = annotation(0, 0, 20, 20, SKY)
    results = score([sky, annotation(0, 0, 10, 10)], [annotation(0, 0, 20, 20, SKY, score=1.0)])
    assert list(results["bbox"]) == [*STATS, "AP-car", "AP-dog", "AR-car", "AR-dog"]
    assert (results["bbox"]["AP"], results["bbox"]["AR100"]) == (0.0, 0.0)


def test_no_results_give_zero_and_no_ground_truth_none():
    no_results = score([annotation(0, 0, 10, 10)], [])
    no_truth = score([], [annotation(0, 0, 10, 10, score=0.5)])
    for iou_type in ("bbox", "segm"):
        assert (no_results[iou_type]["AP"], no_results[iou_type]["APl"]) == (0.0, None)
        assert (no_results[iou_type]["AP-car"], no_results[iou_type]["AP-dog"]) == (0.0, None)
        assert set(no_truth[iou_type].values()) == {None}


def test_no_ground_truth_and_no_results_give_none():
    stuff = CategorySet([CATEGORIES[SKY]])
    for results in (score([], []), AveragePrecision(CATEGORIES).compute(), score([], [], categories=stuff)):
        assert {value for one in results.values() for value in one.values()} == {None}


def test_an_empty_mask_is_a_false_result():
    empty = annotation(0, 0, 0, 0, score=0.9)
    # The false one comes first: precision 1/2 at every recall.
    results = score([annotation(0, 0, 10, 10)], [annotation(0, 0, 10, 10, score=0.5), empty], ["segm"])
    assert results["segm"]["AP"] == pytest.approx(50)


def test_equal_scores_in_different_images_are_ordered_by_image():
    ground_truth, hit, miss = (
        annotation(0, 0, 10, 10),
        annotation(0, 0, 10, 10, score=0.5),
        annotation(50, 50, 9, 9, score=0.5),
    )
    metric = AveragePrecision(CATEGORIES, ["bbox"])
    update(metric, 20, SIZE, [], [miss])
    update(metric, 3, SIZE, [ground_truth], [hit])
    # Hit first: precision 1 at every recall; miss first: 1/2. Ascending ids put image 3 first.
    assert metric.compute()["bbox"]["AP"] == pytest.approx(100)
    assert metric.compute([20, 3])["bbox"]["AP"] == pytest.approx(50)


def test_prints_nothing(capsys):
    score([annotation(0, 0, 10, 10)], [annotation(0, 0, 10, 10, score=1)])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": float("nan")}, "expected `score` to be a finite number, got nan"),
        ({"score": float("inf")}, "expected `score` to be a finite number, got inf"),
        ({"score": "0.5"}, "expected `score` to be an integer or a number, got '0.5'"),
        ({"category_id": 4}, "expected a category_id of `categories` .*, got 4"),
        ({"category_id": [3]}, "expected `category_id` to be an integer"),
        ({"bbox": [1, 2, 3]}, "expected `bbox` to be \\[x, y, width, height\\] in pixels, got \\[1, 2, 3\\]"),
        ({"bbox": [1, 2, 3, float("nan")]}, "expected `bbox`"),
        ({"bbox": None}, "expected `bbox`"),
        ({"iscrowd": 2}, "expected `iscrowd` to be 0 or 1, got 2"),
        (
            {"segmentation": [[0, 0, 5, 0, 5, 5]]},
            "expected a segmentation in run lengths .* got polygons; convert polygons",
        ),
        ({"segmentation": None}, "expected `segmentation` to be a list or an object, got None"),
        ({"segmentation": {"size": [*SIZE]}}, "expected RLE counts to be run lengths"),
        (
            {"segmentation": mask_to_rle(np.ones((160, 120), bool))},
            "expected RLE with a size of \\[120, 160\\], got \\[160, 120\\]",
        ),
        ({"segmentation": {"size": [*SIZE], "counts": "04"}}, "expected RLE counts to add up to 19200 pixels, got 4"),
        (
            {"segmentation": {"size": [*SIZE], "counts": ""}},
            "expected RLE counts to be run lengths, but counts are empty",
        ),
        ({"segmentation": {"size": [*SIZE], "counts": "0P"}}, "counts are cut off"),
        ({"segmentation": {"size": [*SIZE], "counts": "\x00~"}}, "hold other characters"),
        ({"segmentation": {"size": [*SIZE], "counts": "0O1"}}, "negative run"),
        ({"segmentation": {"size": [*SIZE], "counts": "PPPPPPP0"}}, "beyond 32 bits"),
        ({"segmentation": {"size": [*SIZE], "counts": [3, -1]}}, "expected RLE counts to be run lengths"),
    ],
)
def test_bad_results_are_rejected_with_their_position_and_not_added(change, message):
    good, bad = annotation(0, 0, 5, 5, score=0.5), annotation(0, 0, 5, 5, score=0.5) | change
    metric = AveragePrecision(CATEGORIES)
    with pytest.raises(DatasetError, match=f"^image 'x', results\\[1\\]: .*{message}"):
        update(metric, "x", SIZE, [], [good, bad])
    update(metric, "x", SIZE, [annotation(0, 0, 5, 5)], [good])
    assert metric.compute()["segm"]["AP"] == pytest.approx(100)


def test_bad_ground_truth_is_rejected():
    metric = AveragePrecision(CATEGORIES)
    with pytest.raises(
        DatasetError, match=r"^image 5, ground truth\[0\]: expected `area` to be an integer or a number, got None"
    ):
        update(metric, 5, SIZE, [annotation(0, 0, 5, 5, area=None)], [])
    with pytest.raises(DatasetError, match=r"ground truth\[0\]: expected an object"):
        update(metric, 5, SIZE, ["car"], [])
    with pytest.raises(ValueError, match="size_hw"):
        update(metric, 5, (0, 4), [], [])


def test_fields_that_are_not_scored_may_be_absent():
    box = {"category_id": CAR, "bbox": (0.0, 0.0, 5.5, 5.5), "area": 30.25}
    assert score([box], [box | {"score": 1.0}], ["bbox"])["bbox"]["AP"] == pytest.approx(100)
    mask = {key: value for key, value in annotation(0, 0, 5, 5, score=1.0).items() if key != "bbox"}
    assert score([mask | {"area": 25}], [mask], ["segm"])["segm"]["AP"] == pytest.approx(100)


def test_uncompressed_rle_and_bytes_and_numpy_are_read():
    ground_truth, result = (
        annotation(0, 0, 5, 5, size_hw=(5, 6)),
        annotation(0, 0, 5, 5, size_hw=(5, 6), score=np.float32(0.5)),
    )
    ground_truth["segmentation"] = {"size": [5, 6], "counts": [0, 25, 5]}
    result["segmentation"] = coco_mask.encode(np.asfortranarray(coco_mask.decode(result["segmentation"])))
    result["bbox"] = np.array([0, 0, 5, 5], dtype=np.float32)
    metric = AveragePrecision(CATEGORIES)
    update(metric, np.int64(1), (5, 6), [ground_truth], [result])
    assert metric.compute()["segm"]["AP"] == metric.compute()["bbox"]["AP"] == pytest.approx(100)


@pytest.mark.parametrize("iou_types", [(), ("keypoints",), "bbox"])
def test_other_iou_types_are_rejected(iou_types):
    with pytest.raises(ValueError, match="iou_types must be"):
        AveragePrecision(CATEGORIES, iou_types)


def test_two_things_of_one_name_are_rejected():
    with pytest.raises(DatasetError, match="distinct names of things, got \\['car'\\]"):
        AveragePrecision(CategorySet([Category(i, "car", True, (0, 0, 0)) for i in (1, 2)]))


# Against the reference


def scenes(seed, images=14):
    """image_id -> (ground truth, results) with crowds, ties, missed and false results, all three sizes; ids not
    ascending."""
    rng = np.random.default_rng(seed)
    scored = {}
    for image_id in rng.permutation(1000)[:images].tolist():
        ground_truth, results = [], []
        for _ in range(rng.integers(0, 7)):
            x, y = rng.integers(0, [110, 90]).tolist()
            w, h = rng.integers(3, rng.choice([12, 60, 159], size=2)).clip(max=[160 - x, 120 - y]).tolist()
            category_id = int(rng.choice([CAR, DOG]))
            ground_truth.append(annotation(x, y, w, h, category_id, iscrowd=int(rng.random() < 0.15)))
            for _ in range(rng.integers(0, 3)):
                dx, dy = rng.integers(0, 3, size=2).tolist()
                result = annotation(x + dx, y + dy, w, h, category_id, score=float(rng.integers(1, 9)) / 8)
                results.append(result | {"bbox": [x + dx + float(rng.normal()), y + dy, w + 0.3, h]})
        scored[image_id] = (ground_truth, results)
    return scored


def build_metric(images, iou_types=("bbox", "segm")):
    metric = AveragePrecision(CATEGORIES, iou_types)
    for image_id, (ground_truth, results) in images.items():
        update(metric, image_id, SIZE, ground_truth, results)
    return metric


def reference(images, iou_type, folder):
    """COCOeval on a ground truth file and a results file, called as Detectron2 does (no bbox in mask results)."""
    dataset = {
        "images": [{"id": image_id, "height": SIZE[0], "width": SIZE[1]} for image_id in images],
        "categories": [{"id": c.category_id, "name": c.name} for c in CATEGORIES.things],
        "annotations": [
            entry | {"image_id": image_id} for image_id, (ground_truth, _) in images.items() for entry in ground_truth
        ],
    }
    for annotation_id, entry in enumerate(dataset["annotations"], 1):
        entry["id"] = annotation_id
    detections = [entry | {"image_id": image_id} for image_id, (_, results) in images.items() for entry in results]
    if iou_type == "segm":
        detections = [{key: value for key, value in entry.items() if key != "bbox"} for entry in detections]
    (folder / "ground_truth.json").write_text(json.dumps(dataset))
    (folder / "results.json").write_text(json.dumps(detections))
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = COCO(str(folder / "ground_truth.json"))
        scorer = COCOeval(ground_truth, ground_truth.loadRes(str(folder / "results.json")), iou_type)
        scorer.evaluate()
        scorer.accumulate()
        scorer.summarize()
    expected = {name: value * 100 if value >= 0 else None for name, value in zip(STATS, scorer.stats, strict=True)}
    for index, category in enumerate(CATEGORIES.things):
        expected[f"AP-{category.name}"] = np.mean(scorer.eval["precision"][:, :, index, 0, -1]) * 100
        expected[f"AR-{category.name}"] = np.mean(scorer.eval["recall"][:, index, 0, -1]) * 100
    return expected


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_equals_pycocotools_on_files(seed, iou_type, tmp_path):
    images = scenes(seed)
    results = build_metric(images).compute()[iou_type]
    assert results == reference(images, iou_type, tmp_path)
    assert 0 < results["AP"] < 100


def test_merged_shards_in_any_order_equal_one_pass():
    images = scenes(seed=11)
    one_pass = build_metric(images)
    rng = np.random.default_rng(0)
    for _ in range(5):
        order = rng.permutation(list(images)).tolist()
        merged = build_metric({i: images[i] for i in order[:5]})
        merged.merge(build_metric({i: images[i] for i in order[5:]}))
        assert merged.compute() == one_pass.compute()
        assert merged.compute([*images]) == one_pass.compute([*images])
    with pytest.raises(DatasetError, match="in both"):
        merged.merge(one_pass)
    with pytest.raises(ValueError, match="same categories and iou_types"):
        merged.merge(AveragePrecision(CATEGORIES, ["bbox"]))


def test_kinds_of_iou_that_were_counted_apart_are_joined():
    images = scenes(seed=3)
    boxes = build_metric(images, ["bbox"])
    boxes.add_iou_types(build_metric(dict(sorted(images.items())), ["boundary", "segm"]))  # in another order of images
    assert boxes.iou_types == ("bbox", "boundary", "segm")
    whole = build_metric(images, ["bbox", "segm", "boundary"])
    assert boxes.compute() == whole.compute()
    assert boxes.compute([*images]) == whole.compute([*images])
    extra = build_metric({max(images) + 1: next(iter(images.values()))}, boxes.iou_types)
    boxes.merge(extra)
    whole.merge(extra)
    assert AveragePrecision.from_state(*boxes.state()).compute() == whole.compute()


def test_kinds_of_other_images_or_objects_are_not_joined():
    images = scenes(seed=3)
    metric = build_metric(images, ["bbox"])
    with pytest.raises(ValueError, match="both have bbox"):
        metric.add_iou_types(build_metric(images, ["bbox", "segm"]))
    image_id = next(i for i, (ground_truth, _) in images.items() if any(not e["iscrowd"] for e in ground_truth))
    for other in ({i: pair for i, pair in images.items() if i != image_id}, images | {-1: ([], [])}):
        with pytest.raises(ValueError, match="the same categories and images"):
            metric.add_iou_types(build_metric(other, ["segm"]))
    with pytest.raises(ValueError, match="the same ground truth objects"):
        metric.add_iou_types(build_metric(images | {image_id: ([], [])}, ["segm"]))
    assert metric.compute() == build_metric(images, ["bbox"]).compute()


def test_string_image_ids_and_pickling():
    images = scenes(seed=5)
    named = {f"city_{image_id:04}": pair for image_id, pair in images.items()}
    metric = pickle.loads(pickle.dumps(build_metric(named)))
    assert metric.compute() == build_metric(images).compute()
    mixed = build_metric({image_id if image_id % 2 else str(image_id): pair for image_id, pair in images.items()})
    assert mixed.compute([i if i % 2 else str(i) for i in sorted(images)]) == build_metric(images).compute()
    assert mixed.compute()["bbox"]["AP"] is not None


def test_entries_of_the_caller_are_not_modified():
    images = scenes(seed=6, images=4)
    before = json.dumps(list(images.values()))
    metric = build_metric(images)
    assert metric.compute() == metric.compute()
    assert json.dumps(list(images.values())) == before


# Both libraries, to the last bit

BOTH = pytest.mark.parametrize("fast", [True, False], ids=["ultrafast", "pycocotools"])
ALL_IOU_TYPES = ("bbox", "segm", "boundary")


@pytest.fixture
def choose_library(monkeypatch):
    """Sets the library of a test: `chosen(True)` is the fast one."""

    def choose(fast):
        if fast and coco_matching.ultrafast is None:
            pytest.skip("ultrafast-pycocotools is not installed")
        monkeypatch.setattr(coco_matching, "ULTRAFAST", fast)

    return choose


def compute_with(fast, images, iou_types=ALL_IOU_TYPES, categories=CATEGORIES, order=None):
    """The metrics computed with this library; `images`: image_id -> (size_hw, ground truth, results)."""
    before, coco_matching.ULTRAFAST = coco_matching.ULTRAFAST, fast and coco_matching.ultrafast is not None
    try:
        metric = AveragePrecision(categories, iou_types)
        update_images(metric, [ScoredImage(image_id, *image) for image_id, image in images.items()])
        return metric.compute(order)
    finally:
        coco_matching.ULTRAFAST = before


@st.composite
def small_scenes(draw):
    """(categories, image_id -> (size_hw, ground truth, results)): crowds, equal scores, negative and large ids, empty
    images, boxes and declared areas that are not the masks', polygons that leave the image."""
    ids = draw(st.lists(st.integers(-5, 10**12), min_size=1, max_size=4, unique=True))
    categories = CategorySet(Category(i, f"c{i}", True, (0, 0, 0)) for i in ids)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    image_ids = draw(st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=5, unique=True))
    images = {}
    for image_id in image_ids:
        size_hw = tuple(rng.integers(1, [150, 120]).tolist())
        ground_truth = [entry(rng, size_hw, ids) for _ in range(rng.integers(0, 5))]
        changed_ground_truth = [
            entry_ | {"category_id": int(rng.choice(ids))} if rng.random() < 0.1 else entry_ for entry_ in ground_truth
        ]
        results = [entry(rng, size_hw, ids, changed_ground_truth) for _ in range(rng.integers(0, 9))]
        images[image_id] = size_hw, ground_truth, results
    return categories, images


def entry(rng, size_hw, ids, ground_truth=None):
    """An annotation; with `ground_truth` a result, half of which overlap a ground truth annotation."""
    mask = np.zeros(size_hw, dtype=bool)
    y, x = (int(rng.integers(0, length)) for length in size_hw)
    h, w = (int(rng.integers(0, length + 1)) for length in size_hw)
    mask[y : y + h, x : x + w] = True
    if rng.random() < 0.3:
        mask &= rng.random(size_hw) < 0.7
    box = [float(x), float(y), float(w), float(h)]
    shape = {"bbox": box, "segmentation": mask_to_rle(mask)}
    if ground_truth is None:
        if rng.random() < 0.3:
            shape["segmentation"] = [rng.uniform(-9, max(size_hw) + 9, 2 * rng.integers(3, 7)).round(2).tolist()]
        area = float(rng.choice([w * h, rng.integers(0, 12000)]))
        return {"category_id": int(rng.choice(ids)), "iscrowd": int(rng.random() < 0.2), "area": area, **shape}
    if ground_truth and rng.random() < 0.5:
        annotation = ground_truth[rng.integers(len(ground_truth))]
        moved = np.add(annotation["bbox"], rng.choice([0, 0, 1, 2.5], 4)).tolist()
        rle = segmentation_to_rle(annotation["segmentation"], size_hw)
        shape = {"bbox": moved, "segmentation": rle}
        return {"category_id": annotation["category_id"], "score": float(rng.choice([0.25, 0.5, 0.75])), **shape}
    return {"category_id": int(rng.choice(ids)), "score": float(rng.choice([0.0, 0.5, 1.0, rng.random()])), **shape}


def reference_in_memory(categories, images, iou_type):
    """pycocotools in memory; mask results have no boxes, as in Detectron2."""
    segmentation_key = {"bbox": "bbox", "segm": "segmentation"}[iou_type]
    sizes = [{"id": i, "height": size[0], "width": size[1]} for i, (size, _, _) in images.items()]
    ground_truths = [one | {"image_id": i} for i, (_, ground_truth, _) in images.items() for one in ground_truth]
    detections = [
        {
            "image_id": i,
            "category_id": one["category_id"],
            "score": one["score"],
            segmentation_key: one[segmentation_key],
        }
        for i, (_, _, results) in images.items()
        for one in results
    ]
    names = [{"id": c.category_id, "name": c.name} for c in categories.things]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        annotations = [one | {"id": number} for number, one in enumerate(ground_truths, 1)]
        coco.dataset = {"info": {}, "images": sizes, "annotations": annotations, "categories": names}
        coco.createIndex()
        scorer = COCOeval(coco, coco.loadRes(json.loads(json.dumps(detections))), iou_type)
        scorer.evaluate()
        scorer.accumulate()
        scorer.summarize()
    expected = dict(zip(STATS, scorer.stats, strict=True))
    for kind, values in (("AP", scorer.eval["precision"][:, :, :, 0, -1]), ("AR", scorer.eval["recall"][..., 0, -1])):
        for index, category in enumerate(categories.things):
            one = values[..., index][values[..., index] > -1]
            expected[f"{kind}-{category.name}"] = np.mean(one) if one.size else -1
    return {name: value * 100 if value >= 0 else None for name, value in expected.items()}


@settings(max_examples=60, deadline=None)
@given(small_scenes())
def test_equals_pycocotools_on_random_scenes(scene):
    categories, images = scene
    fast = compute_with(True, images, categories=categories)
    assert fast == compute_with(False, images, categories=categories)
    if any(results for _, _, results in images.values()):
        for iou_type in ("bbox", "segm"):
            assert fast[iou_type] == reference_in_memory(categories, images, iou_type)


@settings(max_examples=30, deadline=None)
@given(small_scenes(), st.randoms(use_true_random=False))
def test_order_ids_and_shards_change_no_bit(scene, random):
    """Bit-equal for any order of images, split and merge, and for ids renamed in the same order (image
    ids settle ties between images; category ids the order in which classes are added up)."""
    categories, images = scene
    expected = compute_with(True, images, categories=categories)
    shuffled = random.sample(list(images), len(images))
    assert compute_with(True, {i: images[i] for i in shuffled}, categories=categories) == expected
    rank = {image_id: f"{place:03}" for place, image_id in enumerate(sorted(images))}
    assert compute_with(True, {rank[i]: images[i] for i in shuffled}, categories=categories) == expected
    cut = random.randrange(len(images) + 1)
    shards = [AveragePrecision(categories, ALL_IOU_TYPES) for _ in range(3)]
    for number, image_id in enumerate(shuffled):
        update(shards[number >= cut], image_id, *images[image_id])
    random.shuffle(shards)
    saved = [AveragePrecision.from_state(*through_npz(*shard.state())) for shard in shards]
    for group in (shards, saved):
        merged = AveragePrecision(categories, ALL_IOU_TYPES)
        for shard in group:
            merged.merge(shard)
        assert merged.compute() == expected
        assert len(merged) == len(images)


def through_npz(header, arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    file.seek(0)
    with np.load(file, allow_pickle=False) as loaded:
        return json.loads(json.dumps(header)), {name: loaded[name] for name in arrays}


@given(small_scenes())
@settings(max_examples=15, deadline=None)
def test_more_results_than_count(scene):
    """The hundred best per class and image: with and without ground truth of the class."""
    categories, images = scene
    many = {i: (size, ground_truth, results * 40) for i, (size, ground_truth, results) in images.items()}
    fast = compute_with(True, many, ("bbox",), categories)
    assert fast == compute_with(False, many, ("bbox",), categories)
    if any(results for _, _, results in many.values()):
        assert fast["bbox"] == reference_in_memory(categories, many, "bbox")


@BOTH
def test_boundary_iou_by_hand(fast, choose_library):
    choose_library(fast)
    # 100 x 100 pixels: boundaries are round(0.02 * 141.4) = 3 px wide. True: 40 x 40, boundary 1600 - 34^2 = 444 px.
    # The result lacks the inner 20 x 20 (at distance 10 from the edge): mask IoU 1200 / 1600 = 0.75. Its boundary is
    # the same ring and 3 px around the hole, 26^2 - 20^2 = 276: boundary IoU 444 / 720 = 0.617 and so is the smaller.
    whole = np.zeros((100, 100), dtype=bool)
    whole[10:50, 10:50] = True
    ring = whole.copy()
    ring[20:40, 20:40] = False
    ground_truth = {"category_id": CAR, "area": 1600, "segmentation": mask_to_rle(whole)}
    result = {"category_id": CAR, "score": 0.5, "segmentation": mask_to_rle(ring)}
    metric = AveragePrecision(CATEGORIES, ["segm", "boundary"])
    update(metric, 1, (100, 100), [ground_truth], [result])
    numbers = metric.compute()
    assert numbers["segm"]["AR100"] == pytest.approx(60)  # found at 0.50 ... 0.75
    assert numbers["boundary"]["AR100"] == pytest.approx(30)  # found at 0.50, 0.55 and 0.60


@BOTH
def test_a_crowd_is_compared_by_its_mask_alone(fast, choose_library):
    choose_library(fast)
    # The result is far inside the crowd: their boundaries do not meet, but it is still ignored.
    crowd, inside = annotation(0, 0, 100, 100, iscrowd=1), annotation(40, 40, 20, 20, score=0.9)
    found = [annotation(110, 0, 20, 20), annotation(110, 0, 20, 20, score=0.5)]
    assert score([crowd, found[0]], [inside, found[1]], ["boundary"])["boundary"]["AP"] == pytest.approx(100)


@pytest.mark.skipif(coco_matching.ultrafast is None, reason="ultrafast-pycocotools is not installed")
@pytest.mark.parametrize("size_hw", [(1, 1), (1, 40), (24, 7), (25, 25), (31, 67), (125, 125), (333, 91)])
def test_the_libraries_agree_on_boundaries_of_all_widths(size_hw):
    rng = np.random.default_rng(0)
    images = {}
    for image_id in range(6):
        mask = cv2.blur(rng.random(size_hw), (9, 9)) > 0.48
        ground_truth = [{"category_id": CAR, "area": int(mask.sum()), "segmentation": mask_to_rle(mask)}]
        other = mask ^ (rng.random(size_hw) < 0.02)
        images[image_id] = (
            size_hw,
            ground_truth,
            [{"category_id": CAR, "score": 0.5, "segmentation": mask_to_rle(other)}],
        )
    assert compute_with(True, images, ["boundary"]) == compute_with(False, images, ["boundary"])


def test_the_matching_library_is_reported(monkeypatch):
    monkeypatch.setattr(coco_matching, "ULTRAFAST", True)
    assert coco_matching.get_library_name() == "ultrafast_pycocotools"
    monkeypatch.setattr(coco_matching, "ULTRAFAST", False)
    assert coco_matching.get_library_name() == "pycocotools"


def test_masks_and_boxes_are_not_kept():
    metric = AveragePrecision(CATEGORIES, ["bbox", "segm"])
    ground_truth, results = [annotation(0, 0, 10, 10)] * 7, [annotation(0, 0, 10, 10, score=0.5)] * 60
    update(metric, -1, SIZE, ground_truth, results)
    sizes = []
    for image_id in range(3 * average_precision.IMAGES_AT_ONCE - 1):
        update(metric, image_id, SIZE, ground_truth, results)
        if not metric._waiting:
            sizes.append(len(pickle.dumps(metric)))
    # 27 bytes a result and IoU type, and a little for each image and array.
    per_image = (sizes[-1] - sizes[0]) / (2 * average_precision.IMAGES_AT_ONCE)
    assert len(sizes) == 3
    assert per_image < 2 * 60 * 27 + 60


def test_update_images_adds_all_or_nothing():
    good = ScoredImage(1, SIZE, [annotation(0, 0, 10, 10)], [annotation(0, 0, 10, 10, score=0.5)])
    bad = good._replace(image_id=2, results=[annotation(0, 0, 10, 10, score=float("nan"))])
    metric = AveragePrecision(CATEGORIES)
    update(metric, 7, SIZE, [], [])
    with pytest.raises(DatasetError, match=r"^image 2, results\[0\]: expected `score` to be a finite number"):
        update_images(metric, [good, bad])
    with pytest.raises(DatasetError, match="image 1"):
        update_images(metric, [good, good])
    with pytest.raises(DatasetError, match="got 7 in both"):
        update_images(metric, [good, good._replace(image_id=7)])
    update_images(metric, [])
    update_images(metric, [good])
    assert len(metric) == 2
    assert metric.compute()["segm"]["AP"] == pytest.approx(100)


def test_boxes_from_masks():
    # COCO.loadRes: the box around the mask, sized by the mask's area. Of 40 x 40 = 1600 px (medium) 900 are left
    # (small): the false result in front does not count against the medium object.
    hollow = np.zeros(SIZE, dtype=bool)
    hollow[60:100, 60:100] = True
    hollow[61:99, 61:79] = False
    results = [
        {"category_id": CAR, "score": 0.9, "segmentation": mask_to_rle(hollow)},
        {"category_id": CAR, "score": 0.5, "segmentation": annotation(0, 0, 40, 40)["segmentation"]},
    ]
    for iou_types in (["bbox"], ["bbox", "segm"]):
        metric = AveragePrecision(CATEGORIES, iou_types)
        update_images(metric, [ScoredImage(1, SIZE, [annotation(0, 0, 40, 40)], results)], boxes_from_masks=True)
        numbers = metric.compute()["bbox"]
        assert (numbers["APm"], numbers["AP50"]) == (pytest.approx(100), pytest.approx(50))
    assert hollow.sum() < 32**2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"segmentation": []}, "expected .* or RLE of size and counts, got an empty one"),
        ({"segmentation": [[0, 0, 5, 5]]}, "expected RLE or polygons of three or more points, got none"),
        (
            {"segmentation": [[0, 0, 5, 5, 1, 2, 3]]},
            "expected three or more pairs of x and y in a polygon, got 7 numbers",
        ),
        ({"segmentation": [[0, 0, 5, 5, 1, 2e6]]}, "expected polygons within 1e\\+06 pixels"),
        ({"segmentation": [[0, 0, 5, 5, 1, float("nan")]]}, "expected every polygon to be a list of x and y"),
        ({"segmentation": ["abcdef"]}, "expected every polygon to be a list of x and y"),
        ({"bbox": [0, 0, -1, 5]}, "expected `bbox` .*, got \\[0, 0, -1, 5\\]; is it"),
        ({"area": 10**400}, "expected `area` to be a finite number"),
    ],
)
def test_bad_ground_truth_gives_clear_messages(change, message):
    with pytest.raises(DatasetError, match=f"^image 1, ground truth\\[1\\]: .*{message}"):
        score([annotation(0, 0, 5, 5), annotation(0, 0, 5, 5) | change], [])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda h, a: h.pop("options"),
        lambda h, a: h.update(categories=5),
        lambda h, a: h.update(options={"iou_types": ["keypoints"]}),
        lambda h, a: h.update(image_ids=[1]),
        lambda h, a: a.pop("segm_tp"),
        lambda h, a: a.update(segm_score=a["segm_score"][1:]),
        lambda h, a: a.update(objects_number=a["objects_number"][1:]),
        lambda h, a: a.update(bbox_thing=a["bbox_thing"] + np.int32(9)),
        lambda h, a: a.update(bbox_fp=a["bbox_fp"].astype(np.int64)),
    ],
)
def test_states_of_other_metrics_are_rejected(spoil):
    header, arrays = build_metric(scenes(seed=3)).state()
    spoil(header, arrays)
    with pytest.raises(DatasetError, match="expected saved counts of average precision"):
        AveragePrecision.from_state(header, arrays)


@pytest.mark.parametrize("ultrafast", [True, False])
@pytest.mark.parametrize(("size_hw", "width_px"), [((375, 500), 12), ((500, 375), 12), ((405, 540), 14)])
def test_half_a_pixel_of_boundary_is_rounded_to_even(size_hw, width_px, ultrafast, monkeypatch):
    """Diagonals of 625 and 675 pixels make boundaries of 12.5 and 13.5: Python, hence the reference, has 12 and 14."""
    if ultrafast and not coco_matching.ULTRAFAST:
        pytest.skip("ultrafast-pycocotools is not installed: only the fallback is tested")
    monkeypatch.setattr(coco_matching, "ULTRAFAST", ultrafast)
    assert boundary_dilation_px(size_hw) == width_px
    mask = np.zeros(size_hw, dtype=np.bool_)
    mask[50:250, 50:250] = True
    result_mask = mask.copy()
    result_mask[50:57] = False
    inner = [one & ~_eroded(one, width_px) for one in (mask, result_mask)]
    iou = min(
        (mask & result_mask).sum() / (mask | result_mask).sum(),
        (inner[0] & inner[1]).sum() / (inner[0] | inner[1]).sum(),
    )
    metric = AveragePrecision(CategorySet([Category(1, "thing", True, (0, 0, 0))]), ("boundary",))
    ground_truth = [{"category_id": 1, "area": int(mask.sum()), "iscrowd": 0, "segmentation": mask_to_rle(mask)}]
    update(
        metric, 1, size_hw, ground_truth, [{"category_id": 1, "score": 1.0, "segmentation": mask_to_rle(result_mask)}]
    )
    thresholds = np.linspace(0.5, 0.95, 10)
    assert metric.compute()["boundary"]["AP"] == pytest.approx(100 * (thresholds <= iou).mean())


def _eroded(mask, distance_px):
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    return cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=distance_px)[1:-1, 1:-1] > 0


@pytest.mark.parametrize(
    "wrong", [{"score": True}, {"category_id": True}, {"bbox": [True, 1, 2, 3]}, {"bbox": [1e308] * 4}]
)
def test_booleans_and_infinite_boxes_are_rejected(wrong):
    metric = AveragePrecision(CategorySet([Category(1, "thing", True, (0, 0, 0))]), ("bbox",))
    with pytest.raises(DatasetError, match=r"image 1, results\[0\]: expected "):
        update(metric, 1, (9, 9), [], [{"category_id": 1, "score": 0.5, "bbox": [0, 0, 3, 3], **wrong}])
