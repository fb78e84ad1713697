"""What happens in one process of two is known to both in the same step."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
import torch

from tests.helpers.platforms import needs_worker_processes
from tests.helpers.small_training import CONFIG, build_options
from tests.helpers.stopped_commands import start, wait_until

pytestmark = needs_worker_processes

# In the second and third steps of process 1: a loss of NaN, and the error that Detectron2's RPN raises.
BROKEN = """
import os
from segkit.modeling.meta_arch.panoptic_rcnn import PanopticRCNN

forward, steps = PanopticRCNN.forward, []

def break_forward(self, batched_inputs):
    losses = forward(self, batched_inputs)
    steps.append(1)
    if os.environ["RANK"] == "1" and len(steps) == 2:
        return {**losses, "loss_mask": losses["loss_mask"] * float("nan")}
    if os.environ["RANK"] == "1" and len(steps) == 3:
        raise FloatingPointError("Predicted boxes or scores contain Inf/NaN. Training has diverged.")
    return losses

PanopticRCNN.forward = break_forward
"""


def test_a_loss_that_is_not_finite_in_one_process_skips_the_step_in_both(toy_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "broken_losses.py").write_text(BROKEN)
    run = tmp_path / "run"
    options = build_options(toy_folder, run, SOLVER__MAX_ITER=5, SOLVER__CHECKPOINT_PERIOD=0)
    plugin = str(tmp_path / "broken_losses.py")
    with start("train", "--config-file", CONFIG, "--num-gpus", 2, "--plugin", plugin, *options) as process:
        output, error = process.communicate(timeout=300)
    assert process.returncode == 0, f"{output}\n{error}"
    first, second = (run / "log.txt").read_text(), (run / "log.txt.rank1").read_text()
    assert first.count("a loss of another process is not finite") == 2
    assert re.search(r"iteration 1, .*: loss_mask is nan with the images \[\d+\] of process 1", second)
    assert re.search(r"iteration 2, .*: Predicted boxes.* diverged with the images \[\d+\] of process 1", second)
    assert len([*(run / "faults").iterdir()]) == 2
    state = torch.load(run / "model_final.pth", weights_only=False)
    assert state["trainer"]["skipped"] == 2
    assert all(torch.isfinite(value).all() for value in state["model"].values() if value.is_floating_point())


@pytest.mark.slow
def test_a_signal_to_one_process_saves_and_ends_both(toy_folder: Path, tmp_path: Path) -> None:
    options = build_options(toy_folder, tmp_path, SOLVER__MAX_ITER=10_000, SOLVER__CHECKPOINT_PERIOD=0)
    with start("train", "--config-file", CONFIG, "--num-gpus", 2, *options, "SOLVER.LOG_PERIOD", 1) as process:
        log = tmp_path / "training.jsonl"
        wait_until(lambda: log.exists() and log.stat().st_size, process, seconds=300)
        lock = (tmp_path / "run.lock").read_text()
        pid = int(re.search(r'"pid": (\d+)', lock)[1])  # of process 0; its sibling is the other child
        siblings = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        [other] = [int(child) for child in siblings if int(child) != pid and _is_rank(int(child))]
        os.kill(other, signal.SIGUSR2)
        output, error = process.communicate(timeout=120)
    assert process.returncode not in (0, 1), f"{output}\n{error}"
    [checkpoint] = tmp_path.glob("model_*.pth")
    assert torch.load(checkpoint, weights_only=False)["iteration"] == int(checkpoint.stem[6:]) > 0
    assert f"SIGUSR2: saved after iteration {int(checkpoint.stem[6:])}" in (tmp_path / "log.txt").read_text()


def _is_rank(pid: int) -> bool:
    return (
        b"LOCAL_RANK" in Path(f"/proc/{pid}/environ").read_bytes()
        or b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )
