"""`segkit.load`: which weights and config it takes, and what it refuses."""

from __future__ import annotations

import pydoc
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import segkit
from segkit.engine.inference.loading import find_model
from segkit.utils.errors import CheckpointError, ConfigError
from tests.engine.inference import CONFIG

RECIPE = "toy/panoptic_rcnn_R18_FPN"


@pytest.fixture
def run(weights: Path, tmp_path: Path) -> Path:
    """The folder of a run whose datasets are gone."""
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(weights, folder / "model_final.pth")
    custom = "[{name: gone, format: coco-panoptic, json: /gone.json, masks: /gone}]"
    text = f"_BASE_: {Path(CONFIG).resolve()}\nDATASETS:\n  CUSTOM: {custom}\n  TRAIN: [gone]\n  TEST: [gone]\n"
    (folder / "config.yaml").write_text(text)
    return folder


def test_a_run_is_loaded_without_its_dataset(run: Path, weights: Path, toy_folder: Path) -> None:
    image = min((toy_folder / "images").iterdir())
    expected = segkit.load(weights, RECIPE)(image).segment_ids
    np.testing.assert_array_equal(segkit.load(run)(image).segment_ids, expected)


def test_weights_runs_and_configs_are_found(run: Path, weights: Path) -> None:
    final, config = str(run / "model_final.pth"), str(run / "config.yaml")
    for source in (run, str(run), run / "config.yaml", run / "model_final.pth"):
        assert find_model(source) == (final, config)
    assert find_model(run, RECIPE) == (final, RECIPE)
    shutil.copy(final, run / "model_best.pth")
    assert find_model(run) == (str(run / "model_best.pth"), config)
    assert find_model(final) == (final, config)
    named = run.parent / "named.pth"  # as `segkit import` writes them
    shutil.copy(weights, named)
    named.with_suffix(".yaml").write_text(f"_BASE_: {RECIPE}\nMODEL:\n  WEIGHTS: {named}\n")
    assert find_model(named) == (str(named), str(named.with_suffix(".yaml")))
    assert find_model(named.with_suffix(".yaml")) == ("", str(named.with_suffix(".yaml")))
    address = "detectron2://a/model.pkl"
    assert find_model(address, RECIPE) == (address, RECIPE)


def test_options_reach_the_model(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = segkit.load(weights, RECIPE, compile=True, precision="bfloat16")
    assert model.cfg.TEST.INFERENCE.COMPILE
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"the device cuda:1 is not there: this machine has 1 CUDA devices"):
        segkit.load(weights, RECIPE, device="cuda:1")
    with pytest.raises(ConfigError, match="the device 'gpu' is unknown; choose cpu, cuda or cuda:N"):
        segkit.load(weights, RECIPE, device="gpu")


def test_what_is_missing_is_named(run: Path, weights: Path, tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"gone\.pth: expected weights, a config or the folder of a run, found no"
    ):
        segkit.load(tmp_path / "gone.pth")
    with pytest.raises(
        ConfigError, match=r"expected model\.yaml or config\.yaml beside the weights, got none; give con"
    ):
        segkit.load(weights)
    with pytest.raises(ConfigError, match="expected a config for these weights, got none"):
        segkit.load("detectron2://a/model.pkl")
    with pytest.raises(ConfigError, match=r"expected weights beside the config b\.yaml, got another config"):
        segkit.load(run / "config.yaml", "b.yaml")
    (run / "model_final.pth").unlink()
    with pytest.raises(CheckpointError, match=r"with model_best\.pth or a checkpoint, got neither"):
        segkit.load(run)
    (run / "config.yaml").unlink()
    shutil.copy(weights, run / "model_final.pth")
    with pytest.raises(ConfigError, match=r"expected config\.yaml beside the weights"):
        segkit.load(run)


def test_help_shows_the_public_names_and_so_does_the_stub() -> None:
    text = pydoc.render_doc(segkit)
    stub = Path(segkit.__file__).with_suffix(".pyi").read_text()
    assert {name: module for module, name in re.findall(r"from ([\w.]+) import \w+ as (\w+)", stub)} == segkit.PUBLIC
    assert set(segkit.__all__) == set(segkit.PUBLIC)
    for name in segkit.PUBLIC:
        assert name in segkit.__doc__ or name == "SegmentationModel"
        assert name in text
