"""A function in two processes of one gloo group."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


def run_in_two(function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Call `function(rank, *arguments)`, a function of a module, in two new processes: what both return."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_run, (folder, function, arguments), nprocs=2)
        return [torch.load(Path(folder, str(rank)), weights_only=True) for rank in range(2)]


def _run(rank: int, folder: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.save(function(rank, *arguments), Path(folder, str(rank)))
    dist.destroy_process_group()
