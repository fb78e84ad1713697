"""A run's config.yaml works from any folder, and finds the weights of the run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from segkit.cli.main import main
from segkit.config import load_config
from segkit.data.datasets.custom import list_path_options
from segkit.data.loaders.readers import TRAINING_READERS
from segkit.engine.checkpoints.checkpointer import SafeCheckpointer
from segkit.engine.run_config import find_trained_weights, with_absolute_paths, write_run_config
from segkit.engine.setup import read_config

SMALL = """SOLVER.IMS_PER_BATCH 2 SOLVER.MAX_ITER 1 DATALOADER.NUM_WORKERS 0 MODEL.FPN.OUT_CHANNELS 16 MODEL.DEVICE cpu
    MODEL.SEM_SEG_HEAD.CONVS_DIM 16 MODEL.ROI_BOX_HEAD.FC_DIM 16 MODEL.ROI_MASK_HEAD.CONV_DIM 16"""


def run(*arguments: Any) -> int:
    return main([str(argument) for argument in arguments])


def test_paths_become_absolute_and_addresses_and_names_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    custom: list[dict[str, Any]] = [
        {"name": "a", "panoptic_json": "a/p.json", "panoptic_root": "../p", "image_root": "/images"},
        {"name": "b", "format": "instance-maps", "root": "cells", "images": "tiles", "split": "val"},
        {"name": "c", "format": "coco-results", "json": "r.json", "images": "i", "dataset": "i.json", "min_score": 0.5},
        {"name": "d", "format": "auto", "root": "cells", "images": "tiles"},
        {"name": "e", "format": "auto", "json": "p.json"},
    ]
    cfg = load_config(opts=["MODEL.WEIGHTS", "detectron2://R-50.pkl", "DATASETS.CUSTOM", str(custom)])
    cfg.OUTPUT_DIR, cfg.DATASETS.PROPOSAL_FILES_TEST = "run", ("proposals.pkl",)
    cfg.merge_from_list(["MODEL.PANOPTIC.FUSION.NAME", "priority"])
    cfg.MODEL.PANOPTIC.FUSION.OPTIONS.priors = "priors.json"
    absolute = with_absolute_paths(cfg)
    assert f"{tmp_path}/run" == absolute.OUTPUT_DIR
    assert absolute.MODEL.WEIGHTS == "detectron2://R-50.pkl"
    assert (f"{tmp_path}/proposals.pkl",) == absolute.DATASETS.PROPOSAL_FILES_TEST
    assert absolute.MODEL.PANOPTIC.FUSION.OPTIONS.priors == f"{tmp_path}/priors.json"
    first, second, third, fourth, fifth = absolute.DATASETS.CUSTOM
    assert fourth == {**custom[3], "root": f"{tmp_path}/cells"}
    assert fifth == {**custom[4], "json": f"{tmp_path}/p.json"}
    assert first["panoptic_json"] == f"{tmp_path}/a/p.json"
    assert first["panoptic_root"] == f"{tmp_path.parent}/p"
    assert first["image_root"] == "/images"
    assert second == {**custom[1], "root": f"{tmp_path}/cells"}, "the folder of the images is relative to the root"
    assert third == {**custom[2], **{key: f"{tmp_path}/{custom[2][key]}" for key in ("json", "images", "dataset")}}
    assert custom == cfg.DATASETS.CUSTOM
    assert with_absolute_paths(load_config()).MODEL.WEIGHTS == ""
    (tmp_path / "run").mkdir()
    write_run_config(cfg)
    written = load_config(tmp_path / "run/config.yaml")
    assert (written.OUTPUT_DIR, written.DATASETS) == (absolute.OUTPUT_DIR, absolute.DATASETS)


@pytest.mark.parametrize("format_name", TRAINING_READERS)
def test_every_format_has_an_option_that_is_a_path(format_name: str) -> None:
    assert list_path_options({"name": "a", "format": format_name}) & {"root", "json", "masks", "data"}


def test_weights_are_found_beside_the_config_of_a_run_only(tmp_path: Path) -> None:
    config, last = tmp_path / "config.yaml", tmp_path / "last_checkpoint"
    assert find_trained_weights(config) == ""
    run = SafeCheckpointer(torch.nn.Linear(1, 1), str(tmp_path))
    run.save("model_0000003", iteration=3)
    assert find_trained_weights(config) == str(tmp_path / "model_0000003.pth")
    run.save("model_final", iteration=3)
    for name in ("gone.pth", "../outside.pth", "", str(tmp_path / "model_0000003.pth")):
        last.write_text(name)
        assert find_trained_weights(config) == str(tmp_path / "model_final.pth")
    assert find_trained_weights(tmp_path / "mine.yaml") == ""
    assert find_trained_weights("coco/panoptic_rcnn_R50_FPN_1x") == ""


def test_a_run_is_evaluated_and_used_from_another_folder(
    toy_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    custom = [{"name": "t_moved", "panoptic_json": "scenes/panoptic.json", "panoptic_root": "scenes/panoptic"}]
    names = ["DATASETS.CUSTOM", str(custom), "DATASETS.TRAIN", "('t_moved',)", "DATASETS.TEST", "('t_moved',)"]
    recipe = "toy/panoptic_rcnn_R18_FPN"
    assert run("train", "--config-file", recipe, *SMALL.split(), *names, "OUTPUT_DIR", "run") == 0
    shutil.move("run", "moved")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    config = Path("../moved/config.yaml")
    assert read_config(config).MODEL.WEIGHTS == "", "the weights that the training has started from"
    assert read_config(config, ["MODEL.WEIGHTS", "mine.pth"], train=False).MODEL.WEIGHTS == "mine.pth"

    assert run("train", "--eval-only", "--config-file", config, "OUTPUT_DIR", "again") == 0
    metrics = [json.loads(Path(folder, "metrics.json").read_text()) for folder in ("../moved", "again")]
    assert metrics[0] == metrics[1]
    assert run("predict", "--config-file", config, "--input", toy_copy / "images", "--output", "predicted") == 0
    assert Path("predicted/panoptic.json").is_file()
    assert run("fuse", "save", "--config-file", config, "--output", "heads", "DATASETS.CHECK_IMAGES", "1") == 0
    assert [*Path("heads/inference/t_moved").glob("head_outputs")]
