"""Predictions written in COCO's formats: what is read again, and what COCO's server takes."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from segkit.cli.main import main
from segkit.formats import png
from segkit.formats.coco import CocoResultsReader, PanopticPredictionsReader
from segkit.structures import rle_to_mask, segmentation_to_rle
from tests.helpers import predicted_run
from tests.helpers.predicted_run import CATEGORIES, CELL, DOT, IMAGES, INSTANCES, SIZE_HW, WATER, build_map


def convert(tmp_path: Path, to: str, *options: str, code: int = 0) -> Path:
    run = predicted_run.write_run(tmp_path / "run")
    output = tmp_path / "out"
    command = ["data", "convert", "--from", "run", "--root", run, "--to", to, "--output", output, "--skip-images"]
    assert main([*map(str, command), *options]) == code
    return output


@pytest.mark.parametrize("polygons", ["false", "true"])
def test_results_keep_masks_scores_and_ids(tmp_path: Path, polygons: str) -> None:
    output = convert(tmp_path, "coco-results", "--to-set", f"polygons={polygons}")
    results = json.loads((output / "results.json").read_text())
    assert all(isinstance(result["segmentation"], list) == (polygons == "true") for result in results)
    expected = [(i, score, mask.tobytes()) for i, score, mask in reversed(INSTANCES)]
    masks = [rle_to_mask(segmentation_to_rle(result["segmentation"], SIZE_HW)).tobytes() for result in results]
    assert [(r["category_id"], r["score"], m) for r, m in zip(results, masks, strict=True)] == expected
    reader = CocoResultsReader(
        output / "results.json", output, output / "image_info.json", min_score=None, keep_scores=True
    )
    assert (reader.images, reader.categories) == (IMAGES, CATEGORIES)
    annotations = reader.read_annotations(reader.images[0])
    assert [(a["score"], rle_to_mask(a["segmentation"]).tobytes()) for a in annotations] == [x[1:] for x in expected]


def test_pycocotools_loads_the_results(tmp_path: Path) -> None:
    output = convert(tmp_path, "coco-results")
    content = json.loads((output / "image_info.json").read_text())
    dataset = COCO()
    dataset.dataset = {**content, "annotations": []}
    dataset.createIndex()
    loaded = dataset.loadRes(str(output / "results.json"))
    assert len(loaded.getAnnIds(imgIds=["s-1"])) == 3
    assert [annotation["area"] for annotation in loaded.loadAnns(loaded.getAnnIds())] == [2, 1, 11]


def test_ground_truth_becomes_results_of_score_one(tmp_path: Path) -> None:
    predicted_run.write_panoptic(tmp_path / "run")
    places = [
        "--json",
        tmp_path / "run/panoptic.json",
        "--masks",
        tmp_path / "run/panoptic",
        "--images",
        tmp_path / "run",
    ]
    command = ["data", "convert", "--from", "panoptic-predictions", *places, "--set", "keep_scores=false"]
    assert main([*map(str, [*command, "--to", "coco-results", "--output", tmp_path / "out", "--skip-images"])]) == 0
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert [(result["category_id"], result["score"]) for result in results] == [(CELL, 1), (DOT, 1)]


def test_panoptic_predictions_keep_low_scores(tmp_path: Path) -> None:
    output = convert(tmp_path, "panoptic-predictions")
    reader = PanopticPredictionsReader(
        output / "panoptic.json", output / "panoptic", output, min_score=None, keep_scores=True
    )
    segmentation = reader.read_segmentation(reader.images[0])
    assert np.array_equal(segmentation.segment_ids, build_map())
    assert [(s.category_id, s.score) for s in segmentation.segments] == [(CELL, 0.75), (DOT, 0.25), (WATER, None)]
    assert not reader.read_segmentation(reader.images[1]).segments


def test_a_submission_of_detections_has_the_names_and_keys_of_the_server(tmp_path: Path) -> None:
    output = convert(tmp_path, "coco-submission", "--to-set", "task=detections", "testset=val2017", "alg=my-net")
    stem = "detections_val2017_my-net_results"
    with zipfile.ZipFile(output / f"{stem}.zip") as archive:
        assert archive.namelist() == [f"{stem}.json"]
        results = json.loads(archive.read(f"{stem}.json"))
    assert [sorted(result) for result in results] == [["category_id", "image_id", "score", "segmentation"]] * 3
    assert [result["score"] for result in results] == [0.125, 0.25, 0.75]


def test_a_panoptic_submission_has_the_names_and_keys_of_the_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = convert(tmp_path, "coco-submission")
    assert "scores cannot be held: 2 segments have one" in capsys.readouterr().out
    stem = "panoptic_test-dev2017_segkit_results"
    with zipfile.ZipFile(output / f"{stem}.zip") as archive:
        assert sorted(archive.namelist()) == [f"{stem}.json", f"{stem}/eins.png", f"{stem}/zwei ö.png"]
        content = json.loads(archive.read(f"{stem}.json"))
        archive.extractall(tmp_path / "unpacked")
    assert content == {
        "annotations": [
            {
                "image_id": "s-1",
                "file_name": "eins.png",
                "segments_info": [
                    {"id": 5, "category_id": CELL},
                    {"id": 6, "category_id": DOT},
                    {"id": 9, "category_id": WATER},
                ],
            },
            {"image_id": "s-2", "file_name": "zwei ö.png", "segments_info": []},
        ]
    }
    ids = png.read_id_runs(tmp_path / "unpacked" / stem / "eins.png").to_map()
    assert np.array_equal(ids, build_map())


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("task=boxes", "expected the task to be one of detections, panoptic"),
        ("alg=a b", "expected alg to have letters"),
    ],
)
def test_wrong_names_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, message: str) -> None:
    convert(tmp_path, "coco-submission", "--to-set", option, code=1)
    assert message in capsys.readouterr().err
