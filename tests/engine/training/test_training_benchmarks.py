"""The benchmarks of the training run, at a size at which they measure nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("training.py", ["--tiny", "--options", "channels_last"]),
        ("training_gpu.py", ["--tiny", "--device", "cpu", "--workers", "1"]),
    ],
)
def test_both_loops_run_with_equal_losses(name: str, options: list[str]) -> None:
    done = subprocess.run([sys.executable, FOLDER / name, *options], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    first, *rounds = done.stdout.splitlines()
    ours, theirs = (float(number) for number in first.rpartition(": ")[2].split(" / "))
    assert ours == pytest.approx(theirs, rel=1e-5)
    for loop in ("segkit", "Detectron2"):
        [line] = [line for line in rounds if line.split(",")[0].split()[0] == loop and "images/s" in line][:1]
        assert "synchronisations a step" in line
    assert "against Detectron2" in rounds[-1]
