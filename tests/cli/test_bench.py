"""`segkit bench`: a table and a JSON of what every setting takes; the time of a stage is counted in this stage."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="networks are measured")

from segkit.cli.main import main
from segkit.data.toy import dataset as toy
from segkit.engine.inference.model import SegmentationModel
from segkit.engine.inference.speed import STAGES, measure_speed
from segkit.engine.setup import read_config
from segkit.formats import png
from segkit.runtime.prediction import Prediction
from tests.helpers.random_weights import CONFIG, save_random_weights

SLEEP_S = 0.5
SMALL = ["INPUT.MIN_SIZE_TEST", "32"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "model.pth"
    save_random_weights(path, toy.CATEGORIES)
    return path


def test_every_setting_is_a_row(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", weights, "--config-file", CONFIG, "--device", "cpu", "--precision", "auto"]
    sizes = ["--size", 48, 64, "--images", 3, "--batch-size", 1, 2, "--output", tmp_path / "speeds.json"]
    assert main([*map(str, [*words, *sizes, "--opts", *SMALL])]) == 0
    content = json.loads((tmp_path / "speeds.json").read_text())
    assert content["images"] == 3
    settings = [(row["precision"], row["batch_size"]) for row in content["speeds"]]
    assert settings == [("auto", 1), ("auto", 2)]
    for row in content["speeds"]:
        stage_s = row["stage_s"]
        assert [*stage_s] == [*STAGES]
        assert min(stage_s.values()) > 0
        assert row["model_images_per_s"] == pytest.approx(1 / (stage_s["network"] + stage_s["fusion"]))
        assert row["predict_images_per_s"] > 0
        assert row["peak_mib"] is None or row["peak_mib"] > 100  # torch alone takes more
    shown = capsys.readouterr().out
    assert shown.count("auto") == 2
    assert "3 images in each setting" in shown


@pytest.mark.parametrize("stage", STAGES)
def test_the_time_of_a_stage_is_counted_there(
    stage: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = SegmentationModel(read_config(CONFIG, ["MODEL.WEIGHTS", str(weights), *SMALL], train=False))
    network: Any = model.model
    slow = {
        "reading": (type(model.input), "read"),
        "network": (network.roi_heads.mask_head, "layers"),
        "fusion": (network, "_build_output"),
        "writing": (Prediction, "save"),
    }
    owner, name = slow[stage]
    compute = getattr(owner, name)

    def sleep_and_compute(*args: Any, **kwargs: Any) -> Any:
        time.sleep(SLEEP_S)
        return compute(*args, **kwargs)

    monkeypatch.setattr(owner, name, sleep_and_compute)
    image = tmp_path / "x.png"
    png.write(image, np.zeros((40, 40, 3), np.uint8))
    before = {*vars(network.backbone)}
    stage_s = measure_speed(model, [image], tmp_path / "out").stage_s
    assert stage_s[stage] > SLEEP_S
    assert {*vars(network.backbone)} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.onnx"], "segkit bench runs no ONNX files"),
        (["no.pth"], "no.pth"),
        (["WEIGHTS", "--size", "8", "640"], "--size: expected sides of at least 32 pixels"),
        (["WEIGHTS", "--input", "nowhere"], "no images found"),
        (["WEIGHTS", "--device", "cuda:99"], "the device cuda:99 is not there"),
        (["WEIGHTS", "--precision", "half"], "the precision 'half' is unknown"),
    ],
)
def test_errors_are_one_line(words: list[str], message: str, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [str(weights) if word == "WEIGHTS" else word for word in words]
    assert main(["bench", *given, *([] if words == ["no.pth"] else ["--config-file", CONFIG])]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
