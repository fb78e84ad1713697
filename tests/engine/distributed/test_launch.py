"""The training command under torchrun, under Slurm and with --num-gpus: one result, one line for each error."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.helpers.launched_training import build_arguments
from tests.helpers.ranks import build_slurm_variables, find_free_port

TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


def start_training(launcher: list[str], arguments: list[str], **variables: str) -> subprocess.Popen[str]:
    command = [*launcher, "tools/train_net.py", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_every_launcher_gives_the_same_weights(toy_folder: Path, tmp_path: Path) -> None:
    """The ranks are the same, so the weights are equal to the bit."""
    port = find_free_port()
    launchers: dict[str, list[tuple[list[str], list[str], dict[str, str]]]] = {
        "num-gpus": [([sys.executable], ["--num-gpus", "2"], {})],
        "torchrun": [([*TORCHRUN, "--standalone", "--nproc_per_node", "2"], [], {})],
        "slurm": [([sys.executable], [], build_slurm_variables(rank, 2, port)) for rank in range(2)],
    }
    models = {}
    for name, commands in launchers.items():
        options = build_arguments(toy_folder, tmp_path / name)
        started = [start_training(python, [*words, *options], **variables) for python, words, variables in commands]
        for process in started:
            output, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
            assert output.count("t_toy: 12 images") == (process is started[0])
        models[name] = torch.load(tmp_path / name / "model_final.pth", weights_only=True)["model"]
    for model in models.values():
        assert all(torch.equal(weights, model[name]) for name, weights in models["num-gpus"].items())


@pytest.mark.slow
def test_tasks_with_other_configs_are_refused_before_the_first_iteration(toy_folder: Path, tmp_path: Path) -> None:
    port, host, started = find_free_port(), socket.gethostname(), []
    for rank, rate in enumerate(("0.001", "0.002")):
        arguments = build_arguments(toy_folder, tmp_path / "run", "SOLVER.BASE_LR", rate)
        started.append(start_training([sys.executable], arguments, **build_slurm_variables(rank, 2, port)))
    texts = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [1, 1]
    errors = [[line for line in errors.splitlines() if line.strip()] for _, errors in texts]
    names = [f"rank {rank} (host {host}, pid {process.pid})" for rank, process in enumerate(started)]
    message = f"{names[1]} has other config than {names[0]}: SOLVER.BASE_LR: 0.002 against 0.001"
    assert [line.endswith(message) for line in errors[0]] == [True], texts  # of rank 0, whose output the user sees
    assert errors[1] == []
    assert "Starting training" not in "".join(output + errors for output, errors in texts)
    assert not [*(tmp_path / "run").glob("*.pth")]
