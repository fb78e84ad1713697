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


@pytest.mark.slow
def test_the_learning_table_has_a_row_of_each_recipe_and_the_curves(tmp_path: Path) -> None:
    command = [sys.executable, FOLDER / "learning.py", "--minutes", "0.05", "--scenes", "8", "--output", tmp_path]
    command += ["unet", "classical_kmeans"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    table = done.stdout[done.stdout.index("| recipe") :].splitlines()
    rows = {
        cells[1].strip(): [cell.strip() for cell in cells[2:-1]] for cells in (line.split("|") for line in table[2:4])
    }
    parameters, iterations, minutes, pq, ap, miou = rows["unet"]
    assert float(parameters) == 1.9
    assert int(iterations) >= 4
    assert float(minutes) > 0
    assert (pq, ap) == ("", "")
    assert 0 <= float(miou) <= 100
    assert rows["classical_kmeans"][:2] == ["0.0", "–"]
    assert float(rows["classical_kmeans"][3]) > 0
    assert (tmp_path / "learning.png").stat().st_size > 0
