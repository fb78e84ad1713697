"""The output folders of `segkit predict` and of evaluations, read as a dataset with scores."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from segkit.cli.main import main
from segkit.formats import png
from segkit.formats.runs import RunReader
from segkit.structures import CategorySet, rle_to_mask
from segkit.utils.errors import DatasetError
from tests.helpers import predicted_run
from tests.helpers.predicted_run import CATEGORIES, CELL, DOT, IMAGES, INSTANCES, WATER, build_map


def list_instances(reader: RunReader) -> list[tuple[int, float | None, bytes]]:
    annotations = reader.read_annotations(reader.images[0])
    return [(x["category_id"], x.get("score"), rle_to_mask(x["segmentation"]).tobytes()) for x in annotations]


@pytest.mark.parametrize("write", [predicted_run.write_run, predicted_run.write_evaluation])
def test_all_predictions_of_a_folder_are_read(tmp_path: Path, write) -> None:
    write(tmp_path / "run")
    reader = RunReader(tmp_path / "run", min_score=None, keep_scores=True)
    assert (reader.images, reader.categories) == (IMAGES, CATEGORIES)
    segmentation, empty = map(reader.read_segmentation, reader.images)
    assert np.array_equal(segmentation.segment_ids, build_map())
    assert [(s.category_id, s.score, s.area_px) for s in segmentation.segments] == [
        (CELL, 0.75, 10),
        (DOT, 0.25, 1),
        (WATER, None, 9),
    ]
    assert not empty.segment_ids.any()
    assert list_instances(reader) == [(i, score, mask.tobytes()) for i, score, mask in reversed(INSTANCES)]
    assert reader.read_annotations(reader.images[1]) == []


def test_as_ground_truth_it_has_confident_things_without_scores(tmp_path: Path) -> None:
    predicted_run.write_run(tmp_path / "run")
    reader = RunReader(tmp_path / "run")
    segments = reader.read_segmentation(reader.images[0]).segments
    assert [(s.category_id, s.score) for s in segments] == [(CELL, None), (WATER, None)]
    assert [(i, score) for i, score, _ in list_instances(reader)] == [(CELL, None)]
    assert len(reader.skipped) == 3  # low scores in both files, and the image without instances


def test_instances_alone_are_painted(tmp_path: Path) -> None:
    predicted_run.write_instances(tmp_path)
    reader = RunReader(tmp_path, min_score=None, keep_scores=True)
    assert reader.categories == CategorySet(CATEGORIES.things)
    segmentation = reader.read_segmentation(reader.images[0])
    scores = {s.score: s.area_px for s in segmentation.segments}
    assert scores == {0.75: 11, 0.25: 1}  # the cell covers the dot of 0.125


def test_a_run_without_pngs_gives_its_instances(tmp_path: Path) -> None:
    """The folder of `segkit predict --save json`."""
    predicted_run.write_run(tmp_path / "run")
    shutil.rmtree(tmp_path / "run/panoptic")
    reader = RunReader(tmp_path / "run", min_score=None, keep_scores=True)
    assert reader.categories == CategorySet(CATEGORIES.things)
    assert list_instances(reader) == [(i, score, mask.tobytes()) for i, score, mask in reversed(INSTANCES)]
    assert "panoptic.json: its PNGs are missing (`segkit predict --save masks` writes them)" in reader.skipped[0]


def test_an_evaluation_of_instances_needs_the_dataset(tmp_path: Path) -> None:
    predicted_run.write_evaluation(tmp_path / "inference" / "cells")
    tables = tmp_path / "tables.json"
    (tmp_path / "inference/cells/panoptic.json").rename(tables)
    with pytest.raises(DatasetError, match=r"name no images and categories; .*--dataset"):
        RunReader(tmp_path)
    reader = RunReader(tmp_path, dataset=tables, min_score=None)
    assert (reader.images, len(reader.read_annotations(reader.images[0]))) == (IMAGES, 3)


def test_classes_alone_are_stuff(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 1], [2, 1, 1]], dtype=np.uint8)
    png.write_labels(tmp_path / "run/labels/x.png", labels)
    names = ["void ö", "one", "two"]
    (tmp_path / "run/labels/classes.json").write_text(json.dumps(names))
    png.write(tmp_path / "images/x.jpg.png", np.zeros((2, 3, 3), np.uint8))
    png.write(tmp_path / "images/x.png", np.zeros((2, 3, 3), np.uint8))
    reader = RunReader(tmp_path / "run", tmp_path / "images")
    assert [c.name for c in reader.categories.stuff] == names
    (image,) = reader.images
    assert (image.image_id, image.file_name, image.size_hw) == ("x", "x.png", (2, 3))
    segments = reader.read_segmentation(image).segments
    assert [(s.category_id, s.area_px) for s in segments] == [(0, 1), (1, 4), (2, 1)]
    assert reader.read_image(image).shape == (2, 3, 3)
    png.write_labels(tmp_path / "run/labels/x.png", labels + np.uint8(1))
    with pytest.raises(DatasetError, match=r"expected labels among 0, 1, 2, got 3"):
        reader.read_segmentation(image)


def test_folders_without_one_prediction_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"expected panoptic.json, instances.json, .*, found none; give the output"):
        RunReader(tmp_path)
    (tmp_path / "predict.json").write_text("{}")
    with pytest.raises(DatasetError, match=r"found none; run `segkit predict` to its end, .* \(--save\)"):
        RunReader(tmp_path)
    for name in ("first", "second"):
        predicted_run.write_evaluation(tmp_path / "inference" / name)
    with pytest.raises(DatasetError, match="expected one evaluation, got 'first', 'second'; name one of them"):
        RunReader(tmp_path)


def test_the_command_converts_a_run_and_asks_for_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = predicted_run.write_run(tmp_path / "run")
    command = ["data", "convert", "--from", "run", "--root", str(run), "--to", "coco-panoptic", "--output"]
    assert main([*command, str(tmp_path / "a")]) == 1
    assert "a folder of predictions holds no images; give the folder" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "b"), "--skip-images"]) == 0
    assert main([*command, str(tmp_path / "c"), "--images", str(tmp_path / "images")]) == 0
    content = json.loads((tmp_path / "c/panoptic.json").read_text())
    assert [image["id"] for image in content["images"]] == ["s-1", "s-2"]
    assert [info["category_id"] for info in content["annotations"][0]["segments_info"]] == [CELL, WATER]
    assert {path.name for path in (tmp_path / "c/images").rglob("*.png")} == {"eins.png", "zwei ö.png"}
