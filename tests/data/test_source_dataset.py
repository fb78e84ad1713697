"""A dataset registered by its layout: records, truth and metrics follow from it."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from segkit.data.catalog import PANOPTIC_METRICS, load_dataset
from segkit.data.mapper import read_image
from segkit.data.source_dataset import load_source, register_source, source_picture
from segkit.data.truth import read_segmentation
from segkit.formats.coco_panoptic import PanopticWriter
from segkit.structures import CategorySet, ConfigError, DatasetError, PanopticSegmentation
from tests.curation.test_convert import CATEGORIES, TRUTH, panoptic, parts


def places(folder: Path) -> dict[str, str]:
    return {"json": f"{folder}/p.json", "masks": f"{folder}/p", "images": f"{folder}/images"}


def test_records_truth_and_metrics(tmp_path: Path) -> None:
    panoptic(tmp_path)
    register_source("by_layout", "coco-panoptic", **places(tmp_path))
    dataset = load_dataset("by_layout")
    (record,) = pickle.loads(pickle.dumps(dataset.records))  # as it travels to a data loader's worker
    assert (record["image_id"], record["height"], record["width"]) == ("x", 2, 3)
    assert Path(record["file_name"]) == tmp_path / "images" / "a" / "x.png"
    assert dataset.image_entry(record)["file_name"] == "a/x.png"
    assert dataset.categories == CATEGORIES
    assert dataset.metrics == PANOPTIC_METRICS
    assert parts(read_segmentation(record, dataset.categories)) == parts(TRUTH)
    assert np.all(source_picture(record) == 80)


@pytest.mark.parametrize(("group", "metrics"), [("things", ("mask_ap",)), ("stuff", ("semantic_iou",))])
def test_metrics_of_things_or_stuff_alone(tmp_path: Path, group: str, metrics: tuple[str, ...]) -> None:
    categories = CategorySet(getattr(CATEGORIES, group))
    with PanopticWriter(tmp_path / "p.json", tmp_path / "p", categories) as writer:
        writer.add("x", "x.png", PanopticSegmentation(np.zeros((2, 3), np.int32), ()))
    assert load_source("alone", "coco-panoptic", places(tmp_path)).metrics == metrics


def test_what_is_wrong_is_told_when_it_is_loaded(tmp_path: Path) -> None:
    register_source("missing", "coco-panoptic", **places(tmp_path))
    with pytest.raises(DatasetError, match=r"p\.json"):
        load_dataset("missing")
    register_source("wrong", "coco-panoptic", root="r")
    with pytest.raises(ConfigError, match="takes"):
        load_dataset("wrong")


def test_a_missing_picture_is_told_and_a_made_one_is_read(tmp_path: Path) -> None:
    """A source that has no file for a picture is asked for it; COCO's says that the file is missing."""
    panoptic(tmp_path)
    dataset = load_source("pictures", "coco-panoptic", places(tmp_path))
    assert read_image(dataset.records[0], "BGR").shape == (2, 3, 3)
    (tmp_path / "images" / "a" / "x.png").unlink()
    with pytest.raises(DatasetError, match="the image is missing"):
        read_image(dataset.records[0], "BGR")
