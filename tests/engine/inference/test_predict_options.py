"""Options of `segkit predict`: the model's files, device and precision; what is predicted and what is written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from segkit.cli.main import main
from tests.engine.inference import CONFIG


@pytest.fixture
def images(toy_folder: Path, tmp_path: Path) -> Path:
    """A folder of two images."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in (1, 2):
        shutil.copy(toy_folder / f"images/00000000000{number}.png", folder / f"{number}.png")
    return folder


def run(*words: Any) -> int:
    return main(["predict", *map(str, words)])


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_runs_and_weights_with_a_config_beside_them_need_no_config_file(
    weights: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their results are those of the config; another run is refused before the weights are read."""
    folder, given = tmp_path / "run", ["--input", images / "1.png", "--device", "cpu", "--output"]
    folder.mkdir()
    shutil.copy(weights, folder / "model_best.pth")
    assert run("--weights", folder, *given, tmp_path / "none") == 1
    assert "expected config.yaml beside the weights, got none" in capsys.readouterr().err
    (folder / "config.yaml").write_text(f"_BASE_: {Path(CONFIG).resolve()}\n")
    for number, model in enumerate((folder, folder / "model_best.pth")):
        assert run("--weights", model, *given, tmp_path / str(number)) == 0
    assert load(tmp_path / "0/panoptic.json")["annotations"]
    assert load(tmp_path / "0/panoptic.json") == load(tmp_path / "1/panoptic.json")
    (folder / "model_best.pth").write_text("no weights")
    assert run("--weights", folder, *given, tmp_path / "0") == 1
    assert "has results of another run: other weights" in capsys.readouterr().err
    assert run(*given, tmp_path / "none") == 1
    assert "give --weights, a checkpoint or the folder of a run, or --config-file" in capsys.readouterr().err


def test_device_and_precision(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--config-file", CONFIG, "--weights", "no.pth", "--input", images, "--output", tmp_path / "out"]
    for option, value, message in (
        ("--device", "gpu", "the device 'gpu' is unknown"),
        ("--device", "cuda:99", "the device cuda:99 is not there"),
        ("--precision", "half", "the precision 'half' is unknown; choose one of float32, bfloat16, float16, auto"),
        ("--precision", "float16", "float16 needs a GPU, got the device cpu"),
    ):
        device = [] if option == "--device" else ["--device", "cpu"]
        assert run(*given, *device, option, value) == 1
        assert message in capsys.readouterr().err
