"""Scores of label files equal those of the same maps in memory; errors of files that cannot be scored."""

import json

import numpy as np
import pytest
from PIL import Image

from segkit.formats import png
from segkit.formats.coco import PanopticWriter
from segkit.metrics import SemanticIoU
from segkit.scoring import label_sources
from segkit.scoring.semantic import describe_void_label, score_semantic
from segkit.structures import Category, CategorySet, PanopticSegmentation, Segment, mask_to_rle
from segkit.utils.errors import DatasetError
from segkit.utils.process_pool import Shard

NAMES = ("road", "sky", "car")
CATEGORIES = CategorySet(
    [
        Category(7, "road", False, (0, 0, 0)),
        Category(23, "sky", False, (0, 0, 1)),
        Category(26, "car", True, (0, 0, 2)),
    ]
)
IDS = np.array([7, 23, 26])
IMAGES = [f"{city}/{city}_{number}" for city in ("aachen", "bonn") for number in range(3)]


def some_maps(seed=0, size_hw=(20, 30)):
    """{name: (ground truth with ignored pixels, prediction)}, channels 0..2 and 255."""
    rng = np.random.default_rng(seed)
    maps = {}
    for name in IMAGES:
        ground_truth = np.kron(rng.integers(0, 3, (4, 6)), np.ones((5, 5), int))[: size_hw[0], : size_hw[1]]
        prediction = np.where(rng.random(size_hw) < 0.2, rng.integers(0, 3, size_hw), ground_truth)
        ground_truth[rng.random(size_hw) < 0.1] = 255
        maps[name] = ground_truth.astype(np.uint8), prediction.astype(np.uint8)
    return maps


def expected(maps, names=NAMES, boundary=False):
    metric = SemanticIoU(names, boundary=boundary)
    for ground_truth, prediction in maps.values():
        metric.update(ground_truth, prediction)
    return metric.compute()


@pytest.fixture
def folders(tmp_path):
    for name, (ground_truth, prediction) in some_maps().items():
        png.write_labels(tmp_path / f"gt/{name}.png", ground_truth)
        png.write_labels(tmp_path / f"pred/{name}.png", prediction)
    return tmp_path / "gt", tmp_path / "pred"


@pytest.mark.parametrize("boundary", [False, True])
def test_folders_of_label_maps(folders, boundary):
    calls = []
    metric = score_semantic(*folders, classes=NAMES, boundary=boundary, progress=lambda *call: calls.append(call))
    assert metric.compute() == expected(some_maps(), boundary=boundary)
    assert calls == [(done, 6) for done in range(1, 7)]
    threads = score_semantic(*folders, classes=NAMES, boundary=boundary, workers=3)
    np.testing.assert_array_equal(threads.confusion, metric.confusion)
    np.testing.assert_array_equal(threads.boundary_px, metric.boundary_px)


def test_shards_merge_to_one_pass(folders):
    for classes in (NAMES, None):
        whole = score_semantic(*folders, classes=classes, boundary=True)
        parts = [score_semantic(*folders, classes=classes, boundary=True, shard=Shard(i, 4)) for i in (3, 1, 4, 2)]
        merged = SemanticIoU.from_state(*parts[0].state())
        for part in parts[1:]:
            merged.merge(part)
        assert merged.compute() == whole.compute()
        assert all(0 < part.confusion.sum() < whole.confusion.sum() for part in parts)


def test_counts_of_each_image_are_kept_if_asked(folders, panoptic):
    assert len(score_semantic(*folders, classes=NAMES).images) == 0
    metric = score_semantic(*folders, classes=NAMES, per_image=True, workers=2)
    assert metric.images.ids() == IMAGES
    for name, table in metric.images.in_order():
        ground_truth, _ = some_maps()[name]
        assert table["gt_px"].tolist() == [(ground_truth == label).sum() for label in range(3)]
    options = {"gt_suffix": "_leftImg8bit.jpg", "png_values": "channel", "per_image": True}
    parts = [score_semantic(panoptic, folders[1], shard=Shard(i, 2), **options) for i in (2, 1)]
    parts[0].merge(parts[1])
    by_id = dict(parts[0].images.in_order())
    tables = [table.tolist() for _, table in metric.images.in_order()]
    assert [by_id[image_id].tolist() for image_id in range(6)] == tables, "the ids of the JSON, in the order of IMAGES"


def test_without_names_the_labels_in_the_files_are_the_classes(folders):
    results = score_semantic(*folders).compute()
    assert results == expected(some_maps(), ("0", "1", "2"))
    gt, pred = folders
    png.write_labels(pred / f"{IMAGES[0]}.png", np.full((20, 30), 9))
    assert score_semantic(gt, pred).compute()["IoU-9"] is None


def test_two_classes_and_an_ignored_background(tmp_path):
    ground_truth = np.zeros((8, 8), int)
    ground_truth[2:6, 2:6] = 1
    png.write_labels(tmp_path / "gt/case.png", ground_truth)
    Image.fromarray(np.roll(ground_truth, 1, axis=0) == 1).save(mkdir(tmp_path / "pred") / "case.png")  # of one bit
    results = score_semantic(tmp_path / "gt", tmp_path / "pred", classes=("background", "tumour")).compute()
    assert results["Dice-tumour"] == 75  # 12 of 16 and 16 pixels
    left_out = score_semantic(tmp_path / "gt", tmp_path / "pred", classes=("background", "tumour"), ignore_label=0)
    # Of the tumour's 16 pixels the upper 4 are predicted background; no other pixel is counted.
    assert left_out.compute()["IoU-tumour"] == left_out.compute()["mIoU"] == 75
    assert left_out.compute()["IoU-background"] is None


def mkdir(path):
    path.mkdir(parents=True)
    return path


def test_suffixes_and_flat_predictions(tmp_path):
    for name, (ground_truth, prediction) in some_maps().items():
        png.write_labels(tmp_path / f"gt/{name}_gtFine_labelTrainIds.png", ground_truth)
        png.write_labels(tmp_path / f"gt/{name}_gtFine_color.png", ground_truth * 0)
        png.write_labels(tmp_path / f"pred/{name.split('/')[1]}_pred.png", prediction)
    suffixes = {"gt_suffix": "_gtFine_labelTrainIds.png", "pred_suffix": "_pred.png"}
    metric = score_semantic(tmp_path / "gt", tmp_path / "pred", classes=NAMES, **suffixes)
    assert metric.compute() == expected(some_maps())


def write_ids(folder, channels):
    values = np.append(IDS, 255)
    for name, labels in channels.items():
        png.write_labels(folder / f"{name}.png", values[np.minimum(labels, 3)])


def test_values_are_category_ids_if_categories_are_given(tmp_path, folders):
    write_ids(tmp_path / "gt_ids", {name: ground_truth for name, (ground_truth, _) in some_maps().items()})
    write_ids(tmp_path / "pred_ids", {name: prediction for name, (_, prediction) in some_maps().items()})
    metric = score_semantic(tmp_path / "gt_ids", tmp_path / "pred_ids", classes=CATEGORIES)
    assert metric.compute() == expected(some_maps())
    assert score_semantic(*folders, classes=CATEGORIES, png_values="channel").compute() == metric.compute()
    # All things in channel 0, then the stuff.
    merged = score_semantic(tmp_path / "gt_ids", tmp_path / "pred_ids", classes=CATEGORIES, thing_channels="one")
    assert merged.names == ("things", "road", "sky")
    assert merged.compute()["IoU-things"] == metric.compute()["IoU-car"]
    # Several labels can be ignored: the car's pixels are left out of the ground truth.
    fewer = score_semantic(tmp_path / "gt_ids", tmp_path / "pred_ids", classes=CATEGORIES, ignore_label=(255, 26))
    assert fewer.confusion[:, 2].sum() == 0
    np.testing.assert_array_equal(fewer.confusion[:, :2], metric.confusion[:, :2])
    with pytest.raises(ValueError, match="png_values"):
        score_semantic(*folders, classes=CATEGORIES, png_values="colour")


@pytest.fixture
def panoptic(tmp_path):
    """A panoptic JSON of the same ground truth: every class two segments, its upper and its lower half."""
    with PanopticWriter(tmp_path / "ground_truth.json", tmp_path / "ground_truth", CATEGORIES) as writer:
        for image_id, (name, (ground_truth, _)) in enumerate(some_maps().items()):
            ids = np.where(ground_truth == 255, 0, 1000 * (ground_truth.astype(np.int32) + 1))
            ids[10:] += ids[10:] > 0
            segments = tuple(
                Segment(i, int(IDS[i // 1000 - 1]), i >= 3000, int((ids == i).sum()))
                for i in np.unique(ids).tolist()[1:]
            )
            writer.add(image_id, f"{name}_leftImg8bit.jpg", PanopticSegmentation(ids.astype(np.int32), segments))
    return tmp_path / "ground_truth.json"


def build_results(channel_values, name="/data/leftImg8bit/val/{}_leftImg8bit.jpg"):
    """sem_seg_predictions.json, as Detectron2's SemSegEvaluator.encode_json_sem_seg makes it."""
    entries = []
    for image, (_, prediction) in some_maps().items():
        for channel in np.unique(prediction).tolist():
            rle = mask_to_rle(prediction == channel)
            metric = {"file_name": name.format(image), "category_id": int(channel_values[channel]), "segmentation": rle}
            entries.append(metric)
    return entries


def test_panoptic_ground_truth_against_maps_and_detectron2s_json(tmp_path, folders, panoptic):
    write_ids(tmp_path / "pred_ids", {name: prediction for name, (_, prediction) in some_maps().items()})
    wanted = expected(some_maps())
    assert score_semantic(panoptic, tmp_path / "pred_ids", gt_suffix="_leftImg8bit.jpg").compute() == wanted
    metric = score_semantic(panoptic, folders[1], gt_suffix="_leftImg8bit.jpg", png_values="channel", boundary=True)
    assert metric.compute() == expected(some_maps(), boundary=True)
    results = tmp_path / "sem_seg_predictions.json"
    results.write_text(json.dumps(build_results(IDS)))
    assert score_semantic(panoptic, results).compute() == wanted
    # Detectron2's panoptic datasets: all things are 0.
    results.write_text(json.dumps(build_results([7, 23, 0])))
    merged = score_semantic(panoptic, results, thing_channels="one").compute()
    assert (merged["IoU-things"], merged["mIoU"]) == (wanted["IoU-car"], pytest.approx(wanted["mIoU"]))


def test_categories_of_a_panoptic_ground_truth_are_ignored_only_if_asked(tmp_path):
    categories = CategorySet([Category(1, "a", False, (0, 0, 0)), Category(255, "b", False, (0, 0, 1))])
    with PanopticWriter(tmp_path / "gt.json", tmp_path / "gt", categories) as writer:
        ids = np.array([[1, 1, 2, 0]], dtype=np.int32)
        segments = Segment(1, 1, False, 2), Segment(2, 255, False, 1)
        writer.add(5, "a.jpg", PanopticSegmentation(ids, segments))
    png.write_labels(tmp_path / "pred/a.png", np.array([[0, 1, 1, 0]]))
    for ignore_label, pixels in ((None, [2, 1]), (255, [2, 0]), ((1, 255), [0, 0]), ((), [2, 1])):
        metric = score_semantic(
            tmp_path / "gt.json", tmp_path / "pred", png_values="channel", ignore_label=ignore_label
        )
        assert metric.confusion.sum(axis=0).tolist() == pixels


def test_label_ground_truth_against_detectron2s_json(tmp_path, folders):
    results = tmp_path / "sem_seg_predictions.json"
    results.write_text(json.dumps(build_results([0, 1, 2])))
    for classes in (NAMES, None):
        metric = score_semantic(folders[0], results, classes=classes, pred_suffix="_leftImg8bit.jpg")
        assert metric.compute() == expected(some_maps(), metric.names)


def test_labels_beyond_255(tmp_path):
    names = [f"class {i}" for i in range(400)]
    ground_truth, prediction = np.array([[0, 255, 399, 300]]), np.array([[0, 255, 399, 1]])
    png.write_labels(tmp_path / "gt/a.png", ground_truth)
    png.write_labels(tmp_path / "pred/a.png", prediction)
    metric = score_semantic(tmp_path / "gt", tmp_path / "pred", classes=names)
    assert metric.confusion.sum() == 4  # 255 is a class here
    assert metric.compute()["pACC"] == 75


def collect_errors(*args, **kwargs):
    with pytest.raises(DatasetError) as raised:
        score_semantic(*args, **{"classes": NAMES} | kwargs)
    return str(raised.value)


def test_missing_and_superfluous_predictions(folders):
    gt, pred = folders
    (pred / "bonn/bonn_1.png").rename(pred / "bonn/other.png")
    text = collect_errors(gt, pred)
    assert "1 of 6 images have no prediction: 'bonn/bonn_1'" in text
    assert "1 predictions are of images that the ground truth lacks: 'bonn/other'" in text
    (gt / "bonn/bonn_1.png").unlink()
    assert score_semantic(gt, pred, classes=NAMES, allow_extra=True).confusion.sum() > 0
    png.write_labels(pred / "aachen_0.png", np.zeros((20, 30), int))
    assert "expected one prediction of 'aachen/aachen_0', got" in collect_errors(gt, pred, allow_extra=True)


def test_all_problems_of_the_files_are_reported(folders):
    gt, pred = folders
    broken = pred / f"{IMAGES[0]}.png"
    broken.write_bytes(broken.read_bytes()[:40])
    png.write_labels(pred / f"{IMAGES[1]}.png", np.zeros((20, 29), int))
    png.write_labels(gt / f"{IMAGES[2]}.png", np.full((20, 30), 3))
    png.write_labels(pred / f"{IMAGES[3]}.png", np.full((20, 30), 255))
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(pred / f"{IMAGES[4]}.png")
    text = collect_errors(gt, pred, workers=2)
    for part in (
        "5 problems",
        "aachen_0.png: the PNG cannot be decoded",
        "aachen_1.png): expected ground truth and prediction of one size, got 20 x 30 and 20 x 29",
        "gt/aachen/aachen_2.png: expected the labels 0, 1, 2, 255, got 3 in 600 pixels; ignore these labels",
        "pred/bonn/bonn_0.png: expected the labels 0, 1, 2, got 255 in 600 pixels; predict a class for every pixel",
        "bonn_1.png: expected a greyscale or palette PNG whose values are labels, got 8-bit RGB",
    ):
        assert part in text
    assert "2 problems found, the search stopped here" in collect_errors(gt, pred, limit=2)
    assert "\n- " in collect_errors(gt, pred, classes=None)  # what cannot be read, before there is any class


def test_files_of_another_kind_are_rejected(tmp_path, folders, panoptic):
    gt, pred = folders
    assert "expected a folder of label PNGs, found none" in collect_errors(tmp_path / "nowhere", pred)
    assert "expected a folder of label PNGs, found none" in collect_errors(gt, tmp_path / "nowhere")
    assert "segmentation}, got a dict" in collect_errors(gt, panoptic)
    results = tmp_path / "results.json"
    results.write_text(json.dumps([{"image_id": 1, "category_id": 1, "segmentation": {}, "score": 1}]))
    assert "this is a list of instance results" in collect_errors(gt, results)
    assert "a results list has no images" in collect_errors(results, pred)
    (tmp_path / "ground_truth").rename(tmp_path / "moved")
    assert "no such folder of PNGs" in collect_errors(panoptic, pred, gt_suffix="_leftImg8bit.jpg")
    moved = {"gt_folder": tmp_path / "moved", "gt_suffix": "_leftImg8bit.jpg", "png_values": "channel"}
    assert score_semantic(panoptic, pred, **moved).compute() == expected(some_maps())
    assert "expected categories that are among the classes, got 7, 23, 26" in collect_errors(panoptic, pred, **moved)


def test_photographs_are_rejected_as_label_maps(tmp_path, monkeypatch):
    monkeypatch.setattr(label_sources, "MAX_LABELS", 50)
    noise = np.random.default_rng(0).integers(0, 200, (40, 40))
    png.write_labels(tmp_path / "gt/a.png", noise)
    png.write_labels(tmp_path / "pred/a.png", noise)
    assert "expected at most 50 labels in all files, got more" in collect_errors(
        tmp_path / "gt", tmp_path / "pred", classes=None
    )


def test_255_as_void_is_named_if_a_class_is_missing(tmp_path):
    """A mask of 0 and 255: without names by label, 255 is void and an empty prediction is perfect."""
    write = tmp_path / "gt", tmp_path / "pred"
    png.write(write[0] / "a.png", np.array([[0, 255], [255, 0]], np.uint8))
    png.write(write[1] / "a.png", np.array([[0, 0], [0, 0]], np.uint8))
    metric = score_semantic(*write, classes=["background", "lesion"])
    assert metric.compute()["mIoU"] == 100
    names = {"classes": ["background", "lesion"]}
    void = "pixels of 255 are void: if 255 is a class, name the labels, as in --classes"
    assert describe_void_label(metric, write[0], **names) == [f"{void} 0=background 255=lesion"]
    assert describe_void_label(metric, write[0], **names, ignore_label=[255]) == []
    scanned = score_semantic(*write)  # one class, 0
    assert scanned.compute()["mIoU"] is None
    assert describe_void_label(scanned, write[0]) == [f"{void} 0=NAME 255=NAME"]
    png.write(write[0] / "a.png", np.array([[0, 0], [0, 0]], np.uint8))
    assert describe_void_label(metric, write[0], **names) == []
    png.write(write[0] / "a.png", np.array([[0, 255], [255, 0]], np.uint8))
    by_label = {0: "background", 255: "lesion", 1: "vessel"}
    assert describe_void_label(score_semantic(*write, classes=by_label), write[0], classes=by_label) == []
    metric = score_semantic(*write, classes={0: "background", 255: "lesion"})
    # Of 4 pixels of background, 2 are right; no pixel of the lesion is found.
    assert metric.confusion.tolist() == [[2, 2], [0, 0]]
    assert metric.compute()["mIoU"] == 25
