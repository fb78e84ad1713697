"""torchrun on two machines: one of them fails and comes back, and the training goes on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.helpers.launched_training import build_arguments
from tests.helpers.machines import Machine, connect_machines
from tests.helpers.stopped_commands import wait_until

ITERATIONS = 30
ELASTIC = ["--nnodes", "2", "--nproc_per_node", "1", "--max_restarts", "3", "--rdzv_backend", "c10d", "--rdzv_id", "7"]


def start_node(machine: Machine, first: Machine, arguments: list[str], log: Path) -> subprocess.Popen[str]:
    meeting = ["--rdzv_endpoint", f"{first.address}:29400", "--rdzv_conf", f"is_host={int(machine is first)}"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", *ELASTIC, *meeting, "--local_addr", machine.address]
    variables = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": machine.interface, "SEGKIT_PEER_TIMEOUT": "6"}
    environment = {**os.environ, **variables, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    command = [*machine.command, *torchrun, "tools/train_net.py", "--resume", *arguments]
    with log.open("w") as file:
        return subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_a_machine_that_fails_and_comes_back(toy_folder: Path, tmp_path: Path) -> None:
    output, logs = tmp_path / "run", [tmp_path / f"{name}.log" for name in ("first", "second", "again")]
    options = ["SOLVER.MAX_ITER", str(ITERATIONS), "SOLVER.CHECKPOINT_PERIOD", "3"]
    arguments = build_arguments(toy_folder, output, *options)
    with connect_machines() as (first, second):
        stays = start_node(first, first, arguments, logs[0])
        fails = start_node(second, first, arguments, logs[1])
        wait_until(lambda: any(output.glob("model_*.pth")))
        second.power_off()
        fails.wait()
        comes_back = start_node(second, first, arguments, logs[2])
        codes = [stays.wait(timeout=300), comes_back.wait(timeout=300)]
        texts = [log.read_text(errors="replace") for log in logs]
        assert codes == [0, 0], texts
    assert re.search(r"segkit: rank \d \(host \S+, pid \d+\) gave no sign of life for 6 s", "".join(texts))
    begun = [int(number) for number in re.findall(r"Starting training from iteration (\d+)", "".join(texts))]
    assert begun[0] == 0
    assert 0 < begun[-1] < ITERATIONS
    assert torch.load(output / "model_final.pth", weights_only=True)["iteration"] == ITERATIONS - 1
