"""Jobs of several ranks in tests: `python -m tests.helpers.ranks MODE` is one rank, or starts them (NUM_GPUS)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
import torch.distributed as dist
from detectron2.utils import comm

from segkit.engine.distributed import joining
from segkit.engine.distributed.joining import connect_group
from segkit.engine.distributed.launch_plan import plan_launch
from segkit.engine.distributed.peers import Peers
from segkit.engine.distributed.ranks import run_ranks
from segkit.utils.errors import ConfigError, SegkitError


def work(peers: Peers, mode: str) -> None:
    """What each rank does: sums over the ranks, and in between what `mode` says."""
    is_last = peers.rank == peers.world_size - 1

    def prepare() -> None:
        if (mode == "error of rank 0" and peers.rank == 0) or (mode == "error of the last rank" and is_last):
            raise ConfigError("a wrong config")

    peers.main_first("prepared", prepare)
    if "COLLECTIVE_SECONDS" in os.environ:
        joining.COLLECTIVE_SECONDS = float(os.environ["COLLECTIVE_SECONDS"])
    if mode == "no answer" and is_last:
        time.sleep(300)
    connect_group(peers, "cpu")
    total = torch.tensor([peers.rank + 1.0])
    dist.all_reduce(total)
    print(f"sum {total.item():g}, local rank {comm.get_local_rank()} of {comm.get_local_size()}", flush=True)
    if mode == "stopped" and is_last:
        os.kill(os.getpid(), signal.SIGSTOP)
    if mode == "killed" and is_last:
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "rank 0 is stopped" and peers.rank == 0:
        os.kill(os.getpid(), signal.SIGSTOP)
    if mode == "late error" and is_last:
        raise ConfigError("a wrong config")
    if mode == "fault" and is_last:
        raise ValueError("a fault")
    if mode == "rank 0 is slow" and peers.rank == 0:
        time.sleep(2.5 * float(os.environ["SEGKIT_PEER_TIMEOUT"]))
    dist.all_reduce(total)


@contextmanager
def start(mode: str, *launcher: str, count: int = 1, **variables: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Start `work` in processes of their own, which are killed at the end.

    Args:
        mode: see `work`.
        launcher: arguments before the module, such as those of torchrun.
        count: tasks of Slurm; 1: without Slurm's variables.
        variables: environment variables.

    Yields:
        The processes.
    """
    command = [sys.executable, *launcher, "-m", "tests.helpers.ranks", mode]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    port = find_free_port()
    tasks = [build_slurm_variables(rank, count, port) if count > 1 else {} for rank in range(count)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [
        subprocess.Popen(command, env={**environment, **task}, start_new_session=True, **pipes) for task in tasks
    ]
    try:
        yield started
    finally:
        for process in started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def build_slurm_variables(rank: int, tasks: int, port: int) -> dict[str, str]:
    """The variables of one task of Slurm on this machine."""
    return {
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank),
        "SLURM_STEP_NUM_TASKS": str(tasks),
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_TASKS_PER_NODE": str(tasks),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_JOB_ID": "7",
        "MASTER_PORT": str(port),
    }


def find_free_port() -> int:
    """A port that nobody uses."""
    with socket.create_server(("", 0)) as server:
        return int(server.getsockname()[1])


def main(mode: str, num_gpus: str = "") -> Any:
    """Run one rank; an error is one line, as `segkit` shows it."""
    try:
        return run_ranks(plan_launch(int(num_gpus) if num_gpus else None), work, mode)
    except SegkitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], os.environ.get("NUM_GPUS", "")))
