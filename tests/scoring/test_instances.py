"""AP from files, against pycocotools on the same files."""

import contextlib
import io
import json
import logging

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segkit.formats import coco
from segkit.scoring.instances import score_instances
from segkit.structures import Category, CategorySet, PanopticSegmentation, Segment, mask_to_rle
from segkit.utils.errors import DatasetError
from segkit.utils.process_pool import Shard

STATS = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
SIZE = (90, 120)
CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 2, "name": "car"}]


def rectangle(x, y, w, h):
    mask = np.zeros(SIZE, dtype=bool)
    mask[y : y + h, x : x + w] = True
    return mask


def make(folder, seed=0, images=40, name=lambda number: number):
    """ground_truth.json (polygons, RLE, runs as numbers, crowds) and results.json of images of random rectangles."""
    rng = np.random.default_rng(seed)
    ground_truth = {"images": [], "annotations": [], "categories": CATEGORIES}
    results = []
    for number in rng.permutation(images).tolist():
        image_id = name(number)
        ground_truth["images"].append(
            {"id": image_id, "file_name": f"{number}.jpg", "height": SIZE[0], "width": SIZE[1]}
        )
        for _ in range(rng.integers(0, 5)):
            x, y = int(rng.integers(0, 90)), int(rng.integers(0, 60))
            w, h = rng.integers(2, [120 - x, 90 - y]).tolist()
            rle = mask_to_rle(rectangle(x, y, w, h))
            runs = [x * SIZE[0] + y, *([h, SIZE[0] - h] * w)[:-1], 0]
            runs[-1] = SIZE[0] * SIZE[1] - sum(runs)
            outline = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            two = [[x, y, x + w, y, x + w, y + h], [x, y, x + 2, y, x + 2, y + h, x, y + h]]
            segmentation = [rle, {"size": [*SIZE], "counts": runs}, outline, two][rng.integers(4)]
            entry = {"image_id": image_id, "category_id": int(rng.choice([2, 7])), "bbox": [x, y, w, h]}
            annotation = {"id": len(ground_truth["annotations"]) + 1, "area": w * h, "segmentation": segmentation}
            ground_truth["annotations"].append(entry | annotation | {"iscrowd": int(rng.random() < 0.1)})
            for _ in range(rng.integers(0, 4)):
                dx, dy = rng.integers(0, 3, 2).tolist()
                mask = mask_to_rle(rectangle(x + dx, y + dy, w, h))
                score = float(rng.integers(1, 9)) / 8
                results.append(entry | {"bbox": [x + dx, y + dy, w, h + 0.5], "segmentation": mask, "score": score})
    write(folder / "ground_truth.json", ground_truth)
    write(folder / "results.json", results)
    return ground_truth, results


def write(path, content):
    path.write_text(json.dumps(content))


def reference(folder, iou_type, results="results.json"):
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = COCO(str(folder / "ground_truth.json"))
        scorer = COCOeval(ground_truth, ground_truth.loadRes(str(folder / results)), iou_type)
        scorer.evaluate()
        scorer.accumulate()
        scorer.summarize()
    return {name: value * 100 if value >= 0 else None for name, value in zip(STATS, scorer.stats, strict=True)}


def stats(folder, iou_type, results="results.json", **options):
    numbers = score_instances(
        folder / "ground_truth.json", folder / results, iou_types=(iou_type,), **options
    ).compute()
    return {name: numbers[iou_type][name] for name in STATS}


@pytest.mark.parametrize("seed", range(3))
def test_equals_pycocotools(tmp_path, seed):
    _, results = make(tmp_path, seed)
    write(tmp_path / "masks.json", [{k: v for k, v in one.items() if k != "bbox"} for one in results])
    assert stats(tmp_path, "bbox") == reference(tmp_path, "bbox")
    assert stats(tmp_path, "segm") == reference(tmp_path, "segm", "masks.json")
    assert stats(tmp_path, "bbox", "masks.json") == reference(tmp_path, "bbox", "masks.json")
    assert 0 < stats(tmp_path, "segm")["AP"] < 100


@pytest.mark.parametrize("name", [lambda number: number, lambda number: f"city_{number:03}"])
def test_shards_and_workers_and_string_ids(tmp_path, name):
    make(tmp_path, images=300, name=name)
    files = tmp_path / "ground_truth.json", tmp_path / "results.json"
    kinds = ("bbox", "segm", "boundary")
    whole = score_instances(*files, iou_types=kinds)
    assert len(whole) == 300
    done = []
    threads = score_instances(*files, iou_types=kinds, workers=2, progress=lambda *step: done.append(step))
    assert threads.compute() == whole.compute()
    assert (done[-1], len(done)) == ((300, 300), 3)
    parts = [score_instances(*files, iou_types=kinds, shard=Shard(index, 3)) for index in (3, 1, 2)]
    for part in parts[1:]:
        parts[0].merge(part)
    assert parts[0].compute() == whole.compute()


def test_an_empty_list_scores_zero(tmp_path):
    make(tmp_path)
    write(tmp_path / "results.json", [])
    numbers = score_instances(tmp_path / "ground_truth.json", tmp_path / "results.json").compute()
    assert numbers["bbox"]["AP"] == numbers["segm"]["AP"] == numbers["segm"]["AR-car"] == 0


def test_results_with_boxes_only(tmp_path, caplog):
    ground_truth, results = make(tmp_path)
    expected = stats(tmp_path, "bbox")
    write(tmp_path / "results.json", [{k: v for k, v in one.items() if k != "segmentation"} for one in results])
    with caplog.at_level(logging.WARNING):
        metric = score_instances(tmp_path / "ground_truth.json", tmp_path / "results.json")
    assert metric.iou_types == ("bbox",)
    assert "no result has a segmentation: only boxes are scored" in caplog.text
    with pytest.raises(DatasetError, match="expected results with a segmentation, none has one"):
        stats(tmp_path, "segm")
    # GroundTruth needs no masks then.
    for annotation in ground_truth["annotations"]:
        del annotation["segmentation"]
    write(tmp_path / "ground_truth.json", ground_truth)
    assert stats(tmp_path, "bbox") == expected


def test_results_of_some_categories(tmp_path):
    make(tmp_path)
    whole = score_instances(tmp_path / "ground_truth.json", tmp_path / "results.json").compute()
    dogs = CategorySet([Category(7, "hound", True, (0, 0, 0)), Category(9, "ox", True, (0, 0, 0))])
    some = score_instances(tmp_path / "ground_truth.json", tmp_path / "results.json", categories=dogs).compute()
    for iou_type in ("bbox", "segm"):
        assert some[iou_type]["AP-hound"] == some[iou_type]["AP"] == whole[iou_type]["AP-dog"]
        assert some[iou_type]["AP-ox"] is None


def test_all_problems_are_reported(tmp_path):
    ground_truth, results = make(tmp_path)
    write(tmp_path / "results.json", [*results[:3], results[3] | {"image_id": 999}, *results[4:]])
    with pytest.raises(
        DatasetError, match=r"results.json, result 3: expected an image_id of the ground truth .* got 999"
    ):
        stats(tmp_path, "bbox")
    for invalid_id in ([1], None, 1.5, True):
        write(tmp_path / "results.json", [results[0] | {"image_id": invalid_id}])
        with pytest.raises(DatasetError, match="result 0: expected `image_id` to be an integer or a string"):
            stats(tmp_path, "bbox")
    ids = sorted({one["image_id"] for one in results})
    first = {image_id: next(i for i, one in enumerate(results) if one["image_id"] == image_id) for image_id in ids}
    errors = [{"score": float("nan")}, {"category_id": 3}, {"bbox": [0, 0, 5]}, {"bbox": [0, 0, -5, 5]}]
    errors += [{"segmentation": {"size": [*SIZE], "counts": "1"}}, {"segmentation": None}]
    for image_id, invalid_fields in zip(ids, errors, strict=False):
        results[first[image_id]] |= invalid_fields
    write(tmp_path / "results.json", results)
    with pytest.raises(DatasetError) as raised:
        score_instances(tmp_path / "ground_truth.json", tmp_path / "results.json")
    message = str(raised.value)
    assert message.startswith("6 problems:\n- ")
    expected = ["`score` to be a finite number, got nan", "a category_id of `categories`", "`bbox` to be", "is it [x0"]
    expected += [
        "bad segmentation: RLE counts to add up to 10800 pixels, got 1",
        "`segmentation` to be a list or an object, got None",
    ]
    for image_id, words in zip(ids, expected, strict=False):
        bad, words = ("bad segmentation: ", words.split(": ")[1]) if words.startswith("bad ") else ("", words)
        assert f"image {image_id!r}, results[0]: {bad}expected " in message
        assert words in message
    with pytest.raises(DatasetError, match="2 problems found, the search stopped here"):
        score_instances(tmp_path / "ground_truth.json", tmp_path / "results.json", limit=2)
    ground_truth["annotations"][0]["area"] = -1
    write(tmp_path / "ground_truth.json", ground_truth)
    with pytest.raises(DatasetError, match=r"ground_truth.json, image .* expected `area` to be 0 or more"):
        stats(tmp_path, "bbox")


@pytest.mark.parametrize("iou_types", [(), "bbox", ("keypoints",)])
def test_other_iou_types_are_rejected(tmp_path, iou_types):
    make(tmp_path)
    with pytest.raises(ValueError, match="iou_types must be"):
        score_instances(tmp_path / "ground_truth.json", tmp_path / "results.json", iou_types=iou_types)


def panoptic(folder, images=3):
    """A panoptic JSON with PNGs of two things and one stuff; the instances of its things; results."""
    categories = CategorySet(Category(i, n, i != 9, (0, 0, 0)) for i, n in ((2, "car"), (7, "dog"), (9, "sky")))
    annotations, entries, instances, results = [], [], [], []
    for image_id in range(1, images + 1):
        segment_ids = np.zeros(SIZE, dtype=np.int32)
        segment_ids[:20] = 500
        segment_ids[30:60, 10 : 40 + image_id] = 3
        segment_ids[50:80, 50:90] = 4
        segments = [Segment(500, 9, False, 2400), Segment(3, 2, True, 1), Segment(4, 7, True, 1, iscrowd=image_id == 2)]
        found = PanopticSegmentation(segment_ids, tuple(segments))
        entries.append({"id": image_id, "file_name": f"{image_id}.jpg", "height": SIZE[0], "width": SIZE[1]})
        annotations.append(coco.build_panoptic_annotation(image_id, f"{image_id}.png", found))
        coco.write_png(folder / "pngs" / f"{image_id}.png", segment_ids)
        for segment in segments[1:]:
            mask = segment_ids == segment.segment_id
            ys, xs = np.nonzero(mask)
            box = [int(v) for v in (xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1)]
            entry = {"image_id": image_id, "category_id": segment.category_id, "bbox": box}
            rle = {"segmentation": mask_to_rle(mask), "area": int(mask.sum()), "iscrowd": int(segment.iscrowd)}
            instances.append(entry | rle)
            shifted = mask_to_rle(np.roll(mask, image_id, axis=1))
            results.append(entry | {"segmentation": shifted, "score": 1 / image_id, "iscrowd": 0})
    coco.write_panoptic(folder / "panoptic.json", entries, annotations, categories)
    coco.write_instances(folder / "ground_truth.json", entries, instances, CategorySet(categories.things))
    write(folder / "results.json", results)


def test_things_of_a_panoptic_ground_truth(tmp_path):
    panoptic(tmp_path)
    options = {"iou_types": ("bbox", "segm", "boundary"), "workers": 2}
    expected = score_instances(tmp_path / "ground_truth.json", tmp_path / "results.json", **options)
    found = score_instances(
        tmp_path / "panoptic.json", tmp_path / "results.json", gt_folder=tmp_path / "pngs", **options
    )
    assert found.compute() == expected.compute()
    assert 0 < found.compute()["segm"]["AP"] < 100
    with pytest.raises(DatasetError, match=r"no such folder of PNGs.*name the folder \(--gt-folder\)"):
        score_instances(tmp_path / "panoptic.json", tmp_path / "results.json")
    (tmp_path / "pngs" / "2.png").unlink()
    (tmp_path / "pngs" / "3.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"2 problems:\n- .*2.png.*\n- .*3.png"):
        score_instances(tmp_path / "panoptic.json", tmp_path / "results.json", gt_folder=tmp_path / "pngs")
