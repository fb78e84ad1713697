"""A training that is killed at random moments and resumed each time ends with the weights of one that ran through."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest
import torch

from segkit.cli.main import main
from segkit.engine.checkpoints.newest import find_newest_checkpoint, has_checkpoints
from segkit.engine.checkpoints.safe_load import load_torch
from tests.helpers.platforms import needs_worker_processes
from tests.helpers.stopped_commands import list_hidden, list_processes, start, wait_until

pytestmark = [needs_worker_processes, pytest.mark.slow]
CONFIG = "configs/toy/panoptic_rcnn_R18_FPN.yaml"
ITERATIONS, KILLS = 24, 10
OPTIONS = f"""MODEL.DEVICE cpu MODEL.FPN.OUT_CHANNELS 16 MODEL.SEM_SEG_HEAD.CONVS_DIM 16 MODEL.ROI_BOX_HEAD.FC_DIM 16
    MODEL.ROI_MASK_HEAD.CONV_DIM 16 DATASETS.TRAIN ('t_toy',) DATASETS.TEST ('t_toy',) TEST.EXPORT False
    SOLVER.IMS_PER_BATCH 2 SOLVER.CHECKPOINT_PERIOD 1 SOLVER.MAX_ITER {ITERATIONS} DATALOADER.NUM_WORKERS 0 SEED 7"""


def build_command(toy_folder: Path, output: Path, *arguments: str) -> list[str]:
    paths = {"panoptic_json": f"{toy_folder}/panoptic.json", "panoptic_root": f"{toy_folder}/panoptic"}
    custom = ["DATASETS.CUSTOM", str([{"name": "t_toy", **paths}]), "OUTPUT_DIR", str(output)]
    return ["train", "--config-file", CONFIG, *arguments, *OPTIONS.split(), *custom]


def test_kills_change_nothing(toy_folder: Path, tmp_path: Path) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert main(build_command(toy_folder, straight)) == 0
    generator, last, kills = random.Random(0), -1, 0
    while kills < KILLS and last < ITERATIONS - 1:
        newer = [killed / f"model_{iteration:07d}.pth" for iteration in range(last + 1, ITERATIONS)]
        with start(*build_command(toy_folder, killed, "--resume")) as process:
            wait_until(lambda: any(path.exists() for path in newer), process)  # noqa: B023 - called at once
            time.sleep(generator.uniform(0.0, 1.0))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            wait_until(lambda: not list_processes(process.pid))
        assert has_checkpoints(killed)
        newest = load_torch(find_newest_checkpoint(killed))["iteration"]
        assert newest > last
        last, kills = newest, kills + 1
    assert main(build_command(toy_folder, killed, "--resume")) == 0
    models = [load_torch(folder / "model_final.pth")["model"] for folder in (straight, killed)]
    assert all(torch.equal(models[1][name], tensor) for name, tensor in models[0].items())
    assert len(list(killed.glob("model_0*.pth"))) == 3
    assert list_hidden(killed) == []
    assert not (killed / "run.lock").exists()
