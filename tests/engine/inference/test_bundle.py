"""`segkit export bundle`: one file that predicts as its source, and holds nothing that could run."""

from __future__ import annotations

import filecmp
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import segkit
from segkit.cli.main import main
from segkit.data.toy import dataset as toy
from segkit.engine.checkpoints.weight_files import read_segkit_entry, read_weight_file
from segkit.utils.bundles import PARTS, WEIGHTS, read_description, read_part, write_bundle
from segkit.utils.errors import CheckpointError

RECIPE = "toy/panoptic_rcnn_R18_FPN"


@pytest.fixture(scope="module")
def bundle(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "model.segkit"
    assert main(["export", "bundle", str(weights), "--config-file", RECIPE, "--output", str(path)]) == 0
    return path


def test_predictions_are_those_of_the_source(bundle: Path, weights: Path, toy_folder: Path, tmp_path: Path) -> None:
    image = min((toy_folder / "images").iterdir())
    expected = segkit.load(weights, RECIPE)(image)
    prediction = segkit.load(bundle)(image)
    assert len(expected.segments) > 1
    np.testing.assert_array_equal(prediction.segment_ids, expected.segment_ids)
    assert prediction.to_coco(1) == expected.to_coco(1)
    words = ["predict", "--weights", bundle, "--input", image, "--output", tmp_path / "out"]
    assert main([str(word) for word in words]) == 0
    results = json.loads((tmp_path / "out/instances.json").read_text())["annotations"]
    assert [result["score"] for result in results] == [row["score"] for row in expected.to_coco(1)["instances"]]


def test_the_content_is_plain_and_names_no_place(bundle: Path, weights: Path) -> None:
    description = read_description(bundle)
    assert description["categories"] == toy.CATEGORIES.to_coco()
    assert description["architecture"] == "PanopticRCNN"
    assert description["input"]["channels"] == 3
    with zipfile.ZipFile(bundle) as archive:
        assert [part.filename for part in archive.infolist()] == [*PARTS]
        assert str(weights.parent).encode() not in archive.read("config.yaml") + archive.read("model.json")


def test_it_is_a_weight_file_as_others(bundle: Path, weights: Path, tmp_path: Path) -> None:
    saved, source = read_weight_file(str(bundle)), read_weight_file(str(weights))
    assert saved["model"].keys() == source["model"].keys()
    assert all(torch.equal(saved["model"][name], weight) for name, weight in source["model"].items())
    assert read_segkit_entry(str(bundle)) == {
        "categories": toy.CATEGORIES.to_coco(),
        "thing_channels": "one",
        "plugins": [],
    }
    again = tmp_path / "again.segkit"
    assert main(["export", "bundle", str(bundle), "--output", str(again)]) == 0
    assert filecmp.cmp(again, bundle, shallow=False)


def test_weights_in_it_that_are_damaged(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged.segkit"
    parts = {name: read_part(bundle, name) for name in PARTS}
    write_bundle(path, parts | {WEIGHTS: parts[WEIGHTS][:1000]})
    with pytest.raises(CheckpointError, match=r"weights\.safetensors in it cannot be read"):
        segkit.load(path)


def test_wrong_names(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export", "bundle", str(weights), "--config-file", RECIPE, "--output"]
    assert main([*words, str(tmp_path / "model.zip")]) == 1
    assert "model.zip: expected a name that ends in .segkit" in capsys.readouterr().err
    assert main(["predict", "--input", str(weights), "--output", str(tmp_path / "out")]) == 1
    assert "expected a model, got none; give --weights" in capsys.readouterr().err
