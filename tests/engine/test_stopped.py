"""Training and prediction that are stopped midway; tests/cli/test_stopped.py has the commands without a model."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.modeling import build_model

from segkit.cli.main import main
from segkit.data.class_counts import resolve_for_categories
from segkit.data.toy import dataset as toy
from segkit.engine.setup import read_config
from tests.helpers.platforms import needs_worker_processes
from tests.helpers.stopped_commands import has_png, list_hidden, list_processes, start, wait_until

pytestmark = [needs_worker_processes, pytest.mark.slow]
CONFIG = "configs/toy/panoptic_rcnn_R18_FPN.yaml"
MANY = 500  # images, links to a few: more than are predicted before the signal
SIZES = ("FPN.OUT_CHANNELS", "SEM_SEG_HEAD.CONVS_DIM", "ROI_BOX_HEAD.FC_DIM", "ROI_MASK_HEAD.CONV_DIM")
SMALL = ["MODEL.DEVICE", "cpu", *(word for size in SIZES for word in (f"MODEL.{size}", "16"))]


def build_training(toy_folder: Path, output: Path, iterations: int, *arguments: Any) -> list[str]:
    """A small training whose data loader has two worker processes, with a checkpoint after each iteration."""
    paths = {"panoptic_json": f"{toy_folder}/panoptic.json", "panoptic_root": f"{toy_folder}/panoptic"}
    options = f"""DATASETS.TRAIN ('t_toy',) DATASETS.TEST ('t_toy',) SOLVER.IMS_PER_BATCH 2 DATALOADER.NUM_WORKERS 2
        SOLVER.MAX_ITER {iterations} SOLVER.CHECKPOINT_PERIOD 1 OUTPUT_DIR {output}""".split()
    custom = ["DATASETS.CUSTOM", str([{"name": "t_toy", **paths}])]
    return ["train", "--config-file", CONFIG, *arguments, *SMALL, *options, *custom]


def build_prediction(weights: Path, images: Path, output: Path) -> list[str]:
    arguments = ["--weights", weights, "--input", images, "--output", output, "--opts", *SMALL]
    return ["predict", "--config-file", CONFIG, *map(str, arguments)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cfg = read_config(CONFIG, SMALL)
    resolve_for_categories(cfg, toy.CATEGORIES, "one", "toy")
    path = tmp_path_factory.mktemp("weights") / "model.pth"
    torch.save({"model": build_model(cfg).state_dict(), "segkit": {"categories": toy.CATEGORIES.to_coco()}}, path)
    return path


@pytest.mark.parametrize(
    ("arguments", "number"), [((), signal.SIGTERM), ((), signal.SIGKILL), (("--num-gpus", "2"), signal.SIGTERM)]
)
def test_training(arguments: tuple[str, ...], number: signal.Signals, toy_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    with start(*build_training(toy_folder, output, 100_000, *arguments)) as process:
        wait_until(lambda: any(output.glob("model_*.pth")), process)
        process.send_signal(number)
        _, error = process.communicate(timeout=120)
        assert process.returncode == (128 + number if number == signal.SIGTERM else -number), error
        assert arguments or "Traceback" not in error
        wait_until(lambda: not list_processes(process.pid))
    if number == signal.SIGTERM:
        assert error.endswith("segkit train: terminated\n")
    else:
        assert main(build_training(toy_folder, output, 1)) == 0
    assert list_hidden(output) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_prediction(number: signal.Signals, weights: Path, toy_folder: Path, tmp_path: Path) -> None:
    images, few, output = tmp_path / "images", tmp_path / "few", tmp_path / "out"
    for folder, count in ((images, MANY), (few, 1)):
        folder.mkdir()
        for index in range(count):
            os.link(toy_folder / "images/000000000001.png", folder / f"{index}.png")
    with start(*build_prediction(weights, images, output)) as process:
        wait_until(lambda: has_png(output), process)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
        assert process.returncode == (128 + number if number == signal.SIGTERM else -number), error
        wait_until(lambda: not list_processes(process.pid))
    if number == signal.SIGTERM:
        assert error.splitlines()[-1] == "segkit predict: terminated"
    else:
        assert main(build_prediction(weights, few, output)) == 0
    assert list_hidden(output) == []
    assert not any(output.glob("*.json")) or number == signal.SIGKILL
