"""A dataset from a reader: its records, ground truth and metrics."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from segkit.data.dataset import PANOPTIC_METRICS
from segkit.data.ground_truth import GroundTruth, read_segmentation
from segkit.data.loaders.readers import choose_metrics, find_image, load_reader_dataset
from segkit.data.mapper import read_image
from segkit.formats import png
from segkit.formats.coco import CocoPanopticReader, PanopticWriter
from segkit.structures import CategorySet, PanopticSegmentation
from segkit.utils.errors import ConfigError, DatasetError
from tests.helpers.coco_samples import rectangles
from tests.helpers.one_image import CATEGORIES, GROUND_TRUTH, compare_key, write_panoptic


def reader_options(folder: Path) -> dict[str, str]:
    return {"json": f"{folder}/p.json", "masks": f"{folder}/p", "images": f"{folder}/images"}


def test_records_ground_truth_and_metrics(tmp_path: Path) -> None:
    write_panoptic(tmp_path)
    dataset = load_reader_dataset("by_layout", "coco-panoptic", reader_options(tmp_path))
    (record,) = pickle.loads(pickle.dumps(dataset.records))  # as it travels to a data loader's worker
    assert (record["image_id"], record["height"], record["width"]) == ("x", 2, 3)
    assert Path(record["file_name"]) == tmp_path / "images" / "a" / "x.png"
    assert dataset.build_image_entry(record)["file_name"] == "a/x.png"
    assert dataset.categories == CATEGORIES
    assert dataset.metrics == PANOPTIC_METRICS
    assert compare_key(read_segmentation(record, dataset.categories)) == compare_key(GROUND_TRUTH)
    reader, image = find_image(record["reader"], record["image_id"])
    assert np.all(reader.read_image(image) == 80)
    assert "annotations" not in record  # without overlaps the map has all information


@pytest.mark.parametrize(("group", "metrics"), [("things", ("mask_ap",)), ("stuff", ("semantic_iou",))])
def test_metrics_of_datasets_with_only_things_or_only_stuff(
    tmp_path: Path, group: str, metrics: tuple[str, ...]
) -> None:
    categories = CategorySet(getattr(CATEGORIES, group))
    with PanopticWriter(tmp_path / "p.json", tmp_path / "p", categories) as writer:
        writer.add("x", "x.png", PanopticSegmentation(np.zeros((2, 3), np.int32), ()))
    assert choose_metrics(CocoPanopticReader(**reader_options(tmp_path))) == metrics
    png.write(tmp_path / "images" / "x.png", np.zeros((2, 3), np.uint8))
    assert set(load_reader_dataset("alone", "coco-panoptic", reader_options(tmp_path)).metrics) == set(PANOPTIC_METRICS)
    assert load_reader_dataset("chosen", "coco-panoptic", reader_options(tmp_path), ("semantic_iou",)).metrics == (
        "semantic_iou",
    )


def test_overlapping_masks_stay_complete_in_training_and_evaluation(tmp_path: Path) -> None:
    """Two rectangles of 2 x 2 pixels share a column: it has one owner in the map, two in the annotations."""
    rectangles(tmp_path, [(0, 0, 1, 1), (1, 0, 2, 1)])  # corners, both inside
    dataset = load_reader_dataset("overlaps", "labelme", {"root": str(tmp_path)})
    (record,) = pickle.loads(pickle.dumps(dataset.records))
    assert sorted(s.area_px for s in read_segmentation(record, dataset.categories).segments) == [2, 4]
    assert [annotation["category_id"] for annotation in record["annotations"]] == [0, 0]  # contiguous
    ground_truth = GroundTruth(dataset).read_annotations(record)
    assert [annotation["area"] for annotation in ground_truth] == [4, 4]
    assert record["annotations"] == [*record["annotations"]]


def test_probable_mistakes_are_warnings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mask = np.zeros((9, 9), np.uint8)
    mask[:3] = mask[5:] = 255
    for number in range(20):
        png.write(tmp_path / f"images/{number}.png", np.zeros((9, 9), np.uint8))
        png.write(tmp_path / f"labels/{number}.png", mask)
    load_reader_dataset("binary", "instance-maps", {"root": str(tmp_path)})
    (message,) = caplog.messages
    assert message.startswith(f"binary: {tmp_path / 'labels/0.png'}: 1 values in 2 connected pieces")
    assert "(objects-merged; 8 times in 8 images that were checked)" in message
    caplog.clear()
    load_reader_dataset("split", "instance-maps", {"root": str(tmp_path), "connected_components": True})
    assert caplog.messages == []


def test_options_with_names_by_number_travel_to_other_processes(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="expected the folder of a task"):
        load_reader_dataset("labels", "decathlon", {"root": tmp_path / "none", "labels": {1: "front", 2: "back"}})
    with pytest.raises(ConfigError, match="a config file can hold"):
        load_reader_dataset("labels", "decathlon", {"root": tmp_path / "none", "labels": {1, 2}})


def test_a_missing_image_is_an_error(tmp_path: Path) -> None:
    """A reader whose images have no files gives the pixels; COCO's reader reports a missing file."""
    write_panoptic(tmp_path)
    dataset = load_reader_dataset("photos", "coco-panoptic", reader_options(tmp_path))
    assert read_image(dataset.records[0], "BGR").shape == (2, 3, 3)
    (tmp_path / "images" / "a" / "x.png").unlink()
    with pytest.raises(DatasetError, match="the image is missing"):
        read_image(dataset.records[0], "BGR")


def test_an_image_removed_from_the_files_is_an_error(tmp_path: Path) -> None:
    write_panoptic(tmp_path)
    dataset = load_reader_dataset("changed", "coco-panoptic", reader_options(tmp_path))
    record = {**dataset.records[0], "image_id": "y"}
    with pytest.raises(DatasetError, match="the image 'y' is not in the dataset any more; start again"):
        read_segmentation(record, dataset.categories)
