"""Twenty iterations at once, and ten, kill -9, ten more, have the same weights: real processes and loader workers."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from tests.helpers.platforms import needs_worker_processes
from tests.helpers.small_training import CONFIG, build_options
from tests.helpers.stopped_commands import start, wait_until

pytestmark = [needs_worker_processes, pytest.mark.slow]


def build_command(toy_folder: Path, output: Path, processes: int, workers: int, *arguments: str) -> list[str]:
    options = build_options(
        toy_folder,
        output,
        SOLVER__MAX_ITER=20,
        SOLVER__CHECKPOINT_PERIOD=10,
        SOLVER__IMS_PER_BATCH=4,
        DATALOADER__NUM_WORKERS=workers,
    )
    return ["train", "--config-file", CONFIG, "--num-gpus", str(processes), *arguments, *options]


def run(*command: str) -> None:
    with start(*command) as process:
        output, error = process.communicate(timeout=600)
    assert process.returncode == 0, f"{output}\n{error}"


def load(output: Path) -> dict[str, torch.Tensor]:
    """The weights, and the state of the optimizer."""
    state = torch.load(output / "model_final.pth", weights_only=False)
    of_parameters = state["trainer"]["optimizer"]["state"]
    momenta = {f"{key}.{name}": value for key, values in of_parameters.items() for name, value in values.items()}
    return {**state["model"], **momenta}


@pytest.mark.parametrize(("processes", "workers"), [(1, 2), (2, 0), (2, 2)])
def test_a_killed_training_goes_on_to_the_same_weights(
    toy_folder: Path, tmp_path: Path, processes: int, workers: int
) -> None:
    run(*build_command(toy_folder, tmp_path / "whole", processes, workers=0))
    killed = tmp_path / "killed"
    with start(*build_command(toy_folder, killed, processes, workers)) as process:
        wait_until(lambda: (killed / "model_0000009.pth").exists(), process, seconds=600)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not (killed / "model_final.pth").exists(), "it was too late to be killed"
    run(*build_command(toy_folder, killed, processes, workers, "--resume"))
    whole, resumed = load(tmp_path / "whole"), load(killed)
    assert whole.keys() == resumed.keys()
    assert [name for name, value in whole.items() if not torch.equal(value, resumed[name])] == []
